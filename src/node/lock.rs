//! One skiffd per root.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

/// Held as long as skiffd lives; the kernel drops it with the process. The file says its pid.
#[derive(Debug)]
pub struct Lock(#[allow(dead_code, reason = "held, not read")] Flock<File>);

#[derive(Debug, thiserror::Error)]
pub enum LockError {
    #[error("another skiffd already runs this node ({})", .0.display())]
    Held(PathBuf),
    #[error("cannot lock {}", .0.display())]
    Io(PathBuf, #[source] io::Error),
}

impl Lock {
    /// Takes the lock or says who else has it; never waits.
    pub fn take(path: &Path) -> Result<Self, LockError> {
        let io_error = |e| LockError::Io(path.to_path_buf(), e);
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir).map_err(io_error)?;
        }
        let file = OpenOptions::new().create(true).append(true).open(path).map_err(io_error)?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(mut lock) => {
                lock.set_len(0).map_err(io_error)?;
                writeln!(lock, "{}", std::process::id()).map_err(io_error)?;
                Ok(Self(lock))
            }
            Err((_, nix::Error::EWOULDBLOCK)) => Err(LockError::Held(path.to_path_buf())),
            Err((_, e)) => Err(io_error(e.into())),
        }
    }
}
