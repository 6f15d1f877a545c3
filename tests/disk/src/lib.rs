//! A file system for tests: it keeps its files in memory, remembers what of
//! them was synced, and at a power cut forgets the rest. It can be slow, full,
//! or unable to write, and counts syncs.
//!
//! ```text
//! process ── kernel (FUSE) ──> view ──fsync──> durable
//!                               ^                 │
//!                               └── power_cut() ──┘
//! ```
//!
//! Comes in: what processes do with files beneath a mount point. Goes out: the
//! view they left, or after a power cut what POSIX says must have survived:
//! contents that were synced with their file, names that were synced with their
//! directory. One thread a mounted disk answers the kernel. Needs root and
//! /dev/fuse.

mod disk;
mod faults;
mod fuse;
mod tree;

pub use disk::{Disk, DiskError};
pub use faults::{Counts, Faults};
pub use tree::Loss;
