//! The API servers that there are: kept in a file, so that a node that starts while all others are
//! away knows whom to wait for.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tracing::warn;

/// How often the file is looked at for news.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// The file's largest size: ten thousand times what five members need is a mistake.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// One member's API server.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Backend {
    /// The node's name.
    pub node: String,
    pub address: SocketAddr,
    /// It runs on this very node.
    #[serde(default)]
    pub local: bool,
}

/// Why the list was not read or written.
#[derive(Debug, thiserror::Error)]
pub enum BackendsError {
    #[error("can't read {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{} is not a list of API servers", path.display())]
    Format {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
    #[error("can't write {}", path.display())]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

#[derive(Serialize, Deserialize)]
struct File {
    backends: Vec<Backend>,
}

/// Reads the list; empty when there is none yet.
pub fn load(path: &Path) -> Result<Vec<Backend>, BackendsError> {
    let failed = |source| BackendsError::Read { path: path.to_owned(), source };
    let bytes = match std::fs::metadata(path) {
        Ok(data) if data.len() > FILE_BYTES_MAX => {
            return Err(failed(io::ErrorKind::FileTooLarge.into()));
        }
        Ok(_) => std::fs::read(path).map_err(failed)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let file: File = serde_json::from_slice(&bytes)
        .map_err(|source| BackendsError::Format { path: path.to_owned(), source })?;
    Ok(file.backends)
}

/// Writes the list: after a crash there is the old one or the new one.
pub fn store(path: &Path, backends: &[Backend]) -> Result<(), BackendsError> {
    let failed = |source| BackendsError::Write { path: path.to_owned(), source };
    let file = File { backends: backends.to_vec() };
    let bytes = serde_json::to_vec_pretty(&file).map_err(|error| failed(error.into()))?;
    let dir = path.parent().ok_or_else(|| failed(io::ErrorKind::InvalidInput.into()))?;
    let mut new = tempfile::NamedTempFile::new_in(dir).map_err(failed)?;
    new.write_all(&bytes).map_err(failed)?;
    // The agent that reads it is another user.
    let mode = std::fs::Permissions::from_mode(0o644);
    new.as_file().set_permissions(mode).map_err(failed)?;
    new.as_file().sync_all().map_err(failed)?;
    new.persist(path).map_err(|error| failed(error.error))?;
    std::fs::File::open(dir).and_then(|dir| dir.sync_all()).map_err(failed)
}

/// Tells what the file says, at each change. What can't be read changes nothing.
pub async fn follow(path: &Path, list: &watch::Sender<Vec<Backend>>) {
    let mut seen = None;
    let mut told = None;
    loop {
        let stamp = stamp(path);
        if stamp != seen {
            match load(path) {
                Ok(backends) => {
                    list.send_if_modified(|current| {
                        let is_new = *current != backends;
                        *current = backends;
                        is_new
                    });
                    seen = stamp;
                }
                Err(_) if told == Some(stamp) => {}
                Err(error) => {
                    let cause = std::error::Error::source(&error).map(ToString::to_string);
                    warn!(%error, cause, "going on with the API servers that are known");
                    told = Some(stamp);
                }
            }
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

fn stamp(path: &Path) -> Option<(u64, i64, i64, u64)> {
    let data = std::fs::metadata(path).ok()?;
    Some((data.ino(), data.mtime(), data.mtime_nsec(), data.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backend(node: &str, local: bool) -> Backend {
        Backend { node: node.to_owned(), address: "192.0.2.1:6443".parse().unwrap(), local }
    }

    #[test]
    fn the_list_comes_back_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("backends.json");
        assert_eq!(load(&path).unwrap(), []);
        let all = [backend("a", true), backend("b", false)];
        store(&path, &all).unwrap();
        assert_eq!(load(&path).unwrap(), all);
        store(&path, &all[..1]).unwrap();
        assert_eq!(load(&path).unwrap(), all[..1]);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing else is left");
    }

    #[tokio::test]
    async fn a_damaged_file_changes_nothing_until_it_is_whole_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("backends.json");
        store(&path, &[backend("a", true)]).unwrap();
        let (list, mut seen) = watch::channel(Vec::new());
        let following = async { follow(&path, &list).await };
        let changing = async {
            seen.wait_for(|list| list.len() == 1).await.unwrap();
            std::fs::write(&path, "{").unwrap();
            tokio::time::sleep(LOOK_INTERVAL + Duration::from_millis(200)).await;
            assert_eq!(seen.borrow_and_update().len(), 1);
            store(&path, &[backend("a", true), backend("b", false)]).unwrap();
            seen.wait_for(|list| list.len() == 2).await.unwrap();
        };
        tokio::select! {
            () = following => {}
            () = changing => {}
        }
    }
}
