//! What has to be there after a power cut: a file that is whole, or a file system as it is now.
//!
//! Without a sync, a new file has its name after a cut and nothing in it (delayed allocation of
//! ext4, xfs and btrfs).

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// Puts a file with this content in the place of what has its name: the old content or the new,
/// whenever power fails, and the new from the moment that this answers.
pub fn replace(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let dir = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let fresh = dir.join(format!(".{}.new", name.to_string_lossy()));
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&fresh)?;
    // Whatever the process takes away by its mask.
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&fresh, path)?;
    File::open(dir)?.sync_all()
}

/// Writes everything that the file system of `path` holds to its disk (syncfs(2)): for many files
/// at once, and for what other programs wrote.
pub fn sync_file_system(path: &Path) -> io::Result<()> {
    Ok(nix::unistd::syncfs(File::open(path)?)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_as_a_whole_with_its_mode() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("unit");
        replace(&path, b"long before", 0o600).unwrap();
        replace(&path, b"now", 0o644).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"now");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o644);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing else is left");
        sync_file_system(dir.path()).unwrap();
    }
}
