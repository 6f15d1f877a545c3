//! Where the record is kept: read whole, changed by compare-and-set.
//!
//! ```text
//!   settings          ClusterSettings        members/NAME   MemberRecord
//!   membership        Membership             tokens/ID      TokenRecord
//!                                            removed/ID     RemovedRecord
//! ```
//!
//! The name of a member is its key, so the store itself lets no name have two members.

mod change;
mod memory;

use std::collections::BTreeMap;
use std::future::Future;

pub use change::{Change, Key, KeyError, Write};
pub use memory::MemoryStore;
use serde::de::DeserializeOwned;

use crate::record::{ClusterRecord, RecordError, Revision, Versioned};

/// Changes of one decision: a node with its token and what is left of another, and room.
pub const CHANGES_MAX: usize = 100;

/// Why the record was not read or not changed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Something that the decision was made on has changed. Nothing was done.
    #[error("{key} has changed meanwhile")]
    Collided { key: Key },
    /// It may have been done or not; reading tells.
    #[error("whether the change was made is unknown: {0}")]
    Unknown(String),
    #[error("the cluster's record cannot be reached: {0}")]
    Unavailable(String),
    #[error("{key:?} in the cluster's record cannot be read: {why}")]
    Damaged { key: String, why: String },
    #[error("the cluster's record contradicts itself")]
    Contradiction(#[from] RecordError),
    #[error("nobody has founded a cluster here")]
    NoCluster,
}

/// Keeps the record.
///
/// What an implementation must do is said by [`crate::suite`].
pub trait Store: Send + Sync {
    /// Everything, as of one revision that holds every change that was answered before.
    fn read(&self) -> impl Future<Output = Result<ClusterRecord, StoreError>> + Send;

    /// Makes all the changes or none: all when every one finds its key as it expects. Answers the
    /// revision of the change.
    fn apply(
        &self,
        changes: &[Change],
    ) -> impl Future<Output = Result<Revision, StoreError>> + Send;

    /// Waits until there is a revision later than `seen`, and answers the latest. It may skip
    /// revisions, and never waits when there is a later one already.
    fn later_than(
        &self,
        seen: Revision,
    ) -> impl Future<Output = Result<Revision, StoreError>> + Send;
}

/// One key as a store gives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub key: String,
    pub value: Vec<u8>,
    /// Of its last change.
    pub revision: Revision,
}

/// Puts the record together out of what a store has under its prefix.
pub fn assemble(revision: Revision, entries: Vec<Entry>) -> Result<ClusterRecord, StoreError> {
    let (mut settings, mut membership) = (None, None);
    let (mut members, mut tokens, mut removed) =
        (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    if entries.is_empty() {
        return Err(StoreError::NoCluster);
    }
    for entry in entries {
        let damaged = |why: String| StoreError::Damaged { key: entry.key.clone(), why };
        match entry.key.parse::<Key>().map_err(|error| damaged(error.to_string()))? {
            Key::Settings => settings = Some(decode(&entry)?),
            Key::Membership => membership = Some(decode(&entry)?),
            Key::Member(name) => drop(members.insert(name, decode(&entry)?)),
            Key::Token(id) => drop(tokens.insert(id, decode(&entry)?)),
            Key::Removed(id) => drop(removed.insert(id, decode(&entry)?)),
            // A newer version keeps something more.
            Key::Other(_) => {}
        }
    }
    let missing = |key: Key| StoreError::Damaged { key: key.to_string(), why: "missing".into() };
    let settings = settings.ok_or_else(|| missing(Key::Settings))?;
    let membership = membership.ok_or_else(|| missing(Key::Membership))?;
    let record = ClusterRecord { revision, settings, membership, members, tokens, removed };
    record.check()?;
    Ok(record)
}

fn decode<T: DeserializeOwned>(entry: &Entry) -> Result<Versioned<T>, StoreError> {
    let damaged =
        |e: serde_json::Error| StoreError::Damaged { key: entry.key.clone(), why: e.to_string() };
    let value = serde_json::from_slice(&entry.value).map_err(damaged)?;
    Ok(Versioned { revision: entry.revision, value })
}
