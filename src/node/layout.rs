//! The directories below a node's root: who owns them and who may look inside.

use std::os::unix::fs::{PermissionsExt, chown, lchown};
use std::path::{Path, PathBuf};
use std::{fs, io};

use super::account::{Account, Accounts};
use crate::daemons::{self, datastore, kube_control, kube_node};
use crate::paths::Paths;

/// One directory as it must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directory {
    pub path: PathBuf,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
}

#[derive(Debug, thiserror::Error)]
#[error("cannot prepare {}", path.display())]
pub struct LayoutError {
    path: PathBuf,
    source: io::Error,
}

/// Every directory, parents first.
pub fn directories(paths: &Paths, accounts: &Accounts) -> Vec<Directory> {
    let root = |path: PathBuf, mode: u32| Directory { path, mode, uid: 0, gid: 0 };
    let owned = |path: PathBuf, mode: u32, uid: u32, gid: u32| Directory { path, mode, uid, gid };
    let store = accounts.datastore;
    let control = accounts.control;
    vec![
        root(paths.root().into(), 0o755),
        root(paths.run(), 0o755),
        root(paths.daemon_records(), 0o700),
        // Set-group-id: the socket inside belongs to the control plane's group, which may open it.
        owned(paths.run().join(datastore::NAME), 0o2750, store.uid, control.gid),
        root(paths.containerd_run(), 0o711),
        owned(paths.log(), 0o751, 0, accounts.skiff_gid),
        root(paths.pod_logs(), 0o755),
        owned(paths.log().join("audit"), 0o700, control.uid, control.gid),
        root(paths.pki(), 0o755),
        owned(paths.daemon_pki(kube_control::NAME), 0o700, control.uid, control.gid),
        root(paths.daemon_pki(kube_node::NAME), 0o700),
        root(paths.root().join("etc"), 0o755),
        owned(paths.datastore(), 0o700, store.uid, store.gid),
        root(paths.containerd(), 0o711),
        root(paths.kubelet(), 0o750),
        root(paths.root().join("cni"), 0o755),
        root(paths.cni_config(), 0o755),
        root(paths.cni_data(), 0o755),
        root(paths.node(), 0o700),
        root(paths.builds(), 0o755),
    ]
}

/// Makes them so, and gives what lies in the datastore's directory back to the datastore: a
/// restored backup or a careless `chown` must not keep a node from starting.
pub fn ensure(paths: &Paths, accounts: &Accounts) -> Result<(), LayoutError> {
    make(&directories(paths, accounts))?;
    let store = accounts.datastore;
    own_files(&paths.datastore(), store.uid, store.gid)
        .map_err(|source| LayoutError { path: paths.datastore(), source })
}

/// The directories that a node has besides when it belongs to a cluster.
pub fn ensure_cluster(paths: &Paths, agent: Account) -> Result<(), LayoutError> {
    let owned = |path: PathBuf, mode: u32, uid: u32| Directory { path, mode, uid, gid: agent.gid };
    make(&[
        // skiffd's socket inside is root's, and the agent may open it.
        owned(paths.agent_run(), 0o750, 0),
        owned(paths.daemon_pki(daemons::agent::NAME), 0o700, agent.uid),
        owned(paths.daemon_etc(daemons::agent::NAME), 0o755, 0),
    ])
}

/// The directories that a node has besides when a database of somebody else's keeps its objects.
pub fn ensure_kine(paths: &Paths, accounts: &Accounts) -> Result<(), LayoutError> {
    let store = accounts.datastore;
    let owned = |path: PathBuf, mode: u32, gid: u32| Directory { path, mode, uid: store.uid, gid };
    make(&[
        // As the datastore's: the control plane's group may open the socket inside.
        owned(paths.run().join(daemons::kine::NAME), 0o2750, accounts.control.gid),
        owned(paths.daemon_pki(daemons::kine::NAME), 0o700, store.gid),
    ])
}

/// The directories of a control-plane node of a cluster.
pub fn ensure_member(paths: &Paths, agent: Account, store: Account) -> Result<(), LayoutError> {
    let directory = |path, mode, uid, gid| Directory { path, mode, uid, gid };
    make(&[
        // Set-group-id: the datastore's socket inside belongs to the agent's group.
        directory(paths.handoff_run(), 0o2750, store.uid, agent.gid),
        directory(paths.daemon_pki(datastore::NAME), 0o700, store.uid, store.gid),
        directory(paths.daemon_etc(datastore::NAME), 0o755, 0, 0),
    ])
}

fn make(directories: &[Directory]) -> Result<(), LayoutError> {
    for directory in directories {
        let Directory { path, mode, uid, gid } = directory;
        fs::create_dir_all(path)
            .and_then(|()| chown(path, Some(*uid), Some(*gid)))
            .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(*mode)))
            .map_err(|source| LayoutError { path: path.clone(), source })?;
    }
    Ok(())
}

/// Links are not followed: who owns what they point to is none of ours.
fn own_files(dir: &Path, uid: u32, gid: u32) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let data = fs::symlink_metadata(&path)?;
        lchown(&path, Some(uid), Some(gid))?;
        if data.is_dir() {
            fs::set_permissions(&path, fs::Permissions::from_mode(0o700))?;
            own_files(&path, uid, gid)?;
        } else if data.is_file() {
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        }
    }
    Ok(())
}
