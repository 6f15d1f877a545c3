//! The last logs of a join that failed. The join is taken back with everything that it made, and
//! these are what says why it failed.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use super::ui;
use crate::paths::Paths;

/// Below the node's root; the next start or join takes no notice of it, a reset removes it.
const DIR: &str = "failed-join";
/// The end of each is kept, in bytes; there are a handful of daemons.
const LOG_BYTES_MAX: u64 = 1 << 20;

/// What was read before all was removed.
#[derive(Debug, Default)]
pub struct KeptLogs(Vec<(String, Vec<u8>)>);

impl KeptLogs {
    /// Reads them. What cannot be read is left out.
    pub fn read(paths: &Paths) -> Self {
        let entries = fs::read_dir(paths.log()).into_iter().flatten().flatten();
        let logs = entries.filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let is_log = name.ends_with(".log") && entry.path().is_file();
            let end = is_log.then(|| end_of(&entry.path()).ok())??;
            Some((name, end))
        });
        Self(logs.collect())
    }

    /// Puts them where they stay; answers where, if there are any.
    pub fn put(self, paths: &Paths) -> Option<PathBuf> {
        let dir = paths.root().join(DIR);
        match self.write(&dir) {
            Ok(()) => (!self.0.is_empty()).then_some(dir),
            Err(error) => {
                ui::say(&format!("the logs of the join are lost: {}: {error}", dir.display()));
                None
            }
        }
    }

    fn write(&self, dir: &Path) -> io::Result<()> {
        if self.0.is_empty() {
            return Ok(());
        }
        fs::create_dir_all(dir.parent().ok_or(io::ErrorKind::InvalidInput)?)?;
        match fs::remove_dir_all(dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        DirBuilder::new().mode(0o700).create(dir)?;
        self.0.iter().try_for_each(|(name, end)| fs::write(dir.join(name), end))
    }
}

fn end_of(path: &Path) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(LOG_BYTES_MAX)))?;
    let mut end = Vec::new();
    file.take(LOG_BYTES_MAX).read_to_end(&mut end)?;
    Ok(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_each_log_outlives_the_logs() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::new(dir.path());
        fs::create_dir_all(paths.pod_logs()).unwrap();
        assert_eq!(KeptLogs::read(&paths).put(&paths), None);
        let long = "x".repeat(3 << 20) + "the end\n";
        fs::write(paths.daemon_log("skiffd"), long).unwrap();
        fs::write(paths.log().join("skiffd.log.1"), "older").unwrap();
        for _ in 0..2 {
            let kept = KeptLogs::read(&paths);
            let place = kept.put(&paths).unwrap();
            let names: Vec<_> =
                fs::read_dir(&place).unwrap().map(|e| e.unwrap().file_name()).collect();
            assert_eq!(names, ["skiffd.log"]);
            let end = fs::read_to_string(place.join("skiffd.log")).unwrap();
            assert!(end.ends_with("the end\n") && end.len() as u64 == LOG_BYTES_MAX);
        }
    }
}
