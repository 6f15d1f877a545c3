//! The objects of an addon as they were applied last: the way back when a change fails, also for a
//! build that has those manifests no more. One Secret an addon, compressed, since a manifest may
//! hold what is not for everybody.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::Client;
use kube::api::{Api, DeleteParams, DynamicObject, ObjectMeta, Patch, PatchParams};
use serde::{Deserialize, Serialize};

use super::gzip;
use super::record::Record;
use super::store::NAMESPACE;
use crate::kube::{ClusterError, FIELD_MANAGER, bounded};

/// Label of every Secret of this kind; its value is the addon's name.
const LABEL: &str = "skiff.io/addon-applied";
const KEY: &str = "applied.json.gz";

/// What was applied, with the record of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Applied {
    pub record: Record,
    pub objects: Vec<DynamicObject>,
}

/// What was kept of an addon; none when there is nothing that can be read.
pub(super) async fn read(client: &Client, addon: &str) -> Result<Option<Applied>, ClusterError> {
    let what = format!("reading what was applied of addon {addon}");
    let found = bounded(&what, api(client).get_opt(&name_of(addon))).await?;
    let data = found.and_then(|secret| secret.data?.remove(KEY));
    Ok(data.and_then(|data| gzip::unpack(&data.0)))
}

/// Keeps what was applied. `false`: it is too large to be kept.
pub(super) async fn keep(
    client: &Client,
    addon: &str,
    applied: &Applied,
) -> Result<bool, ClusterError> {
    let Some(data) = gzip::pack(applied) else {
        forget(client, addon).await?;
        return Ok(false);
    };
    let labels = [(LABEL, addon), ("app.kubernetes.io/managed-by", "skiff")];
    let secret = Secret {
        metadata: ObjectMeta {
            name: Some(name_of(addon)),
            namespace: Some(NAMESPACE.into()),
            labels: Some(labels.map(|(key, value)| (key.into(), value.into())).into()),
            ..ObjectMeta::default()
        },
        data: Some(BTreeMap::from([(KEY.into(), ByteString(data))])),
        type_: Some("skiff.io/addon-applied".into()),
        ..Secret::default()
    };
    let what = format!("keeping what was applied of addon {addon}");
    let params = PatchParams::apply(FIELD_MANAGER).force();
    bounded(&what, api(client).patch(&name_of(addon), &params, &Patch::Apply(&secret))).await?;
    Ok(true)
}

pub(super) async fn forget(client: &Client, addon: &str) -> Result<(), ClusterError> {
    let what = format!("forgetting what was applied of addon {addon}");
    match bounded(&what, api(client).delete(&name_of(addon), &DeleteParams::default())).await {
        Err(error) if !error.is_not_found() => Err(error),
        _ => Ok(()),
    }
}

fn api(client: &Client) -> Api<Secret> {
    Api::namespaced(client.clone(), NAMESPACE)
}

fn name_of(addon: &str) -> String {
    format!("skiff-addon-{addon}-applied")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::addon::record::Phase;

    #[test]
    fn what_was_applied_is_read_back_as_it_was() {
        let object = json!({ "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": { "name": "c" }, "data": { "a": "${b}" } });
        let record = Record {
            phase: Phase::Enabled,
            version: "1".into(),
            options: BTreeMap::from([("size".into(), "1".into())]),
            digest: "d".into(),
            objects: vec![],
            data: vec![],
            refused: None,
        };
        let objects = vec![serde_json::from_value(object).unwrap()];
        let applied = Applied { record, objects };
        assert_eq!(gzip::unpack(&gzip::pack(&applied).unwrap()), Some(applied));
    }
}
