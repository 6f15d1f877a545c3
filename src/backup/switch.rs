//! Puts a small root that is finished in the place of a node's own, so that a crash at any moment
//! leaves the former state or the new one.
//!
//! ```text
//!   ROOT/restoring/        built; of no use when found without the line
//!   ROOT/restoring.json    the line: from here on the new state holds
//!   ROOT/former-TIME/      what was there before
//! ```
//!
//! What follows the line only moves directories within one file system and copies settings, and can
//! be done any number of times: whoever comes next goes on with it, before anything is read.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::settings::{self, SettingsError};
use crate::node::{Lock, LockError};
use crate::paths::Paths;
use crate::pki::{StoreError, write_private};

const LINE: &str = "restoring.json";
const STAGED: &str = "restoring";
/// What is replaced as a whole. Everything else below a root is made from these, or is a cache.
const DIRECTORIES: [&str; 3] = ["datastore", "pki", "node"];

/// Why the new state is not in place.
#[derive(Debug, thiserror::Error)]
pub enum SwitchError {
    #[error("{} is a mount point: what is in it cannot be replaced in one step", .0.display())]
    MountPoint(PathBuf),
    #[error("cannot put {} in place", path.display())]
    Failed { path: PathBuf, source: io::Error },
    #[error("{} is damaged", path.display())]
    Line { path: PathBuf, source: serde_json::Error },
    #[error(transparent)]
    Write(#[from] StoreError),
    #[error(transparent)]
    Settings(#[from] SettingsError),
    #[error(transparent)]
    Lock(#[from] LockError),
}

/// The line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Switch {
    /// What the new state was made from.
    pub archive: PathBuf,
    /// Where what was there before goes.
    pub former: PathBuf,
    /// Settings: what lies in the small root, and where it belongs.
    pub files: Vec<(PathBuf, PathBuf)>,
}

/// Where a new state is built. It is a root of its own.
pub fn staged(paths: &Paths) -> Paths {
    Paths::new(paths.root().join(STAGED))
}

/// Makes it, empty. The caller holds the node's lock.
pub fn begin(paths: &Paths) -> Result<Paths, SwitchError> {
    for name in DIRECTORIES {
        refuse_mount_point(paths.root(), name)?;
    }
    let staged = staged(paths);
    let failed = |source| failed(staged.root(), source);
    remove(staged.root()).map_err(failed)?;
    DirBuilder::new().mode(0o700).create(staged.root()).map_err(failed)?;
    Ok(staged)
}

/// Throws away what was built; what cannot be removed now is removed by the next start.
pub fn give_up(paths: &Paths) {
    let _ = remove(staged(paths).root());
}

/// Writes the line and does what follows it.
pub fn finish(paths: &Paths, switch: &Switch) -> Result<(), SwitchError> {
    sync(staged(paths).root())?;
    if !switch.former.exists() {
        let made = DirBuilder::new().mode(0o700).create(&switch.former);
        made.map_err(|source| failed(&switch.former, source))?;
    }
    let text = serde_json::to_vec_pretty(switch).expect("paths of ours are texts");
    write_private(&paths.root().join(LINE), &text, 0o600, (0, 0))?;
    follow(paths, switch)
}

/// Goes on with what a crash has interrupted: called before anything of a root is read. Nobody
/// else may run the node meanwhile.
pub fn go_on(paths: &Paths) -> Result<(), SwitchError> {
    let path = paths.root().join(LINE);
    if !path.exists() && !staged(paths).root().exists() {
        return Ok(());
    }
    let _lock = Lock::take(&paths.run().join("skiffd.pid"))?;
    go_on_locked(paths).map(drop)
}

/// The same when the node's lock is held. Answers what was finished.
pub fn go_on_locked(paths: &Paths) -> Result<Option<Switch>, SwitchError> {
    let path = paths.root().join(LINE);
    match fs::read(&path) {
        Ok(bytes) => {
            let switch = serde_json::from_slice(&bytes);
            let switch: Switch = switch.map_err(|source| SwitchError::Line { path, source })?;
            follow(paths, &switch)?;
            Ok(Some(switch))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            // A restore that did not get as far as its line has changed nothing.
            let staged = staged(paths);
            remove(staged.root()).map_err(|source| failed(staged.root(), source))?;
            Ok(None)
        }
        Err(source) => Err(failed(&path, source)),
    }
}

fn follow(paths: &Paths, switch: &Switch) -> Result<(), SwitchError> {
    let staged = staged(paths);
    for name in DIRECTORIES {
        let (new, own) = (staged.root().join(name), paths.root().join(name));
        if !new.exists() {
            continue;
        }
        if own.exists() {
            let former = free_name(&switch.former, name);
            fs::rename(&own, former).map_err(|source| failed(&own, source))?;
        }
        fs::rename(&new, &own).map_err(|source| failed(&own, source))?;
    }
    sync(paths.root())?;
    for (from, to) in &switch.files {
        let bytes = fs::read(from).map_err(|source| failed(from, source))?;
        settings::write(to, &bytes)?;
    }
    let line = paths.root().join(LINE);
    fs::remove_file(&line).map_err(|source| failed(&line, source))?;
    sync(paths.root())?;
    // The new state is in place: what is left of the small root is nothing.
    give_up(paths);
    Ok(())
}

/// Under its own name, unless a start that did not know of the restore has made another one.
fn free_name(former: &Path, name: &str) -> PathBuf {
    let mut path = former.join(name);
    let mut number = 2;
    while path.exists() {
        path = former.join(format!("{name}-{number}"));
        number += 1;
    }
    path
}

fn refuse_mount_point(root: &Path, name: &str) -> Result<(), SwitchError> {
    let path = root.join(name);
    let device = |path: &Path| fs::metadata(path).map(|data| data.dev());
    match (device(root), device(&path)) {
        (Ok(root), Ok(own)) if root != own => Err(SwitchError::MountPoint(path)),
        _ => Ok(()),
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn sync(dir: &Path) -> Result<(), SwitchError> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(|source| failed(dir, source))
}

fn failed(path: &Path, source: io::Error) -> SwitchError {
    SwitchError::Failed { path: path.to_path_buf(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(root: &Path, word: &str) {
        for name in DIRECTORIES {
            fs::create_dir_all(root.join(name)).unwrap();
            fs::write(root.join(name).join("word"), word).unwrap();
        }
    }

    fn words(root: &Path) -> Vec<String> {
        let word = |name: &&str| fs::read_to_string(root.join(name).join("word")).unwrap();
        DIRECTORIES.iter().map(word).collect()
    }

    fn prepared(root: &Path) -> (Paths, Switch) {
        let paths = Paths::new(root);
        fill(root, "old");
        let staged = begin(&paths).unwrap();
        fill(staged.root(), "new");
        let from = staged.root().join("settings");
        fs::write(&from, "x = 1\n").unwrap();
        let files = vec![(from, root.join("etc/skiff.toml"))];
        let switch = Switch { archive: "a".into(), former: root.join("former-1"), files };
        (paths, switch)
    }

    fn is_new(root: &Path) {
        assert_eq!(words(root), ["new"; 3]);
        assert_eq!(words(&root.join("former-1")), ["old"; 3]);
        assert_eq!(fs::read_to_string(root.join("etc/skiff.toml")).unwrap(), "x = 1\n");
        assert!(!root.join(STAGED).exists() && !root.join(LINE).exists());
    }

    #[test]
    fn the_new_state_takes_the_place_of_the_former_which_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let (paths, switch) = prepared(dir.path());
        finish(&paths, &switch).unwrap();
        is_new(dir.path());
        go_on(&paths).unwrap();
        is_new(dir.path());
    }

    #[test]
    fn a_crash_before_the_line_leaves_the_former_state() {
        let dir = tempfile::tempdir().unwrap();
        let (paths, _) = prepared(dir.path());
        go_on(&paths).unwrap();
        assert_eq!(words(dir.path()), ["old"; 3]);
        assert!(!dir.path().join(STAGED).exists());
    }

    /// Each state that a crash behind the line can leave: so many of the moves are done.
    #[test]
    fn a_crash_anywhere_behind_the_line_ends_as_the_new_state() {
        for done in 0..=2 * DIRECTORIES.len() {
            let dir = tempfile::tempdir().unwrap();
            let (paths, switch) = prepared(dir.path());
            fs::create_dir(&switch.former).unwrap();
            let text = serde_json::to_vec(&switch).unwrap();
            write_private(&dir.path().join(LINE), &text, 0o600, (0, 0)).unwrap();
            for step in 0..done {
                let name = DIRECTORIES[step / 2];
                let own = dir.path().join(name);
                match step % 2 {
                    0 => fs::rename(&own, switch.former.join(name)).unwrap(),
                    _ => fs::rename(staged(&paths).root().join(name), &own).unwrap(),
                }
            }
            go_on(&paths).unwrap();
            is_new(dir.path());
        }
    }

    #[test]
    fn a_damaged_line_is_named_and_nothing_is_touched() {
        let dir = tempfile::tempdir().unwrap();
        let (paths, _) = prepared(dir.path());
        fs::write(dir.path().join(LINE), "{").unwrap();
        assert!(matches!(go_on(&paths), Err(SwitchError::Line { .. })));
        assert_eq!(words(dir.path()), ["old"; 3]);
        assert!(staged(&paths).root().exists());
    }
}
