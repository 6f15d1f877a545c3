//! Writing secrets: whole or not at all, and never readable by anybody else on the way.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, chown, fchown};
use std::path::{Path, PathBuf};

#[derive(Debug, thiserror::Error)]
#[error("cannot write {}", path.display())]
pub struct StoreError {
    path: PathBuf,
    source: io::Error,
}

/// Replaces `path` atomically: a reader sees the old content or the new, and a crash leaves one
/// of them.
pub fn write_private(
    path: &Path,
    content: &[u8],
    mode: u32,
    owner: (u32, u32),
) -> Result<(), StoreError> {
    write(path, content, mode, owner)
        .map_err(|source| StoreError { path: path.to_path_buf(), source })
}

/// Makes a secret readable by its owner alone again, whatever somebody did to it.
pub fn ensure_private(path: &Path, mode: u32, owner: (u32, u32)) -> Result<(), StoreError> {
    let ensure = || {
        let data = fs::metadata(path)?;
        if (data.uid(), data.gid()) != owner && nix::unistd::geteuid().is_root() {
            chown(path, Some(owner.0), Some(owner.1))?;
        }
        if data.permissions().mode() & 0o7777 != mode {
            fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
        }
        Ok(())
    };
    ensure().map_err(|source| StoreError { path: path.to_path_buf(), source })
}

fn write(path: &Path, content: &[u8], mode: u32, owner: (u32, u32)) -> io::Result<()> {
    let dir = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let fresh = dir.join(format!(".{}.new", name.to_string_lossy()));
    match fs::remove_file(&fresh) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&fresh)?;
    // Whoever is not root can only write for itself (tests do).
    let own = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
    if own != owner && own.0 == 0 {
        fchown(&file, Some(owner.0), Some(owner.1))?;
    }
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&fresh, path)?;
    File::open(dir)?.sync_all()
}
