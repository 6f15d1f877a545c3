//! etcd's v3 API on dqlite: one writer, an index in memory, watches from commits.
//!
//! Comes in: gRPC over a unix socket or loopback TCP, as etcd's clients speak
//! it. Goes out: rows of a log to dqlite, answers and events to clients.
//!
//! ```text
//!  server/*  ── reads ──────────────> index  <── commits ── writer ──> store/sql
//!  (gRPC)    ── changes ─> queue ───────────────────────────> │
//!  watch     <── wake ── watch_hub <────────── publishes ─────┘
//! ```
//!
//! Tasks that live: the writer, the expiry of leases, one a watch stream, and
//! the server's own. Memory is bounded by the quota (keys and history), the
//! admission of writes, and a few answers a watch stream.

pub mod accept;
pub mod admission;
pub mod backup;
pub mod batch;
pub mod census;
pub mod check;
pub mod clock;
pub mod command;
pub mod compactor;
pub mod database;
pub mod digest;
pub mod engine;
pub mod error;
pub mod feed;
pub mod fingerprint;
pub mod group;
pub mod identity;
pub mod index;
pub mod key_range;
pub mod lease;
pub mod listen;
pub mod member;
pub mod merger;
pub mod metrics;
pub mod options;
pub mod pending;
pub mod probe;
pub mod process;
pub mod proto;
pub mod range;
pub mod record;
pub mod recovery;
pub mod route;
pub mod run;
pub mod serve;
pub mod server;
pub mod shared;
pub mod snapshot;
pub mod state;
pub mod store;
pub mod suite;
pub mod tls;
pub mod trace;
pub mod txn;
pub mod watch_hub;
pub mod writer;

pub use database::{Database, Databases};
pub use engine::{Engine, Running};
pub use key_range::KeyRange;
pub use listen::Listen;
pub use options::Options;
pub use probe::{ProbeError, Probed, probe, probe_at};
pub use record::{LeaseId, Revision};
pub use run::{RunError, run};
