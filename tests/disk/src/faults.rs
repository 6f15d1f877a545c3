//! What is wrong with a disk at the moment, and what it has counted.

use std::time::Duration;

/// What is wrong with a disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// Every sync takes this much longer.
    pub sync_delay: Duration,
    /// Writes and syncs fail with EIO.
    pub fail_writes: bool,
    /// Syncs succeed and make nothing durable: a disk that lies.
    pub ignore_syncs: bool,
}

/// What a disk did since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Syncs that made something durable: fsync, fdatasync, and writes that
    /// were asked to be synced.
    pub syncs: u64,
    /// Bytes that were written, synced or not.
    pub written_bytes: u64,
}
