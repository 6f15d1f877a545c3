//! What a node was begun with and cannot change: pods, Services and certificates hold it.

use std::path::{Path, PathBuf};
use std::{fs, io};

use serde::{Deserialize, Serialize};

use super::endpoint::Endpoint;
use super::error::{Mistake, Problem};
use super::{Config, Origin, setting};
use crate::pki::{StoreError, write_private};

/// The file in the node's own directory that remembers. A reset takes it away.
const FILE: &str = "choices.json";

/// The choices of the first start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Choices {
    pub node_name: String,
    pub pod_cidr: String,
    pub service_cidr: String,
    pub dns_domain: String,
    /// `datastore.endpoint`; Skiff's own datastore when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub datastore: Option<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum ChoiceError {
    #[error("this node began with other settings, which cannot change")]
    Changed(#[source] Problem),
    /// Nothing but the machine's name is another one.
    #[error("a node cannot be renamed")]
    Renamed { source: Problem, remedy: String },
    #[error("cannot read what the node began with in {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot remember what the node began with")]
    Record(#[from] StoreError),
}

impl ChoiceError {
    /// What to do next, when that is known.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Changed(_) => Some("set it back, or begin anew with `sudo skiff reset`".into()),
            Self::Renamed { remedy, .. } => Some(remedy.clone()),
            Self::Read { .. } | Self::Record(_) => None,
        }
    }
}

impl Choices {
    /// What the node below whose directory `dir` lies began with; none before its first start.
    pub fn read(dir: &Path) -> Result<Option<Self>, ChoiceError> {
        let path = dir.join(FILE);
        match fs::read(&path) {
            Ok(bytes) => match serde_json::from_slice(&bytes) {
                Ok(then) => Ok(Some(then)),
                // It is written whole or not at all, so this is a damaged disk: what is chosen now
                // is as good a record.
                Err(error) => {
                    tracing::warn!(%error, "the record of the node's choices is damaged");
                    Ok(None)
                }
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(ChoiceError::Read { path, source }),
        }
    }

    /// Whether a node was begun whose directory this is.
    pub fn is_recorded(dir: &Path) -> bool {
        dir.join(FILE).exists()
    }

    /// Remembers them before anything is made of them. A record that is there stays, but for the
    /// addresses of a datastore that has moved by one after the other.
    pub fn record(&self, dir: &Path) -> Result<(), ChoiceError> {
        let then = Self::read(dir)?;
        let wanted = match &then {
            Some(then) if same_datastore(&then.datastore, &self.datastore) => {
                Self { datastore: self.datastore.clone(), ..then.clone() }
            }
            Some(then) => then.clone(),
            None => self.clone(),
        };
        if then.as_ref() != Some(&wanted) {
            let text = serde_json::to_vec_pretty(&wanted).expect("strings become JSON");
            write_private(&dir.join(FILE), &text, 0o600, (0, 0))?;
        }
        Ok(())
    }

    /// Refuses what is not as the node began. Pure: `then` was read before, and `file` is where a
    /// setting goes that nobody has written.
    pub fn hold_to(&self, then: &Self, config: &Config, file: &Path) -> Result<(), ChoiceError> {
        let mut changes = Vec::new();
        let own = "Skiff's own datastore".to_owned();
        let datastores = match same_datastore(&then.datastore, &self.datastore) {
            true => (&own, &own),
            false => {
                (then.datastore.as_ref().unwrap_or(&own), self.datastore.as_ref().unwrap_or(&own))
            }
        };
        for (key, then, now) in [
            ("node.name", &then.node_name, &self.node_name),
            ("network.pod-cidr", &then.pod_cidr, &self.pod_cidr),
            ("network.service-cidr", &then.service_cidr, &self.service_cidr),
            ("network.dns-domain", &then.dns_domain, &self.dns_domain),
            ("datastore.endpoint", datastores.0, datastores.1),
        ] {
            if then == now {
                continue;
            }
            let origin = config.origin(key);
            let file = file.display();
            let what = match (&origin, key) {
                (Origin::Default, "node.name") => {
                    format!("{file}: node.name is absent, and the machine is called {now:?} now")
                }
                (Origin::Default, _) => format!("{file}: {key} is absent, which means {now:?}"),
                _ => format!("{key} is {now:?}"),
            };
            let reason = setting::known(key).and_then(|known| known.fixed).unwrap_or_default();
            let text = format!("{what}, but the node began with {then:?}: {reason}");
            changes.push(Mistake::new(origin, text));
        }
        let is_of_machine = config.origin("node.name") == Origin::Default;
        let is_renamed = then.node_name != self.node_name && changes.len() == 1 && is_of_machine;
        match Problem::chain(changes) {
            None => Ok(()),
            Some(source) if is_renamed => {
                Err(ChoiceError::Renamed { source, remedy: keep_name(&then.node_name) })
            }
            Some(changes) => Err(ChoiceError::Changed(changes)),
        }
    }
}

/// What to do with a node whose machine has another name now. Under another one it would begin
/// anew.
pub fn keep_name(name: &str) -> String {
    format!("`name = {name:?}` below [node] in skiff.toml keeps the node's name")
}

/// Whether objects are where they were.
fn same_datastore(then: &Option<String>, now: &Option<String>) -> bool {
    let read = |text: &str| text.parse::<Endpoint>().ok();
    match (then.as_deref(), now.as_deref()) {
        (Some(then), Some(now)) => match (read(then), read(now)) {
            (Some(then), Some(now)) => then.is_same(&now),
            _ => then == now,
        },
        (then, now) => then == now,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Sources;

    fn choices() -> Choices {
        Choices {
            node_name: "alpha".into(),
            pod_cidr: "10.1.0.0/16".into(),
            service_cidr: "10.152.183.0/24".into(),
            dns_domain: "cluster.local".into(),
            datastore: None,
        }
    }

    /// Message, causes and remedy, without the directory.
    fn refusal(now: &Choices, text: &str) -> Vec<String> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("skiff.toml");
        fs::write(&file, text).unwrap();
        let config = Config::load(&Sources { file: file.clone(), snap: None }).unwrap();
        let error = now.hold_to(&choices(), &config, &file).unwrap_err();
        let mut lines = vec![error.to_string()];
        let mut source = std::error::Error::source(&error);
        while let Some(cause) = source {
            lines.push(cause.to_string());
            source = cause.source();
        }
        lines.extend(error.hint());
        lines.iter().map(|line| line.replace(&format!("{}/", dir.path().display()), "")).collect()
    }

    #[test]
    fn the_first_start_decides_and_the_same_again_is_fine() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Choices::read(dir.path()).unwrap(), None);
        choices().record(dir.path()).unwrap();
        let other = Choices { dns_domain: "other.local".into(), ..choices() };
        other.record(dir.path()).unwrap();
        let then = Choices::read(dir.path()).unwrap().expect("recorded");
        assert_eq!(then, choices(), "the first one stays");
        choices().hold_to(&then, &Config::default(), Path::new("skiff.toml")).unwrap();
    }

    #[test]
    fn every_changed_choice_is_refused_with_its_place_its_reason_and_the_remedy() {
        let now = Choices {
            pod_cidr: "10.2.0.0/16".into(),
            dns_domain: "other.local".into(),
            ..choices()
        };
        let text = "[network]\ndns-domain = \"other.local\"\npod-cidr = \"10.2.0.0/16\"\n";
        assert_eq!(
            refusal(&now, text),
            [
                "this node began with other settings, which cannot change",
                "skiff.toml:2: network.dns-domain is \"other.local\", but the node began with \
                 \"cluster.local\": pods, tokens and certificates carry it",
                "skiff.toml:3: network.pod-cidr is \"10.2.0.0/16\", but the node began with \
                 \"10.1.0.0/16\": pods have addresses of it",
                "set it back, or begin anew with `sudo skiff reset`",
            ]
        );
    }

    #[test]
    fn a_line_that_was_taken_away_is_asked_back() {
        let now = Choices { service_cidr: "10.9.0.0/24".into(), ..choices() };
        assert_eq!(
            refusal(&now, "")[1],
            "skiff.toml: network.service-cidr is absent, which means \"10.9.0.0/24\", but the node \
             began with \"10.152.183.0/24\": Services have addresses of it"
        );
    }

    #[test]
    fn a_machine_that_is_renamed_is_told_how_the_node_keeps_its_name() {
        let now = Choices { node_name: "beta".into(), ..choices() };
        assert_eq!(
            refusal(&now, ""),
            [
                "a node cannot be renamed",
                "skiff.toml: node.name is absent, and the machine is called \"beta\" now, but the \
                 node began with \"alpha\": the Node object and certificates carry it",
                "`name = \"alpha\"` below [node] in skiff.toml keeps the node's name",
            ]
        );
        // A line of one's own is set back.
        let said = refusal(&now, "[node]\nname = \"beta\"\n");
        assert_eq!(said[0], "this node began with other settings, which cannot change");
        assert!(said[2].starts_with("set it back"), "{said:?}");
    }

    #[test]
    fn a_datastore_may_move_by_one_member_after_the_other_and_no_further() {
        let on = |urls: &str| Choices { datastore: Some(urls.into()), ..choices() };
        let dir = tempfile::tempdir().unwrap();
        on("https://a,https://b").record(dir.path()).unwrap();
        for urls in ["https://b,https://c", "https://c:2379"] {
            let then = Choices::read(dir.path()).unwrap().expect("recorded");
            on(urls).hold_to(&then, &Config::default(), Path::new("skiff.toml")).unwrap();
            on(urls).record(dir.path()).unwrap();
        }
        let then = Choices::read(dir.path()).unwrap().expect("recorded");
        assert_eq!(then.datastore.as_deref(), Some("https://c:2379"));
        for other in [on("https://a"), on("mysql://a@b/c"), choices()] {
            other.hold_to(&then, &Config::default(), Path::new("skiff.toml")).unwrap_err();
        }
        let text = "[datastore]\nendpoint = \"mysql://a@b/c\"\n";
        assert_eq!(
            refusal(&on("mysql://a@b/c"), text)[1],
            "skiff.toml:2: datastore.endpoint is \"mysql://a@b/c\", but the node began with \
             \"Skiff's own datastore\": objects do not move by themselves \
             (docs/how-to/use-an-external-datastore.md)"
        );
    }

    #[test]
    fn a_damaged_record_is_made_anew() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(FILE), "{").unwrap();
        choices().record(dir.path()).unwrap();
        assert_eq!(Choices::read(dir.path()).unwrap(), Some(choices()));
    }
}
