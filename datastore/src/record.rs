//! What is stored: one version of one key, and the numbers that order it.

use bytes::Bytes;

/// The number of a write transaction: dense, strictly ordered, never given twice.
///
/// An empty store is at revision 1 and the first write makes revision 2.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub i64);

impl Revision {
    /// Where a store begins that was never written to.
    pub const EMPTY_STORE: Revision = Revision(1);

    /// Stands for the compacted revision of a store that never was compacted.
    pub const NEVER_COMPACTED: Revision = Revision(-1);

    /// The revision that the next write gets.
    pub fn next(self) -> Revision {
        Revision(self.0 + 1)
    }

    /// The revision before this one.
    pub fn previous(self) -> Revision {
        Revision(self.0 - 1)
    }
}

impl std::fmt::Display for Revision {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// The name of a lease. 0 means "no lease".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseId(pub i64);

impl LeaseId {
    /// A key without a lease carries this.
    pub const NONE: LeaseId = LeaseId(0);

    /// Whether this names a lease at all.
    pub fn is_some(self) -> bool {
        self != LeaseId::NONE
    }
}

/// One version of one key. A version of 0 is a tombstone: the key was deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub key: Bytes,
    pub value: Bytes,
    pub created: Revision,
    pub modified: Revision,
    pub version: i64,
    pub lease: LeaseId,
}

impl Record {
    /// The record that says that `key` is gone since `modified`.
    pub fn tombstone(key: Bytes, modified: Revision) -> Record {
        Record {
            key,
            value: Bytes::new(),
            created: Revision(0),
            modified,
            version: 0,
            lease: LeaseId::NONE,
        }
    }

    /// Whether this version says that the key is gone.
    pub fn is_tombstone(&self) -> bool {
        self.version == 0
    }

    /// Bytes this version occupies in memory, by which quotas are counted.
    pub fn size(&self) -> u64 {
        (self.key.len() + self.value.len()) as u64 + RECORD_OVERHEAD_BYTES
    }
}

/// What a version costs besides its key and value: the record itself, its
/// counters, and its places in the tree and in the history.
pub const RECORD_OVERHEAD_BYTES: u64 = 192;
