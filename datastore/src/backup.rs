//! Copies that can be trusted, and the way back from one.
//!
//! ```text
//! source ── Snapshot ──> partial file ──> synced ──> restored in a scratch
//! (running)    (gRPC)    (sealed: age)               directory, compared with
//!                                                    the source ──> renamed
//!
//! backup ──> verified ──> built beside DIR ──> loaded, compared ──> DIR swapped
//! ```
//!
//! Comes in: the address of a running datastore, files, keys. Goes out: files
//! under their final names and directories in their final places, or nothing.
//! No task outlives a call. Bringing back a store that has lost its quorum
//! starts from a member's directory instead of a file and ends the same way:
//! [`build`] makes the new directory and [`place`] puts it where it belongs.

pub mod build;
pub mod extract;
pub mod job;
pub mod name;
pub mod partial;
pub mod place;
pub mod restore;
pub mod retention;
pub mod s3;
pub mod schedule;
pub mod seal;
pub mod source;
pub mod take;
pub mod target;

pub use extract::ExtractError;
pub use job::{Done, Job, JobError, Report};
pub use name::{BackupName, Kind};
pub use restore::{RestoreError, Restored, restore};
pub use s3::{S3, S3Error};
pub use seal::{Opening, SealError, Sealing};
pub use take::{Backup, BackupError, take};
pub use target::Target;
