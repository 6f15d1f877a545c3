//! Puts a finished directory where another one is, in one step.
//!
//! ```text
//! .NAME.restoring-T   being built; of no use when found later
//! .NAME.restored-T    finished, or the former one in the moment after the swap
//! NAME.former-T       the former one, kept
//! ```
//!
//! NAME itself is the former directory or the finished one at any time: they
//! are exchanged by one rename. What a power cut leaves is recognised by its
//! name; only what was being built is ever removed.

use std::fs::{DirBuilder, File, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};

use super::build::sync_all;
use super::partial::{parent_of, sync_parent};

/// The lock that a running datastore holds in its directory.
const LOCK: &str = "dqlite-lock";

/// Why a directory can't be put in place.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    #[error("{dir} is not empty")]
    NotEmpty { dir: PathBuf },
    #[error("{dir} is no directory")]
    NotADirectory { dir: PathBuf },
    #[error("{dir} has no name of its own: name the directory, not a path that ends in .. or /")]
    NoName { dir: PathBuf },
    #[error("a datastore runs on {dir}")]
    Runs { dir: PathBuf },
    #[error("another restore runs in {parent}")]
    Busy { parent: PathBuf },
    #[error("{dir} is a mount point, or its file system can't exchange directories")]
    CannotExchange {
        dir: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("can't put the new directory in the place of {dir}")]
    Failed {
        dir: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// A place that is ours until this is dropped.
#[derive(Debug)]
pub struct Place {
    dir: PathBuf,
    name: String,
    stamp: String,
    /// Of the former directory; `None` when there is nothing to keep.
    former: Option<Former>,
    _parent_lock: File,
}

#[derive(Debug)]
struct Former {
    /// Keeps a datastore from starting there.
    _lock: Option<File>,
}

/// What the place looks like afterwards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    /// Where the former directory is now.
    pub former: Option<PathBuf>,
}

impl Place {
    /// Takes the place `dir`, which may be missing, empty or, when `replace`
    /// allows it, full; `stamp` makes names that nobody has. Tidies what a
    /// restore left that did not end.
    pub fn claim(dir: &Path, replace: bool, stamp: &str) -> Result<Place, PlaceError> {
        let failed = |source| PlaceError::Failed { dir: dir.to_owned(), source };
        // A symbolic link would be replaced and not what it points to.
        let dir = match std::fs::canonicalize(dir) {
            Ok(real) => real,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                std::path::absolute(dir).map_err(failed)?
            }
            Err(error) => return Err(failed(error)),
        };
        let name = dir.file_name().and_then(|name| name.to_str()).map(str::to_owned);
        let name = name.ok_or_else(|| PlaceError::NoName { dir: dir.clone() })?;
        let parent = parent_of(&dir).to_owned();
        DirBuilder::new().recursive(true).mode(0o700).create(&parent).map_err(failed)?;
        let parent_lock = lock(&File::open(&parent).map_err(failed)?)
            .map_err(failed)?
            .ok_or_else(|| PlaceError::Busy { parent: parent.clone() })?;
        let former = match std::fs::metadata(&dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(failed(error)),
            Ok(metadata) if !metadata.is_dir() => return Err(PlaceError::NotADirectory { dir }),
            Ok(_) if is_empty(&dir).map_err(failed)? => None,
            Ok(_) if !replace => return Err(PlaceError::NotEmpty { dir }),
            Ok(_) => Some(Former { _lock: lock_datastore(&dir)? }),
        };
        let place = Place { dir, name, stamp: stamp.to_owned(), former, _parent_lock: parent_lock };
        place.tidy().map_err(failed)?;
        Ok(place)
    }

    /// Whether something is there that will be kept.
    pub fn has_former(&self) -> bool {
        self.former.is_some()
    }

    /// Makes the directory in which to build.
    pub fn begin(&self) -> Result<PathBuf, PlaceError> {
        let path = self.building();
        DirBuilder::new().mode(0o700).create(&path).map_err(|source| self.failed(source))?;
        Ok(path)
    }

    /// Where something else may be made meanwhile; tidied like what is built.
    pub fn scratch(&self) -> PathBuf {
        self.sibling(&format!(".{}.restoring-{}-copy", self.name, self.stamp))
    }

    /// Puts what was built in place; what was there is kept under another name.
    pub fn finish(self) -> Result<Placed, PlaceError> {
        let failed = |source| self.failed(source);
        let finished = self.sibling(&format!(".{}.restored-{}", self.name, self.stamp));
        self.take_over_owner().map_err(failed)?;
        sync_all(&self.building()).map_err(failed)?;
        std::fs::rename(self.building(), &finished).map_err(failed)?;
        sync_parent(&self.dir).map_err(failed)?;
        if self.former.is_none() {
            // Also over an empty directory; refused when it is empty no more.
            std::fs::rename(&finished, &self.dir).map_err(|error| {
                self.discard(&finished);
                failed(error)
            })?;
            sync_parent(&self.dir).map_err(failed)?;
            return Ok(Placed { former: None });
        }
        let exchange = RenameFlags::RENAME_EXCHANGE;
        renameat2(AT_FDCWD, &finished, AT_FDCWD, &self.dir, exchange).map_err(|error| {
            self.discard(&finished);
            PlaceError::CannotExchange { dir: self.dir.clone(), source: error.into() }
        })?;
        sync_parent(&self.dir).map_err(failed)?;
        let former = self.former_path(&self.stamp);
        std::fs::rename(&finished, &former).map_err(failed)?;
        sync_parent(&self.dir).map_err(failed)?;
        Ok(Placed { former: Some(former) })
    }

    /// Removes what was built.
    pub fn give_up(self) {
        // What can't be removed now is removed by the next restore.
        let _ = std::fs::remove_dir_all(self.building());
    }

    /// Removes what was finished, under a name from which a crash can be told.
    fn discard(&self, finished: &Path) {
        if std::fs::rename(finished, self.building()).is_ok() {
            let _ = std::fs::remove_dir_all(self.building());
        }
    }

    /// The new files belong to whom the former directory belongs.
    fn take_over_owner(&self) -> io::Result<()> {
        let Ok(metadata) = std::fs::metadata(&self.dir) else { return Ok(()) };
        let own = nix::unistd::geteuid().as_raw();
        let building = self.building();
        if metadata.uid() != own {
            let (uid, gid) = (Some(metadata.uid()), Some(metadata.gid()));
            for file in std::fs::read_dir(&building)? {
                std::os::unix::fs::chown(file?.path(), uid, gid)?;
            }
            std::os::unix::fs::chown(&building, uid, gid)?;
        }
        let mode = std::fs::Permissions::from_mode(metadata.mode() & 0o7777);
        std::fs::set_permissions(&building, mode)
    }

    /// Of a restore that did not end: what was being built goes, what was
    /// finished or is the former directory stays under a plain name.
    fn tidy(&self) -> io::Result<()> {
        let restoring = format!(".{}.restoring-", self.name);
        let restored = format!(".{}.restored-", self.name);
        for entry in std::fs::read_dir(parent_of(&self.dir))? {
            let entry = entry?;
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            if name.starts_with(&restoring) {
                std::fs::remove_dir_all(entry.path())?;
            } else if let Some(stamp) = name.strip_prefix(&restored) {
                std::fs::rename(entry.path(), self.former_path(stamp))?;
            }
        }
        sync_parent(&self.dir)
    }

    fn building(&self) -> PathBuf {
        self.sibling(&format!(".{}.restoring-{}", self.name, self.stamp))
    }

    fn former_path(&self, stamp: &str) -> PathBuf {
        self.sibling(&format!("{}.former-{stamp}", self.name))
    }

    fn sibling(&self, name: &str) -> PathBuf {
        parent_of(&self.dir).join(name)
    }

    fn failed(&self, source: io::Error) -> PlaceError {
        PlaceError::Failed { dir: self.dir.clone(), source }
    }
}

fn is_empty(dir: &Path) -> io::Result<bool> {
    Ok(std::fs::read_dir(dir)?.next().is_none())
}

/// Nobody can start a datastore on `dir` until the lock is dropped.
fn lock_datastore(dir: &Path) -> Result<Option<File>, PlaceError> {
    let failed = |source| PlaceError::Failed { dir: dir.to_owned(), source };
    let file = match File::options().read(true).write(true).open(dir.join(LOCK)) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    match lock(&file).map_err(failed)? {
        Some(lock) => Ok(Some(lock)),
        None => Err(PlaceError::Runs { dir: dir.to_owned() }),
    }
}

/// The lock, or nothing when another process has it.
fn lock(file: &File) -> io::Result<Option<File>> {
    match file.try_lock() {
        Ok(()) => file.try_clone().map(Some),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}
