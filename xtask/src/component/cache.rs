//! Finished builds: `<cache>/components/<name>/<key>/…`. An entry is either whole or not there.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result};

/// How many builds of one component are kept: two architectures, before and after a change.
const ENTRIES_KEPT: usize = 6;
const UNFINISHED: &str = ".unfinished-";

/// The builds of one component or image.
#[derive(Debug)]
pub struct CacheShelf {
    folder: PathBuf,
}

impl CacheShelf {
    pub fn open(cache: &Path, name: &str) -> Result<Self> {
        let folder = cache.join("components").join(name);
        fs::create_dir_all(&folder)
            .with_context(|| format!("cannot create {}", folder.display()))?;
        Ok(Self { folder })
    }

    /// The entry of `key`, marked as used.
    pub fn find(&self, key: &str) -> Option<PathBuf> {
        let entry = self.folder.join(key);
        if !entry.is_dir() {
            return None;
        }
        // Only what is thrown away first depends on it.
        let _ = File::open(&entry).and_then(|folder| folder.set_modified(SystemTime::now()));
        Some(entry)
    }

    /// Makes the entry of `key` with `build`, which fills a folder that becomes the entry at the
    /// end by its name alone. The caller holds the build lock.
    pub fn make(&self, key: &str, build: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
        self.remove_unfinished()?;
        let unfinished = self.folder.join(format!("{UNFINISHED}{key}"));
        fs::create_dir(&unfinished)
            .with_context(|| format!("cannot create {}", unfinished.display()))?;
        build(&unfinished)?;
        let entry = self.folder.join(key);
        fs::rename(&unfinished, &entry)
            .with_context(|| format!("cannot keep the build as {}", entry.display()))?;
        self.remove_oldest()?;
        Ok(entry)
    }

    /// What an interrupted build left.
    fn remove_unfinished(&self) -> Result<()> {
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with(UNFINISHED) {
                fs::remove_dir_all(entry.path())?;
            }
        }
        Ok(())
    }

    fn remove_oldest(&self) -> Result<()> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            entries.push((entry.metadata()?.modified()?, entry.path()));
        }
        entries.sort();
        for (_, path) in &entries[..entries.len().saturating_sub(ENTRIES_KEPT)] {
            fs::remove_dir_all(path)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::bail;

    #[test]
    fn a_failed_build_leaves_no_entry() {
        let cache = tempfile::tempdir().unwrap();
        let shelf = CacheShelf::open(cache.path(), "kube").unwrap();
        let failed = shelf.make("one", |folder| {
            fs::write(folder.join("half"), "x")?;
            bail!("interrupted")
        });
        assert!(failed.is_err());
        assert_eq!(shelf.find("one"), None);
        let entry = shelf.make("one", |folder| Ok(fs::write(folder.join("whole"), "x")?)).unwrap();
        assert_eq!(shelf.find("one"), Some(entry.clone()));
        assert!(entry.join("whole").exists());
        assert!(!entry.join("half").exists());
    }

    #[test]
    fn old_entries_go_first() {
        let cache = tempfile::tempdir().unwrap();
        let shelf = CacheShelf::open(cache.path(), "kube").unwrap();
        for number in 0..ENTRIES_KEPT {
            let entry = shelf.make(&number.to_string(), |_| Ok(())).unwrap();
            let age = SystemTime::now() - std::time::Duration::from_secs(100 - number as u64);
            File::open(entry).unwrap().set_modified(age).unwrap();
        }
        shelf.find("0"); // used just now
        shelf.make("new", |_| Ok(())).unwrap();
        assert!(shelf.find("0").is_some());
        assert_eq!(shelf.find("1"), None);
        assert!(shelf.find("new").is_some());
    }
}
