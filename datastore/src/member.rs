//! One of several members: who the others are, how they are reached, and how
//! this one leads or follows.
//!
//! ```text
//!  transport ── bytes of raft ──> dqlite      roster    who is where
//!      └─────── gRPC ──> service              gossip    says so to each other
//!  replica   leads (writer) or follows        keeper    applies what roles choose
//! ```
//!
//! Comes in: options, a directory, certificates. Goes out: an [`crate::Engine`]
//! that serves as with one member. The design is in
//! `docs/design/2026-11-23-datastore-members.md`.

pub mod books;
pub mod breakdown;
pub mod channel;
pub mod comparison;
pub mod convert;
pub mod daemon;
pub mod dial;
pub mod follow;
pub mod gossip;
pub mod guarded;
pub mod join;
pub mod keeper;
pub mod listener;
pub mod nodes;
pub mod open;
pub mod operator;
pub mod peers;
pub mod ping;
pub mod pki;
pub mod refusals;
pub mod remote;
pub mod renewal;
pub mod replica;
pub mod report;
pub mod roles;
pub mod roster;
pub mod run;
pub mod service;
pub mod source;
pub mod timing;
pub mod tls;
pub mod transport;
pub mod tuner;
pub mod twofold;
pub mod watcher;
pub mod wire;

/// What this version of the protocol between members is called. A member
/// talks to those of its own version and the one before.
pub const VERSION: u32 = 1;
/// The oldest version that is understood.
pub const VERSION_MIN: u32 = 1;

/// Whether a member that says `version` is understood.
pub fn is_understood(version: u32) -> bool {
    (VERSION_MIN..=VERSION + 1).contains(&version)
}
