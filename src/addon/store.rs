//! Where records are kept: one ConfigMap an addon, changed only by who has seen its last state.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, DeleteParams, ListParams, ObjectMeta, PostParams, Preconditions};
use kube::{Client, ResourceExt};

use super::record::Record;
use crate::kube::{ClusterError, FIELD_MANAGER, bounded};

/// Where records live.
pub const NAMESPACE: &str = "kube-system";
/// Label of every record; its value is the addon's name.
pub const RECORD_LABEL: &str = "skiff.io/addon-record";
const KEY: &str = "record.json";

/// A record as it was read, to be replaced by whoever saw this and nothing later.
#[derive(Clone, Debug)]
pub struct Stored {
    pub record: Record,
    version: ReadVersion,
}

/// Which state of a record was read.
#[derive(Clone, Debug, Default)]
pub struct ReadVersion(Option<String>);

/// What lies where a record should be.
#[derive(Clone, Debug)]
pub enum Found {
    Record(Stored),
    /// Somebody wrote into it, or a newer build did.
    Damaged {
        problem: String,
        version: ReadVersion,
    },
}

impl Found {
    /// Whether an addon has something in the cluster, as far as can be known.
    pub fn is_enabled(&self) -> bool {
        match self {
            Self::Record(stored) => stored.record.is_enabled(),
            Self::Damaged { .. } => true,
        }
    }
}

impl Stored {
    /// What takes the place of a damaged record.
    pub fn mended(record: Record, version: ReadVersion) -> Self {
        Self { record, version }
    }
}

/// Reads and writes records.
#[derive(Clone)]
pub struct Store {
    api: Api<ConfigMap>,
}

impl Store {
    pub fn new(client: Client) -> Self {
        Self { api: Api::namespaced(client, NAMESPACE) }
    }

    pub async fn read(&self, addon: &str) -> Result<Option<Found>, ClusterError> {
        let what = format!("reading the record of addon {addon}");
        let found = bounded(&what, self.api.get_opt(&object_name(addon))).await?;
        Ok(found.as_ref().map(parse))
    }

    /// Every addon that has a record that can be read.
    pub async fn list(&self) -> Result<BTreeMap<String, Record>, ClusterError> {
        let params = ListParams::default().labels(RECORD_LABEL);
        let list = bounded("reading the records of addons", self.api.list(&params)).await?;
        let named = |map: &ConfigMap| {
            let addon = addon_of(map)?.to_owned();
            match parse(map) {
                Found::Record(stored) => Some((addon, stored.record)),
                Found::Damaged { problem, .. } => {
                    tracing::warn!(addon, problem, "the record of an addon is damaged");
                    None
                }
            }
        };
        Ok(list.items.iter().filter_map(named).collect())
    }

    /// Replaces what was read (`None`: there was nothing). Refused as a conflict when somebody
    /// else wrote in between.
    pub async fn write(
        &self,
        addon: &str,
        former: Option<&Stored>,
        record: Record,
    ) -> Result<Stored, ClusterError> {
        let map = config_map(addon, &record, former);
        let params = PostParams { field_manager: Some(FIELD_MANAGER.into()), dry_run: false };
        let what = format!("writing the record of addon {addon}");
        let name = object_name(addon);
        let written = match former {
            None => bounded(&what, self.api.create(&params, &map)).await?,
            Some(_) => bounded(&what, self.api.replace(&name, &params, &map)).await?,
        };
        Ok(Stored { record, version: ReadVersion(written.metadata.resource_version) })
    }

    /// Removes what was read. Refused as a conflict when somebody else wrote in between; that
    /// another one removed it first is as good.
    pub async fn remove(&self, addon: &str, former: &Stored) -> Result<(), ClusterError> {
        let what = format!("removing the record of addon {addon}");
        let resource_version = former.version.0.clone();
        let seen = Preconditions { uid: None, resource_version };
        let (name, params) = (object_name(addon), DeleteParams::default().preconditions(seen));
        match bounded(&what, self.api.delete(&name, &params)).await {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(()),
        }
    }
}

/// The addon whose record this is.
pub fn addon_of(map: &ConfigMap) -> Option<&str> {
    map.labels().get(RECORD_LABEL).map(String::as_str)
}

/// Reads what a record's ConfigMap holds.
pub fn parse(map: &ConfigMap) -> Found {
    let version = ReadVersion(map.resource_version());
    let text = map.data.as_ref().and_then(|data| data.get(KEY));
    let record = match text {
        Some(text) => serde_json::from_str(text).map_err(|error| error.to_string()),
        None => Err(format!("{KEY} is not in it")),
    };
    match record {
        Ok(record) => Found::Record(Stored { record, version }),
        Err(problem) => Found::Damaged { problem, version },
    }
}

fn object_name(addon: &str) -> String {
    format!("skiff-addon-{addon}")
}

fn config_map(addon: &str, record: &Record, former: Option<&Stored>) -> ConfigMap {
    let labels = [(RECORD_LABEL, addon), ("app.kubernetes.io/managed-by", "skiff")];
    let text = serde_json::to_string_pretty(record).expect("records are JSON");
    ConfigMap {
        metadata: ObjectMeta {
            name: Some(object_name(addon)),
            namespace: Some(NAMESPACE.into()),
            labels: Some(labels.map(|(key, value)| (key.into(), value.into())).into()),
            resource_version: former.and_then(|stored| stored.version.0.clone()),
            ..ObjectMeta::default()
        },
        data: Some(BTreeMap::from([(KEY.into(), text)])),
        ..ConfigMap::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(data: &[(&str, &str)]) -> ConfigMap {
        let pair = |(key, text): &(&str, &str)| ((*key).to_owned(), (*text).to_owned());
        ConfigMap {
            data: Some(data.iter().map(pair).collect()),
            metadata: ObjectMeta { resource_version: Some("7".into()), ..ObjectMeta::default() },
            ..ConfigMap::default()
        }
    }

    #[test]
    fn a_record_that_cannot_be_read_is_not_taken_for_none() {
        for (data, expected) in [
            (vec![], "record.json is not in it"),
            (vec![("record.json", "{")], "EOF while parsing an object at line 1 column 1"),
            (vec![("record.json", r#"{"phase":"dancing"}"#)], "unknown variant `dancing`"),
        ] {
            let found = parse(&map(&data));
            assert!(found.is_enabled(), "something of it may be there");
            let Found::Damaged { problem, version } = found else { panic!("{data:?} was read") };
            assert!(problem.starts_with(expected), "{problem}");
            assert_eq!(version.0.as_deref(), Some("7"), "what takes its place has seen it");
        }
    }

    #[test]
    fn an_addon_whose_data_alone_is_left_is_not_enabled() {
        let record = r#"{"phase":"PHASE","version":"1","digest":"","objects":[]}"#;
        for (phase, enabled) in [("enabled", true), ("disabling", true), ("kept", false)] {
            let text = record.replace("PHASE", phase);
            assert_eq!(parse(&map(&[("record.json", &text)])).is_enabled(), enabled);
        }
    }
}
