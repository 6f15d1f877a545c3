//! A dqlite node, and a client that speaks its protocol.
//!
//! dqlite is SQLite replicated by raft, as a C library. This room makes it safe to use from Rust: a
//! [`Node`] owns the library's node, a [`Connection`] carries SQL to it over its own socket, which is
//! the only way the library offers, and [`Error`] sorts failures by what the caller may do about
//! them. What goes in: a data directory, statements, values. What goes out: rows, and the certainty
//! that an answered write is on disk, on a majority when there are several members.
//!
//! Threads: libdqlite runs one thread for each node and up to four of libuv's pool for SQL and disk
//! (`UV_THREADPOOL_SIZE` in the environment of the process sets how many). This crate adds none;
//! connections live on the caller's tokio runtime, a current-thread one is enough.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use dqlite::{DatabaseName, MemberId, Node, params};
//!
//! let node = Node::builder(MemberId::FIRST, "first", "/some/directory").start()?;
//! let mut connection = node.open(&DatabaseName::versioned("kube", 1)?).await?;
//! connection.exec("CREATE TABLE IF NOT EXISTS log (revision INTEGER PRIMARY KEY, batch BLOB)", &[])
//!     .await?;
//! connection.exec("INSERT INTO log VALUES (?, ?)", &params![1, vec![0u8; 1024]]).await?;
//! let rows = connection.query("SELECT revision, batch FROM log", &[]).await?;
//! assert_eq!(rows.rows[0].integer(0)?, 1);
//! node.stop()?;
//! # Ok(()) }
//! ```

mod busy;
mod client;
mod connection;
mod connector;
mod error;
mod identity;
pub mod memory;
#[cfg(feature = "model")]
pub mod model;
mod node;
pub mod recover;
pub mod wire;

pub use busy::{BusyPolicy, may_retry_busy, plan_busy_retry};
pub use client::{Attempt, Client, NoLeader};
pub use connection::{Connection, ExecResult, Metadata, Row, RowStream, Rows, Statement};
pub use connector::{Connector, LocalConnector, LocalSocket, NoConnector, TcpConnector};
pub use error::{Error, UnknownCause};
pub use identity::{
    DATABASE_NAME_BYTES_MAX, DatabaseName, DatabaseNameError, MemberAddress, MemberId, MemberInfo,
    Role,
};
pub use node::{Node, NodeBuilder, NodeError, SnapshotParams, TRAILING_ENTRIES_MIN, Trailing};
pub use wire::{Value, WireError};

/// The version of libdqlite that this was linked with, "1.18.7".
pub fn library_version() -> &'static str {
    dqlite_sys::LINKED_VERSION
}
