//! Rotation of a file that another process keeps open for appending.
//!
//! The daemon cannot be told to open another file, so its file stays and shrinks from the front:
//! the oldest blocks are copied to `<log>.1`, then cut out of the file in one step
//! (FALLOC_FL_COLLAPSE_RANGE). What the daemon appends meanwhile is behind the cut: nothing is
//! lost. A crash between copy and cut leaves lines twice, never none.
//!
//! File systems that cannot cut (only ext4, XFS and F2FS can): everything is copied and the file
//! truncated. Then what is appended between the last read and the truncation is lost: some
//! microseconds' worth, once per rotation.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::{FallocateFlags, FlockOperation, fallocate, flock, fstatvfs};

use super::{MODE, own, rotated};
use crate::spec::LogPolicy;

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rotation {
    /// The file is not large enough yet.
    NotDue,
    /// Somebody reads it just now; later.
    Busy,
    /// Nothing was lost.
    Cut,
    /// The file system cannot cut.
    Truncated,
    /// There was no room for a copy: the oldest lines are gone.
    Dropped,
}

/// Rotates the log if it is larger than its policy allows.
pub fn rotate(policy: &LogPolicy) -> io::Result<Rotation> {
    let file = match OpenOptions::new().read(true).write(true).open(&policy.path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Rotation::NotDue),
        Err(error) => return Err(error),
    };
    if file.metadata()?.len() <= policy.bytes_max {
        return Ok(Rotation::NotDue);
    }
    // Readers hold it shared while they read: no one sees the copy beside the uncut file.
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => return Ok(Rotation::Busy),
        Err(error) => return Err(error.into()),
    }
    let cut = cut_length(&file)?;
    match copy(&file, cut, policy) {
        Ok(copy) => {
            shift(&policy.path, policy.files_max)?;
            finish(&file, cut, copy)
        }
        Err(error) if error.kind() == io::ErrorKind::StorageFull => {
            let _ = fs::remove_file(fresh(&policy.path));
            let _ = fs::remove_file(rotated(&policy.path, policy.files_max));
            collapse(&file, cut).or_else(|_| file.set_len(0))?;
            Ok(Rotation::Dropped)
        }
        Err(error) => Err(error),
    }
}

/// Whole blocks only, and never up to the end: that is what the kernel can cut.
fn cut_length(file: &File) -> io::Result<u64> {
    let block = fstatvfs(file)?.f_bsize.max(1);
    let length = file.metadata()?.len();
    Ok(length.saturating_sub(1) / block * block)
}

fn fresh(path: &Path) -> std::path::PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    name.into()
}

fn copy(file: &File, length: u64, policy: &LogPolicy) -> io::Result<File> {
    let path = fresh(&policy.path);
    let mut copy =
        OpenOptions::new().create(true).write(true).truncate(true).mode(MODE).open(path)?;
    own(&copy, policy)?;
    let mut from = file;
    io::copy(&mut Read::take(&mut from, length), &mut copy)?;
    Ok(copy)
}

/// `.new` becomes `.1`, `.1` becomes `.2` and so on; the oldest goes.
fn shift(path: &Path, files_max: u32) -> io::Result<()> {
    for number in (1..files_max).rev() {
        match fs::rename(rotated(path, number), rotated(path, number + 1)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    match files_max {
        0 => fs::remove_file(fresh(path)),
        _ => fs::rename(fresh(path), rotated(path, 1)),
    }
}

fn finish(file: &File, cut: u64, mut copy: File) -> io::Result<Rotation> {
    if cut > 0 && collapse(file, cut).is_ok() {
        return Ok(Rotation::Cut);
    }
    let mut from = file;
    let mut buffer = vec![0; 64 << 10];
    loop {
        match from.read(&mut buffer)? {
            0 => break,
            length => copy.write_all(&buffer[..length])?,
        }
    }
    file.set_len(0)?;
    Ok(Rotation::Truncated)
}

fn collapse(file: &File, length: u64) -> io::Result<()> {
    Ok(fallocate(file, FallocateFlags::COLLAPSE_RANGE, 0, length)?)
}
