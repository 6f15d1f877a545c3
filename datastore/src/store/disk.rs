//! How much space the datastore's directory takes and has.

use std::path::Path;

use super::{Size, StoreError};

/// Writes are refused while less is free than this. dqlite prepares its log
/// in files of 8 MiB and writes snapshots beside it; running into a full disk
/// would end it, so the writer stops before.
pub const SPACE_NEEDED_BYTES: u64 = 64 << 20;

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

/// The bytes of the files in `dir`.
pub fn size(dir: &Path) -> Size {
    let files = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let total_bytes =
        files.filter_map(|file| file.metadata().ok()).map(|metadata| metadata.len()).sum();
    Size { total_bytes, used_bytes: total_bytes }
}
