//! Everything that is decided before a node starts; nothing of it can be changed while it runs.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::Node;
use super::error::NodeError;
use super::raw::RawNode;
use crate::connector::{Connector, NoConnector};
use crate::identity::{MemberAddress, MemberId};

/// libdqlite refuses to keep fewer entries than this behind a snapshot.
pub const TRAILING_ENTRIES_MIN: u32 = 4;

/// When the log is cut.
///
/// The log since the last cut is kept in memory and is read again at the next start; libdqlite
/// counts entries, not bytes, and an entry is a transaction's changed pages. Each cut writes the
/// whole of the databases once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SnapshotParams {
    /// Entries after which a snapshot is taken.
    pub threshold_entries: u32,
    /// Entries kept behind a snapshot, for members that lag; at least the threshold.
    pub trailing_entries: u32,
    /// Whether that number is fixed.
    pub trailing: Trailing,
}

/// How many entries stay behind a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trailing {
    /// Always the number given.
    Static,
    /// At most the number given, and not more bytes than the snapshot justifies.
    Dynamic,
}

impl Default for SnapshotParams {
    /// For stores of 10 to 50 MB; measured in `docs/design/2026-11-23-dqlite.md`.
    fn default() -> SnapshotParams {
        SnapshotParams::every(256)
    }
}

impl SnapshotParams {
    /// A snapshot every so many entries, with the least that may stay behind it.
    pub fn every(entries: u32) -> SnapshotParams {
        SnapshotParams {
            threshold_entries: entries,
            trailing_entries: entries.max(TRAILING_ENTRIES_MIN),
            trailing: Trailing::Static,
        }
    }
}

/// Settings of a node that is about to start.
pub struct NodeBuilder {
    id: MemberId,
    address: MemberAddress,
    data_dir: PathBuf,
    bind: String,
    snapshot: SnapshotParams,
    snapshot_compression: bool,
    network_latency: Option<Duration>,
    failure_domain: Option<u64>,
    busy_timeout: Duration,
    write_on_loop: bool,
    connector: Arc<dyn Connector>,
}

impl NodeBuilder {
    pub(super) fn new(id: MemberId, address: MemberAddress, data_dir: PathBuf) -> NodeBuilder {
        NodeBuilder {
            id,
            address,
            data_dir,
            bind: "@".to_string(),
            snapshot: SnapshotParams::default(),
            snapshot_compression: true,
            network_latency: None,
            failure_domain: None,
            // As long as a client waits for a request by habit.
            busy_timeout: Duration::from_secs(10),
            write_on_loop: false,
            connector: Arc::new(NoConnector),
        }
    }

    /// A name for the abstract unix socket, "@name"; by default the kernel picks one.
    pub fn bind(mut self, address: &str) -> NodeBuilder {
        self.bind = address.to_string();
        self
    }

    /// When the log is cut.
    pub fn snapshot(mut self, params: SnapshotParams) -> NodeBuilder {
        self.snapshot = params;
        self
    }

    /// Whether snapshots are compressed; on by default.
    pub fn snapshot_compression(mut self, enabled: bool) -> NodeBuilder {
        self.snapshot_compression = enabled;
        self
    }

    /// The network's round trip: heartbeats come every 1.5 times this, and after 15 to 30 times this
    /// of silence a follower wants to lead. libdqlite's own values suit 333 ms and 200 ms.
    pub fn network_latency(mut self, latency: Duration) -> NodeBuilder {
        self.network_latency = Some(latency);
        self
    }

    /// What shares this node's fate; others can ask for it.
    pub fn failure_domain(mut self, code: u64) -> NodeBuilder {
        self.failure_domain = Some(code);
        self
    }

    /// Whether the thread of the loop writes the log itself; off by default. It saves the way to
    /// another thread and back, and nothing else of this node goes on meanwhile: for one without
    /// other members.
    pub fn write_on_loop(mut self, enabled: bool) -> NodeBuilder {
        self.write_on_loop = enabled;
        self
    }

    /// How long a writer queues behind another of the same database before it is told BUSY.
    pub fn busy_timeout(mut self, timeout: Duration) -> NodeBuilder {
        self.busy_timeout = timeout;
        self
    }

    /// How other members are reached; without, they are not.
    pub fn connector(mut self, connector: Arc<dyn Connector>) -> NodeBuilder {
        self.connector = connector;
        self
    }

    /// Starts the node.
    ///
    /// Blocks until the data is loaded: about a second for each 100 MB of log and snapshot. The
    /// directory must exist and belong to this process's user, who needs no privilege.
    pub fn start(self) -> Result<Node, NodeError> {
        check_directory(&self.data_dir)?;
        let mut raw = RawNode::create(self.id, &self.address, &self.data_dir)?;
        self.configure(&mut raw)?;
        raw.bind(&self.bind)?;
        Node::start(raw, self.id, self.address, self.data_dir)
    }

    fn configure(&self, raw: &mut RawNode) -> Result<(), NodeError> {
        raw.set_connector(self.connector.clone())?;
        let SnapshotParams { threshold_entries, trailing_entries, trailing } = self.snapshot;
        let strategy = match trailing {
            Trailing::Static => dqlite_sys::DQLITE_SNAPSHOT_TRAILING_STATIC,
            Trailing::Dynamic => dqlite_sys::DQLITE_SNAPSHOT_TRAILING_DYNAMIC,
        };
        // SAFETY: `set` hands over its living node, which does not run yet; the rest is numbers.
        raw.set("snapshot parameters", |node| unsafe {
            dqlite_sys::dqlite_node_set_snapshot_params_v2(
                node,
                threshold_entries,
                trailing_entries,
                strategy,
            )
        })?;
        let compression = self.snapshot_compression;
        // SAFETY: as above.
        raw.set("snapshot compression", |node| unsafe {
            dqlite_sys::dqlite_node_set_snapshot_compression(node, compression)
        })?;
        if let Some(latency) = self.network_latency {
            let latency = milliseconds(latency).max(1);
            // SAFETY: as above.
            raw.set("network latency", |node| unsafe {
                dqlite_sys::dqlite_node_set_network_latency_ms(node, latency)
            })?;
        }
        if let Some(code) = self.failure_domain {
            // SAFETY: as above.
            raw.set("failure domain", |node| unsafe {
                dqlite_sys::dqlite_node_set_failure_domain(node, code)
            })?;
        }
        let on_loop = self.write_on_loop;
        // SAFETY: as above.
        raw.set("who writes the log", |node| unsafe {
            dqlite_sys::dqlite_node_set_write_on_loop(node, on_loop)
        })?;
        let busy = milliseconds(self.busy_timeout);
        // SAFETY: as above.
        raw.set("busy timeout", |node| unsafe {
            dqlite_sys::dqlite_node_set_busy_timeout(node, busy)
        })?;
        // It would drop acknowledged entries to make a start succeed.
        // SAFETY: as above.
        raw.set("automatic recovery", |node| unsafe {
            dqlite_sys::dqlite_node_set_auto_recovery(node, false)
        })
    }
}

fn milliseconds(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}

/// libdqlite has one message for all that can be wrong here.
fn check_directory(data_dir: &Path) -> Result<(), NodeError> {
    let failed = |source| NodeError::Directory { data_dir: data_dir.into(), source };
    let kind = std::fs::metadata(data_dir).map_err(failed)?;
    if !kind.is_dir() {
        return Err(failed(std::io::ErrorKind::NotADirectory.into()));
    }
    let lock = data_dir.join("dqlite-lock");
    let lock = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(lock)
        .map_err(failed)?;
    match lock.try_lock() {
        // Released at once: libdqlite takes it itself.
        Ok(()) => Ok(()),
        Err(std::fs::TryLockError::WouldBlock) => {
            Err(NodeError::Locked { data_dir: data_dir.into() })
        }
        Err(std::fs::TryLockError::Error(source)) => Err(failed(source)),
    }
}
