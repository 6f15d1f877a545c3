//! A file under a temporary name, until it deserves its own.

use std::ffi::OsStr;
use std::fs::{File, TryLockError};
use std::io;
use std::path::Path;

use tempfile::NamedTempFile;

/// What temporary names end with.
const SUFFIX: &str = ".partial";
/// And what they begin with.
const PREFIX: &str = ".skiff-";

/// A file that is being written. It is locked, so that what a process left
/// behind that was killed can be told from what is still being written. When
/// it is dropped before [`Partial::keep`], it is removed.
#[derive(Debug)]
pub struct Partial {
    file: NamedTempFile,
}

impl Partial {
    /// Begins a file in `dir` and removes what killed processes left there.
    pub fn begin(dir: &Path) -> io::Result<Partial> {
        remove_left_behind(dir)?;
        let file = tempfile::Builder::new().prefix(PREFIX).suffix(SUFFIX).tempfile_in(dir)?;
        file.as_file().try_lock()?;
        Ok(Partial { file })
    }

    /// A handle to write it by.
    pub fn handle(&self) -> io::Result<File> {
        self.file.as_file().try_clone()
    }

    /// Where it is as long as it has no other name.
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// Gives the file, which was synced, its name; what was there is replaced.
    pub fn keep(self, path: &Path) -> io::Result<()> {
        self.file.persist(path).map_err(|error| error.error)?;
        sync_parent(path)
    }
}

/// The directory in which `path` stands.
pub fn parent_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Makes the names in the directory of `path` durable.
pub fn sync_parent(path: &Path) -> io::Result<()> {
    File::open(parent_of(path))?.sync_all()
}

fn remove_left_behind(dir: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        if !is_partial(&entry.file_name()) {
            continue;
        }
        // It may be gone by now: another process tidies as well.
        let Ok(file) = File::open(entry.path()) else { continue };
        match file.try_lock() {
            Ok(()) => drop(std::fs::remove_file(entry.path())),
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
    Ok(())
}

fn is_partial(name: &OsStr) -> bool {
    name.to_str().is_some_and(|name| name.starts_with(PREFIX) && name.ends_with(SUFFIX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn names(dir: &Path) -> Vec<String> {
        let names = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name());
        names.map(|name| name.into_string().unwrap()).collect()
    }

    #[test]
    fn a_file_appears_whole_or_not_at_all() {
        let dir = tempfile::TempDir::new().unwrap();
        let partial = Partial::begin(dir.path()).unwrap();
        let mut file = partial.handle().unwrap();
        file.write_all(b"half").unwrap();
        drop(partial);
        assert!(names(dir.path()).is_empty());
        let partial = Partial::begin(dir.path()).unwrap();
        let mut file = partial.handle().unwrap();
        file.write_all(b"whole").unwrap();
        partial.keep(&dir.path().join("name")).unwrap();
        assert_eq!(names(dir.path()), ["name"]);
        assert_eq!(std::fs::read(dir.path().join("name")).unwrap(), b"whole");
    }

    #[test]
    fn what_a_killed_process_left_is_removed_and_nothing_else() {
        let dir = tempfile::TempDir::new().unwrap();
        std::fs::write(dir.path().join(".skiff-0.partial"), "left").unwrap();
        std::fs::write(dir.path().join(".skiff-1.partial"), "written").unwrap();
        std::fs::write(dir.path().join("other.partial"), "not ours").unwrap();
        let written = File::open(dir.path().join(".skiff-1.partial")).unwrap();
        written.try_lock().unwrap();
        drop(Partial::begin(dir.path()).unwrap());
        let mut left = names(dir.path());
        left.sort();
        assert_eq!(left, [".skiff-1.partial", "other.partial"]);
    }
}
