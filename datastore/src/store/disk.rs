//! The datastore's directory: its making, and how much space it takes and has.

use std::fs::{DirBuilder, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use super::{Size, StoreError};

/// Writes are refused while less is free than this. dqlite prepares its log
/// in files of 8 MiB and writes snapshots beside it; running into a full disk
/// would end it, so the writer stops before.
pub const SPACE_NEEDED_BYTES: u64 = 64 << 20;

/// Makes the directory, if it is missing, and its name durable: to sync what is
/// in it does not make the names above it so (fsync(2)).
pub fn ensure_dir(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    std::path::absolute(dir)?.ancestors().skip(1).try_for_each(sync_names)
}

/// Whoever may not look into a directory has made no name in it, and a file
/// system that can't be written to misses none.
fn sync_names(dir: &Path) -> io::Result<()> {
    match File::open(dir).and_then(|dir| dir.sync_all()) {
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::PermissionDenied
                    | ErrorKind::InvalidInput
                    | ErrorKind::ReadOnlyFilesystem
            ) =>
        {
            Ok(())
        }
        synced => synced,
    }
}

/// What is free on the file system below `dir`, in bytes; one cheap system call.
pub fn free_bytes(dir: &Path) -> Option<u64> {
    let found = nix::sys::statvfs::statvfs(dir).ok()?;
    #[allow(clippy::useless_conversion)] // their width depends on the platform
    Some(u64::from(found.blocks_available()).saturating_mul(u64::from(found.fragment_size())))
}

/// Refuses when the file system below `dir` is nearly full. When that can't be
/// seen, the write itself will tell.
pub fn check(dir: &Path) -> Result<(), StoreError> {
    match free_bytes(dir) {
        Some(available_bytes) if available_bytes < SPACE_NEEDED_BYTES => {
            Err(StoreError::NoSpace { available_bytes, needed_bytes: SPACE_NEEDED_BYTES })
        }
        _ => Ok(()),
    }
}

/// Entries of dqlite's log after which it takes a snapshot, which writes the
/// whole database, at the earliest: the library waits until the log since the
/// last one is as large as that (`dqlite-sys/recipe/snapshot-by-size.patch`).
pub const SNAPSHOT_ENTRIES: u32 = 512;

/// The bytes of the files in `dir`.
pub fn size(dir: &Path) -> Size {
    let files = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let total_bytes =
        files.filter_map(|file| file.metadata().ok()).map(|metadata| metadata.len()).sum();
    Size { total_bytes, used_bytes: total_bytes }
}
