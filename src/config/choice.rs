//! What a node was begun with and cannot change: pods, Services and certificates hold it.

use std::path::Path;
use std::{fs, io};

use serde::{Deserialize, Serialize};

use super::Config;

/// The file in the node's own directory that remembers.
const FILE: &str = "choices.json";

/// The choices of the first start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Choices {
    pub node_name: String,
    pub pod_cidr: String,
    pub service_cidr: String,
    pub dns_domain: String,
}

#[derive(Debug, thiserror::Error)]
pub enum ChoiceError {
    #[error(
        "{key} is {now:?} ({origin}), and this node began with {then:?}, which cannot change: set \
         it back, or `skiff reset` to begin anew"
    )]
    Changed { key: &'static str, then: String, now: String, origin: String },
    #[error(
        "the machine is called {now:?}, and this node began as {then:?}, which cannot change: set \
         node.name = {then:?} in the configuration, or `skiff reset` to begin anew"
    )]
    Renamed { then: String, now: String },
    #[error("cannot remember what the node began with in {path}")]
    Record { path: String, source: io::Error },
}

impl Choices {
    /// Compares with what the first start recorded in `dir`; records it when this is the first.
    pub fn hold(&self, dir: &Path, config: &Config) -> Result<(), ChoiceError> {
        let path = dir.join(FILE);
        let record = |source| ChoiceError::Record { path: path.display().to_string(), source };
        match fs::read(&path) {
            Ok(bytes) => match serde_json::from_slice::<Self>(&bytes) {
                Ok(then) => return self.compare(&then, config),
                // Cut short by a power cut: what is chosen now is as good a record.
                Err(error) => tracing::warn!(%error, "the record of the node's choices is damaged"),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(record(error)),
        }
        let text = serde_json::to_vec_pretty(self).map_err(|error| record(error.into()))?;
        let fresh = dir.join(".choices.new");
        fs::write(&fresh, text).and_then(|()| fs::rename(&fresh, &path)).map_err(record)
    }

    fn compare(&self, then: &Self, config: &Config) -> Result<(), ChoiceError> {
        if self.node_name != then.node_name && config.node.name.is_none() {
            let (then, now) = (then.node_name.clone(), self.node_name.clone());
            return Err(ChoiceError::Renamed { then, now });
        }
        for (key, then, now) in [
            ("node.name", &then.node_name, &self.node_name),
            ("network.pod-cidr", &then.pod_cidr, &self.pod_cidr),
            ("network.service-cidr", &then.service_cidr, &self.service_cidr),
            ("network.dns-domain", &then.dns_domain, &self.dns_domain),
        ] {
            if then != now {
                let origin = config.origin(key).to_string();
                return Err(ChoiceError::Changed {
                    key,
                    then: then.clone(),
                    now: now.clone(),
                    origin,
                });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choices() -> Choices {
        Choices {
            node_name: "alpha".into(),
            pod_cidr: "10.1.0.0/16".into(),
            service_cidr: "10.152.183.0/24".into(),
            dns_domain: "cluster.local".into(),
        }
    }

    #[test]
    fn the_first_start_decides_and_the_same_again_is_fine() {
        let dir = tempfile::tempdir().unwrap();
        choices().hold(dir.path(), &Config::default()).unwrap();
        choices().hold(dir.path(), &Config::default()).unwrap();
        let moved = Choices { pod_cidr: "10.2.0.0/16".into(), ..choices() };
        let error = moved.hold(dir.path(), &Config::default()).unwrap_err().to_string();
        assert_eq!(
            error,
            "network.pod-cidr is \"10.2.0.0/16\" (default), and this node began with \
             \"10.1.0.0/16\", which cannot change: set it back, or `skiff reset` to begin anew"
        );
    }

    #[test]
    fn a_machine_that_is_renamed_is_told_how_the_node_keeps_its_name() {
        let dir = tempfile::tempdir().unwrap();
        choices().hold(dir.path(), &Config::default()).unwrap();
        let renamed = Choices { node_name: "beta".into(), ..choices() };
        let error = renamed.hold(dir.path(), &Config::default()).unwrap_err().to_string();
        assert!(error.contains("set node.name = \"alpha\""), "{error}");
    }

    #[test]
    fn a_damaged_record_is_made_anew() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(FILE), "{").unwrap();
        choices().hold(dir.path(), &Config::default()).unwrap();
        let renamed = Choices { node_name: "beta".into(), ..choices() };
        renamed.hold(dir.path(), &Config::default()).unwrap_err();
    }
}
