//! What daemons write: each its own file, to which it appends directly, without a pipe of ours in
//! between that could break.

mod read;
mod rotate;

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

pub use read::{LogReader, tail};
pub use rotate::{Rotation, rotate};

use crate::spec::LogPolicy;

/// Owner writes, group reads, others nothing.
const MODE: u32 = 0o640;

/// Opens the file that a daemon appends to.
pub(crate) fn open(policy: &LogPolicy) -> io::Result<File> {
    let file = OpenOptions::new().create(true).append(true).mode(MODE).open(&policy.path)?;
    own(&file, policy)?;
    Ok(file)
}

/// The permissions that every log has, whatever the umask.
fn own(file: &File, policy: &LogPolicy) -> io::Result<()> {
    file.set_permissions(std::fs::Permissions::from_mode(MODE))?;
    match policy.gid {
        Some(gid) => fchown(file, None, Some(gid)),
        None => Ok(()),
    }
}

/// `a.log.1`, the last one that was rotated; higher numbers are older.
fn rotated(path: &Path, number: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    name.into()
}
