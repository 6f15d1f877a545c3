//! Where records are kept: one ConfigMap an addon, changed only by who has seen its last state.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, DeleteParams, ListParams, ObjectMeta, PostParams};
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
    resource_version: Option<String>,
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

    pub async fn read(&self, addon: &str) -> Result<Option<Stored>, ClusterError> {
        let what = format!("reading the record of addon {addon}");
        let found = bounded(&what, self.api.get_opt(&object_name(addon))).await?;
        Ok(found.as_ref().and_then(parse))
    }

    /// Every addon that has a record.
    pub async fn list(&self) -> Result<BTreeMap<String, Record>, ClusterError> {
        let params = ListParams::default().labels(RECORD_LABEL);
        let list = bounded("reading the records of addons", self.api.list(&params)).await?;
        let named = |map: &ConfigMap| Some((addon_of(map)?.to_owned(), parse(map)?.record));
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
        Ok(Stored { record, resource_version: written.metadata.resource_version })
    }

    pub async fn remove(&self, addon: &str) -> Result<(), ClusterError> {
        let what = format!("removing the record of addon {addon}");
        let (name, params) = (object_name(addon), DeleteParams::default());
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

/// A record that cannot be read counts as none: enabling again writes a good one.
pub fn parse(map: &ConfigMap) -> Option<Stored> {
    let text = map.data.as_ref()?.get(KEY)?;
    let record = serde_json::from_str(text)
        .inspect_err(|error| tracing::warn!(%error, "the record {} is damaged", map.name_any()))
        .ok()?;
    Some(Stored { record, resource_version: map.resource_version() })
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
            resource_version: former.and_then(|stored| stored.resource_version.clone()),
            ..ObjectMeta::default()
        },
        data: Some(BTreeMap::from([(KEY.into(), text)])),
        ..ConfigMap::default()
    }
}
