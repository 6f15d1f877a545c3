//! One build at a time per cache: the kernel lets go of the lock whatever happens to the holder.

use std::fs::{self, File, OpenOptions};
use std::path::Path;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

/// Held as long as it lives.
#[derive(Debug)]
pub struct BuildLock {
    _file: Flock<File>,
}

impl BuildLock {
    /// Waits for another build to end, and says that it does.
    pub fn take(folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder)
            .with_context(|| format!("cannot create the cache {}", folder.display()))?;
        let path = folder.join("lock");
        let file = OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(false)
            .open(&path)
            .with_context(|| format!("cannot open {}", path.display()))?;
        let file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(file) => file,
            Err((file, Errno::EWOULDBLOCK)) => {
                eprintln!("==> waiting for another build that uses {}", folder.display());
                Flock::lock(file, FlockArg::LockExclusive)
                    .map_err(|(_, errno)| errno)
                    .with_context(|| format!("cannot lock {}", path.display()))?
            }
            Err((_, errno)) => {
                return Err(errno).with_context(|| format!("cannot lock {}", path.display()));
            }
        };
        Ok(Self { _file: file })
    }
}
