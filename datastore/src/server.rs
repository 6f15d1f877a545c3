//! The gRPC surface: one file per operation of etcd's API.

pub mod alarm;
pub mod compact;
pub mod defragment;
pub mod delete_range;
pub mod front;
pub mod hash;
pub mod lease_grant;
pub mod lease_keep_alive;
pub mod lease_leases;
pub mod lease_revoke;
pub mod lease_time_to_live;
pub mod member_list;
pub mod plain;
pub mod put;
pub mod range;
pub mod range_body;
pub mod range_stream;
pub mod services;
pub mod snapshot;
pub mod status;
pub mod txn;
pub mod watch;
pub mod watch_stream;

use std::time::Duration;

use tokio::sync::watch as signal;

use crate::engine::Engine;

/// What every operation has at hand.
#[derive(Clone)]
pub struct Server {
    pub engine: Engine,
    /// How often a watcher who asked for it hears how far it has come.
    pub progress_interval: Duration,
    /// A request that takes this long is logged.
    pub slow_after: Duration,
    /// Becomes true when streams have to end.
    pub stopping: signal::Receiver<bool>,
}
