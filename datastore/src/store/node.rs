//! The SQL node below a store: dqlite's in production, a modelled one in the
//! simulation. Both speak dqlite's protocol, so that everything from
//! [`dqlite::Connection`] upwards is the same code.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use dqlite::{Connection, DatabaseName, MemberId, Node, NodeError};

/// A member of dqlite, as its own process sees it.
#[tonic::async_trait]
pub trait SqlNode: Send + Sync + 'static {
    /// Which member it is.
    fn id(&self) -> MemberId;

    /// Where its files are; what the store asks about free space.
    fn data_dir(&self) -> &Path;

    /// A connection without a database.
    async fn connect(&self) -> Result<Connection, dqlite::Error>;

    /// A connection with a database, when this node leads or comes to lead in time.
    async fn open_when_leader(
        &self,
        name: &DatabaseName,
        timeout: Duration,
    ) -> Result<Connection, dqlite::Error>;

    /// Whether it does nothing any more and only another start helps.
    fn is_broken(&self) -> bool;

    /// Ends it; safe to repeat.
    async fn end(self: Arc<Self>) -> Result<(), NodeError>;
}

#[tonic::async_trait]
impl SqlNode for Node {
    fn id(&self) -> MemberId {
        self.id()
    }

    fn data_dir(&self) -> &Path {
        self.data_dir()
    }

    async fn connect(&self) -> Result<Connection, dqlite::Error> {
        self.connect().await
    }

    async fn open_when_leader(
        &self,
        name: &DatabaseName,
        timeout: Duration,
    ) -> Result<Connection, dqlite::Error> {
        self.open_when_leader(name, timeout).await
    }

    fn is_broken(&self) -> bool {
        self.is_broken()
    }

    async fn end(self: Arc<Self>) -> Result<(), NodeError> {
        let end = move || Node::end(&self);
        tokio::task::spawn_blocking(end).await.expect("stopping a node does not panic")
    }
}
