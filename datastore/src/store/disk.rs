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

/// Refuses when the file system below `dir` is nearly full. One cheap system
/// call; when it fails, the write itself will tell.
pub fn check(dir: &Path) -> Result<(), StoreError> {
    let Ok(found) = nix::sys::statvfs::statvfs(dir) else { return Ok(()) };
    #[allow(clippy::useless_conversion)] // their width depends on the platform
    let available_bytes =
        u64::from(found.blocks_available()).saturating_mul(u64::from(found.fragment_size()));
    if available_bytes < SPACE_NEEDED_BYTES {
        return Err(StoreError::NoSpace { available_bytes, needed_bytes: SPACE_NEEDED_BYTES });
    }
    Ok(())
}

/// Entries of dqlite's log after which it takes a snapshot, which writes the
/// whole database. The log since the last one is kept in memory, so a small
/// store takes them often; a large one seldom, lest it only writes snapshots.
/// An entry of ours is about 16 KiB at its largest under load.
pub fn choose_snapshot_entries(database_bytes: u64) -> u32 {
    let justified = database_bytes / (8 << 10);
    u32::try_from(justified).unwrap_or(u32::MAX).clamp(512, 8192)
}

/// The size of the newest snapshot, which is that of the database, compressed.
pub fn snapshot_bytes(dir: &Path) -> u64 {
    let files = std::fs::read_dir(dir).into_iter().flatten().flatten();
    files
        .filter(|file| file.file_name().as_encoded_bytes().starts_with(b"snapshot-"))
        .filter_map(|file| file.metadata().ok())
        .map(|metadata| metadata.len())
        .max()
        .unwrap_or(0)
}

/// The bytes of the files in `dir`.
pub fn size(dir: &Path) -> Size {
    let files = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let total_bytes =
        files.filter_map(|file| file.metadata().ok()).map(|metadata| metadata.len()).sum();
    Size { total_bytes, used_bytes: total_bytes }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_stores_take_snapshots_seldom() {
        assert_eq!(choose_snapshot_entries(0), 512);
        assert_eq!(choose_snapshot_entries(8 << 20), 1024);
        assert_eq!(choose_snapshot_entries(10 << 30), 8192);
    }
}
