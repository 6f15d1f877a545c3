//! What an archive is made of besides the datastore: files of the node that nobody could make
//! again.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::settings;
use crate::config::{ConfigError, Sources};
use crate::node::settings::KeptError;
use crate::paths::Paths;

/// Kubernetes' objects, and who belongs to the cluster.
pub const KUBE: &str = "kube.snapshot";
pub const CLUSTER: &str = "cluster.snapshot";
/// Under which Secrets are stored.
pub const ENCRYPTION: &str = "pki/encryption.yaml";
/// What the node was begun with.
pub const CHOICES: &str = "node/choices.json";
/// New authorities that a lone node has had, or is getting.
pub const ROTATION: &str = "node/rotation.json";
/// Authorities and keys; leaves are made anew.
pub const PKI: &str = "pki/";
/// Keys that take the place of the others, while they do.
const PKI_NEXT: &str = "pki/next/";
/// What somebody wrote.
pub const SETTINGS: &str = "settings/";

/// Every part but the snapshots fits in memory.
pub const BYTES_MAX: u64 = 1 << 20;

/// Why a part was not read.
#[derive(Debug, thiserror::Error)]
pub enum PartError {
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{} has more than {BYTES_MAX} bytes", .0.display())]
    TooLarge(PathBuf),
    #[error(transparent)]
    Settings(#[from] ConfigError),
    #[error(transparent)]
    Set(#[from] KeptError),
    #[error("the snap's settings in {} cannot be read", .0.display())]
    Snap(PathBuf),
}

/// Whether a part may have that name: plain words, below known ones.
pub fn is_name(name: &str) -> bool {
    let plain = |word: &str| {
        !word.is_empty() && !word.starts_with('.') && !word.chars().any(char::is_control)
    };
    let (top, rest) = name.split_once('/').unwrap_or((name, ""));
    let known = match top {
        KUBE | CLUSTER => rest.is_empty(),
        "pki" | "node" | "settings" => !rest.is_empty(),
        _ => false,
    };
    known && name.split('/').all(plain)
}

/// Whether it is read into memory.
pub fn is_small(name: &str) -> bool {
    ![KUBE, CLUSTER].contains(&name)
}

/// All of them, by their names.
pub fn gather(paths: &Paths, sources: &Sources) -> Result<BTreeMap<String, Vec<u8>>, PartError> {
    let mut parts = BTreeMap::new();
    // Below are the leaves of daemons, which are signed again, and the keys of new authorities.
    for path in files_of(&paths.pki())? {
        if let Some(name) = path.file_name().and_then(|name| name.to_str()) {
            parts.insert(format!("{PKI}{name}"), read(&path)?);
        }
    }
    let next = paths.root().join(PKI_NEXT);
    if next.is_dir() {
        for path in files_of(&next)? {
            if let Some(name) = path.file_name().and_then(|name| name.to_str()) {
                parts.insert(format!("{PKI_NEXT}{name}"), read(&path)?);
            }
        }
    }
    let choices = paths.root().join(CHOICES);
    parts.insert(CHOICES.into(), read(&choices)?);
    let rotation = paths.root().join(ROTATION);
    if rotation.exists() {
        parts.insert(ROTATION.into(), read(&rotation)?);
    }
    parts.extend(settings::gather(sources)?);
    parts.extend(settings::gather_set(paths)?);
    Ok(parts)
}

/// The whole file.
pub fn read(path: &Path) -> Result<Vec<u8>, PartError> {
    let failed = |source| PartError::Read { path: path.to_path_buf(), source };
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(failed)?;
    file.take(BYTES_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > BYTES_MAX {
        return Err(PartError::TooLarge(path.to_path_buf()));
    }
    Ok(bytes)
}

/// Files directly in a directory, but for those that are being written.
fn files_of(dir: &Path) -> Result<Vec<PathBuf>, PartError> {
    let failed = |source| PartError::Read { path: dir.to_path_buf(), source };
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let is_file = entry.file_type().map_err(failed)?.is_file();
        if is_file && !entry.file_name().as_encoded_bytes().starts_with(b".") {
            files.push(entry.path());
        }
    }
    Ok(files)
}
