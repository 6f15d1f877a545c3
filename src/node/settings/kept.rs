//! What of the shared settings this node runs with, kept in its own directory.

use std::path::{Path, PathBuf};
use std::{fs, io};

use microcluster::record::{AppliedSettings, FailedSettings, SharedSettings};
use serde::{Deserialize, Serialize};

use crate::config::Shared;
use crate::node::cluster::{Membership, MembershipError};
use crate::paths::Paths;
use crate::pki::{StoreError, write_private};

const FILE: &str = "settings.json";

/// See the module's words.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    pub set: SharedSettings,
    /// The later ones that could not be taken up. They are not tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<FailedSettings>,
}

#[derive(Debug, thiserror::Error)]
pub enum KeptError {
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("what was set is damaged: {}", path.display())]
    Damaged { path: PathBuf, source: serde_json::Error },
    #[error(transparent)]
    Membership(#[from] MembershipError),
}

impl KeptError {
    /// What to do next, where that is known.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Damaged { path, .. } => Some(format!(
                "sudo rm {}, then `skiff start` and `skiff set` what is to hold",
                path.display()
            )),
            Self::Read { .. } | Self::Membership(_) => None,
        }
    }
}

impl Kept {
    /// Of the node whose own directory is `dir`; none where nobody has ever set one.
    pub fn read(dir: &Path) -> Result<Option<Self>, KeptError> {
        let path = dir.join(FILE);
        match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map(Some)
                .map_err(|source| KeptError::Damaged { path, source }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(KeptError::Read { path, source }),
        }
    }

    pub fn write(&self, dir: &Path) -> Result<(), StoreError> {
        let text = serde_json::to_vec_pretty(self).expect("texts and numbers can be written");
        write_private(&dir.join(FILE), &text, 0o600, (0, 0))
    }

    /// What this node runs with from now on; nobody's turn is part of that.
    pub fn running(set: &SharedSettings) -> Self {
        Self { set: SharedSettings { turn: None, ..set.clone() }, failed: None }
    }

    /// As the cluster is told.
    pub fn applied(&self) -> AppliedSettings {
        AppliedSettings { revision: self.set.revision, failed: self.failed.clone() }.cleaned()
    }
}

/// The layer over the node's own files with which the node below these paths begins.
pub fn shared(paths: &Paths) -> Result<Shared, KeptError> {
    let dir = paths.node();
    let membership = Membership::read(&dir)?;
    let kept = match (Kept::read(&dir), &membership) {
        // The cluster has them all.
        (Err(KeptError::Damaged { path, .. }), Some(_)) => {
            tracing::warn!(path = %path.display(), "what this node ran with is damaged");
            None
        }
        (kept, _) => kept?,
    };
    Ok(match membership {
        Some(membership) => {
            let set = kept.map_or_else(|| membership.settings.shared.clone(), |kept| kept.set);
            membership.shared(set)
        }
        None => Shared::set(kept.unwrap_or_default().set),
    })
}

#[cfg(test)]
mod tests {
    use microcluster::record::SettingsRevision;

    use super::*;

    #[test]
    fn what_was_set_is_there_at_the_next_start_and_damage_is_told_with_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::new(dir.path());
        fs::create_dir_all(paths.node()).unwrap();
        assert_eq!(shared(&paths).unwrap(), Shared::default());
        let set = SharedSettings {
            revision: SettingsRevision(3),
            values: [("network.mtu".to_owned(), 1400.into())].into(),
            ..SharedSettings::default()
        };
        Kept::running(&set).write(&paths.node()).unwrap();
        assert_eq!(shared(&paths).unwrap(), Shared::set(set));
        fs::write(paths.node().join(FILE), "{").unwrap();
        let error = shared(&paths).unwrap_err();
        assert!(error.to_string().contains("is damaged"), "{error}");
        assert!(error.hint().unwrap().starts_with("sudo rm "), "{error}");
    }
}
