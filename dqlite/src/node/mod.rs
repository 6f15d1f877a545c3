//! A dqlite node within this process.

mod builder;
mod error;
pub(crate) mod raw;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, TryLockError};
use std::time::{Duration, Instant};

pub use builder::{NodeBuilder, SnapshotParams, TRAILING_ENTRIES_MIN, Trailing};
pub use error::NodeError;

use crate::connection::{Connection, OpenQueries};
use crate::connector::LocalSocket;
use crate::error::Error;
use crate::identity::{DatabaseName, MemberAddress, MemberId};
use raw::RawNode;

/// Pause between two questions for leadership at a start; one member leads within a millisecond.
const LEADER_PAUSE: Duration = Duration::from_millis(2);

/// A running node.
///
/// Its SQL is reached through connections over its own socket only. Dropping it stops it, which
/// blocks for some milliseconds; connections to it end then.
pub struct Node {
    /// `None` after the stop.
    raw: Mutex<Option<RawNode>>,
    id: MemberId,
    address: MemberAddress,
    data_dir: PathBuf,
    socket: LocalSocket,
    open_queries: Arc<OpenQueries>,
}

impl Node {
    /// A node to be: `address` is how other members will name it.
    ///
    /// Member 1 ([`MemberId::FIRST`]) forms a cluster by itself in an empty directory; the others
    /// wait there until they are added.
    pub fn builder(
        id: MemberId,
        address: impl Into<MemberAddress>,
        data_dir: impl Into<PathBuf>,
    ) -> NodeBuilder {
        NodeBuilder::new(id, address.into(), data_dir.into())
    }

    fn start(
        mut raw: RawNode,
        id: MemberId,
        address: MemberAddress,
        data_dir: PathBuf,
    ) -> Result<Node, NodeError> {
        let bound = raw.bound().unwrap_or_default();
        let Some(socket) = LocalSocket::parse(&bound) else {
            let address = String::from_utf8_lossy(&bound).into_owned();
            return Err(NodeError::Bind { address, message: "not an abstract socket".into() });
        };
        if let Err(code) = raw.start() {
            return Err(NodeError::Start { data_dir, message: raw.message(code) });
        }
        let (raw, open_queries) = (Mutex::new(Some(raw)), Arc::default());
        Ok(Node { raw, id, address, data_dir, socket, open_queries })
    }

    /// Who this is.
    pub fn id(&self) -> MemberId {
        self.id
    }

    /// How other members name it.
    pub fn address(&self) -> &MemberAddress {
        &self.address
    }

    /// Where its data is.
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// Where it listens.
    pub fn socket(&self) -> &LocalSocket {
        &self.socket
    }

    /// A connection without a database, for what concerns the cluster.
    pub async fn connect(&self) -> Result<Connection, Error> {
        let io = |source| Error::Io { during: "connecting to the own node", source };
        // The listener is local and its queue is long: this does not block.
        let stream = self.socket.connect().map_err(io)?;
        Connection::counted(stream.into(), self.open_queries.clone()).await
    }

    /// A connection to a database, which is created when missing. [`Error::NotLeader`] when another
    /// member leads.
    pub async fn open(&self, name: &DatabaseName) -> Result<Connection, Error> {
        let mut connection = self.connect().await?;
        connection.open(name).await?;
        Ok(connection)
    }

    /// The same, asked again until this node leads or the time is over.
    pub async fn open_when_leader(
        &self,
        name: &DatabaseName,
        timeout: Duration,
    ) -> Result<Connection, Error> {
        let deadline = Instant::now() + timeout;
        loop {
            match self.open(name).await {
                Err(Error::NotLeader { .. }) if Instant::now() < deadline => {
                    tokio::time::sleep(LEADER_PAUSE).await;
                }
                other => return other,
            }
        }
    }

    /// Gives leadership to another member, as well as that goes: to be called before the stop of one
    /// member of several. Blocks for some tens of milliseconds.
    ///
    /// libdqlite reports an error also when leadership moved and only no spare was there to take the
    /// vote, so its answer is logged and not returned.
    pub fn handover(&self) {
        let mut raw = self.raw.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(Err(code)) = raw.as_mut().map(RawNode::handover) {
            tracing::debug!(code, "handover was not complete");
        }
    }

    /// Whether the node runs and does nothing any more: after one failed write to its disk
    /// libdqlite refuses every other one, and only another start helps. Never blocks; while the node
    /// is handed over or stopped the answer is no.
    pub fn is_broken(&self) -> bool {
        let raw = match self.raw.try_lock() {
            Ok(raw) => raw,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return false,
        };
        raw.as_ref().is_some_and(RawNode::is_broken)
    }

    /// Stops the node. What was acknowledged is on disk before and after.
    pub fn stop(self) -> Result<(), NodeError> {
        self.end()
    }

    /// The same while others still hold the node: what they ask of it fails from then on.
    pub fn end(&self) -> Result<(), NodeError> {
        let raw = self.raw.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut raw) = raw else {
            return Ok(());
        };
        let stopped = raw.stop().map_err(|code| NodeError::Stop { code });
        let open = self.open_queries.count();
        if open > 0 {
            // Freeing it would fail an assertion and abort the process.
            tracing::warn!(open, member = %self.id, "node ended with queries unread, not freed");
            std::mem::forget(raw);
        }
        stopped
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            tracing::error!(%error, member = %self.id, "node did not stop cleanly");
        }
    }
}
