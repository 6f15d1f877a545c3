//! Staging: a build below the node's root, complete or not there at all.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::{fmt, fs, io};

use sha2::{Digest, Sha256};

use super::manifest::{Distribution, DistributionError, MANIFEST};
use crate::durable;

/// Names one build: the beginning of a digest over its table of contents, which names the build of
/// each component, its `skiff` and its addons.
#[derive(Clone, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct BuildId(String);

impl fmt::Display for BuildId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[derive(Debug, thiserror::Error)]
pub enum StageError {
    #[error(transparent)]
    Distribution(#[from] DistributionError),
    #[error("cannot stage the build in {}", path.display())]
    Io { path: PathBuf, source: io::Error },
}

/// The link that names the build which runs.
const CURRENT: &str = "current";

/// Makes `builds/<id>` hold the distribution, and answers its id and directory. A build that is
/// there already is left alone; a half-made one is made anew. Two at once take turns.
pub fn stage(distribution: &Distribution, builds: &Path) -> Result<(BuildId, PathBuf), StageError> {
    distribution.require_complete()?;
    let id = identify(distribution)?;
    let target = builds.join(&id.0);
    if target.join(MANIFEST).is_file() {
        return Ok((id, target));
    }
    let _turn = take_turn(builds)
        .map_err(|source| StageError::Io { path: builds.to_path_buf(), source })?;
    if target.join(MANIFEST).is_file() {
        return Ok((id, target));
    }
    let partial = builds.join(format!(".{id}.partial"));
    let staged = remove_tree(&partial)
        .and_then(|()| fs::create_dir_all(&partial))
        .and_then(|()| copy_tree(distribution.dir(), &partial))
        .and_then(|()| durable::sync_file_system(&partial))
        .and_then(|()| remove_tree(&target))
        .and_then(|()| fs::rename(&partial, &target));
    if let Err(source) = staged {
        // The reason is what the caller needs; what stays behind is removed by the next try.
        let _ = remove_tree(&partial);
        return Err(StageError::Io { path: partial, source });
    }
    Ok((id, target))
}

/// Held until the file is closed.
fn take_turn(builds: &Path) -> io::Result<fs::File> {
    fs::create_dir_all(builds)?;
    let file = fs::File::create(builds.join(".lock"))?;
    file.lock()?;
    Ok(file)
}

/// The directory that `current` points to, if there is one.
pub fn current(builds: &Path) -> Option<(BuildId, PathBuf)> {
    let target = fs::read_link(builds.join(CURRENT)).ok()?;
    let id = target.file_name()?.to_str()?.to_owned();
    let dir = builds.join(&id);
    dir.join(MANIFEST).is_file().then_some((BuildId(id), dir))
}

/// The build of this name, if it is staged completely.
pub fn staged(builds: &Path, id: &str) -> Option<BuildId> {
    let name = !id.is_empty() && !id.contains('/');
    (name && builds.join(id).join(MANIFEST).is_file()).then(|| BuildId(id.to_owned()))
}

/// Points `current` at a staged build, atomically. What it names is what a boot starts.
pub fn select(builds: &Path, id: &BuildId) -> Result<(), StageError> {
    let fresh = builds.join(".current.new");
    let link = builds.join(CURRENT);
    let _ = fs::remove_file(&fresh);
    symlink(&id.0, &fresh)
        .and_then(|()| fs::rename(&fresh, &link))
        .and_then(|()| fs::File::open(builds)?.sync_all())
        .map_err(|source| StageError::Io { path: link, source })
}

/// Removes every staged build but those named.
pub fn forget_builds(builds: &Path, keep: &[BuildId]) -> Result<(), StageError> {
    let entries =
        fs::read_dir(builds).map_err(|source| StageError::Io { path: builds.into(), source })?;
    for entry in entries.flatten() {
        let name = entry.file_name();
        let kept = name == CURRENT || keep.iter().any(|id| name == id.0.as_str());
        if !kept && entry.path().is_dir() {
            remove_tree(&entry.path())
                .map_err(|source| StageError::Io { path: entry.path(), source })?;
        }
    }
    Ok(())
}

fn identify(distribution: &Distribution) -> Result<BuildId, DistributionError> {
    let mut digest = Sha256::new();
    let mut paths = vec![distribution.dir().join(MANIFEST), distribution.bin("skiff")];
    let addons = distribution.dir().join("addons");
    collect_files(&addons, &mut paths).map_err(|e| DistributionError::Read(addons, e))?;
    for path in paths {
        let name = path.strip_prefix(distribution.dir()).unwrap_or(&path);
        digest.update(name.as_os_str().as_encoded_bytes());
        let bytes = fs::read(&path).map_err(|e| DistributionError::Read(path, e))?;
        digest.update((bytes.len() as u64).to_le_bytes());
        digest.update(&bytes);
    }
    let hex: String = digest.finalize().iter().take(6).map(|b| format!("{b:02x}")).collect();
    Ok(BuildId(hex))
}

/// Every file below a directory, in an order that depends on names alone. No directory, no files.
fn collect_files(dir: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
    paths.sort();
    for path in paths {
        if path.is_dir() {
            collect_files(&path, files)?;
        } else {
            files.push(path);
        }
    }
    Ok(())
}

/// Hard links where the file system allows it: components are never written in place, so a link
/// is as good as a copy and costs nothing. `skiff` itself is copied, since a compiler may write
/// over the file it made.
fn copy_tree(from: &Path, to: &Path) -> io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let source = entry.path();
        let target = to.join(entry.file_name());
        if fs::metadata(&source)?.is_dir() {
            fs::create_dir(&target)?;
            copy_tree(&source, &target)?;
        } else {
            let original = fs::canonicalize(&source)?;
            let linked = entry.file_name() != "skiff" && fs::hard_link(&original, &target).is_ok();
            if !linked {
                fs::copy(&original, &target)?;
            }
        }
    }
    Ok(())
}

fn remove_tree(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(dir: &Path, skiff: &str) -> Distribution {
        for sub in ["bin", "cni", "images"] {
            fs::create_dir_all(dir.join(sub)).unwrap();
        }
        for bin in ["kube", "containerd", "containerd-shim-runc-v2", "ctr", "runc"] {
            fs::write(dir.join("bin").join(bin), bin).unwrap();
        }
        fs::write(dir.join("bin/skiff"), skiff).unwrap();
        for plugin in ["bridge", "host-local", "loopback", "portmap"] {
            fs::write(dir.join("cni").join(plugin), plugin).unwrap();
        }
        fs::write(dir.join("images/pause.tar"), "").unwrap();
        fs::write(
            dir.join(MANIFEST),
            "arch = 'amd64'\n[[image]]\nname = 'pause'\nreference = 'skiff.local/pause:1'\n\
             file = 'images/pause.tar'\n",
        )
        .unwrap();
        Distribution::open(dir).unwrap()
    }

    #[test]
    fn a_build_is_staged_once_and_selected_by_a_link() {
        let dir = tempfile::tempdir().unwrap();
        let builds = dir.path().join("build");
        let distribution = sample(&dir.path().join("dist"), "one");
        let (id, path) = stage(&distribution, &builds).unwrap();
        assert_eq!(fs::read_to_string(path.join("bin/skiff")).unwrap(), "one");
        assert_eq!(stage(&distribution, &builds).unwrap().0, id);
        assert!(current(&builds).is_none());
        assert_eq!(staged(&builds, &id.to_string()), Some(id.clone()));
        assert_eq!(["", "..", "000000000000"].map(|id| staged(&builds, id)), [None, None, None]);
        select(&builds, &id).unwrap();
        assert_eq!(current(&builds).unwrap().0, id);
    }

    #[test]
    fn another_skiff_is_another_build_and_old_ones_are_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let builds = dir.path().join("build");
        let (one, old) = stage(&sample(&dir.path().join("dist"), "one"), &builds).unwrap();
        let (two, new) = stage(&sample(&dir.path().join("dist"), "two"), &builds).unwrap();
        assert_ne!(one, two);
        assert_eq!(fs::read_to_string(old.join("bin/skiff")).unwrap(), "one");
        forget_builds(&builds, std::slice::from_ref(&two)).unwrap();
        assert!(!old.exists() && new.exists());
    }

    #[test]
    fn an_incomplete_distribution_is_refused_by_the_name_of_what_it_lacks() {
        let dir = tempfile::tempdir().unwrap();
        let distribution = sample(dir.path(), "one");
        fs::remove_file(dir.path().join("bin/runc")).unwrap();
        let error = stage(&distribution, &dir.path().join("build")).unwrap_err();
        assert!(error.to_string().starts_with("component runc is missing"), "{error}");
    }
}
