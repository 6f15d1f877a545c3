//! What the cluster says: the objects that tell how it is, without what users put into them.

use kube::Client;
use kube::api::{Api, DynamicObject, ListParams};
use kube::core::{ApiResource, GroupVersionKind};
use serde_json::Value;

use crate::kube::ClientSource;

/// Most objects of a kind.
const OBJECTS_MAX: u32 = 500;

/// A kind that is listed.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    group: &'static str,
    version: &'static str,
    kind: &'static str,
    pub plural: &'static str,
}

const fn kind(
    group: &'static str,
    version: &'static str,
    kind: &'static str,
    plural: &'static str,
) -> Kind {
    Kind { group, version, kind, plural }
}

/// Secrets and ConfigMaps are not among them, and never will be.
pub const KINDS: [Kind; 9] = [
    kind("", "v1", "Node", "nodes"),
    kind("", "v1", "Pod", "pods"),
    kind("", "v1", "Event", "events"),
    kind("", "v1", "Service", "services"),
    kind("apps", "v1", "Deployment", "deployments"),
    kind("apps", "v1", "DaemonSet", "daemonsets"),
    kind("apps", "v1", "StatefulSet", "statefulsets"),
    kind("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices"),
    kind("coordination.k8s.io", "v1", "Lease", "leases"),
];

pub async fn list(clients: &ClientSource, kind: &Kind) -> Result<String, String> {
    let client: Client = clients.client().await.map_err(|e| e.to_string())?;
    let gvk = GroupVersionKind::gvk(kind.group, kind.version, kind.kind);
    let resource = ApiResource::from_gvk_with_plural(&gvk, kind.plural);
    let api: Api<DynamicObject> = Api::all_with(client, &resource);
    let params = ListParams::default().limit(OBJECTS_MAX);
    let list = api.list(&params).await.map_err(|error| match error {
        kube::Error::Api(status) => status.message.clone(),
        _ => "the API server does not answer".into(),
    })?;
    let mut out = String::new();
    for object in list.items {
        let mut value = serde_json::to_value(&object).map_err(|e| e.to_string())?;
        strip(&mut value);
        out += "---\n";
        out += &serde_yaml::to_string(&value).map_err(|e| e.to_string())?;
    }
    if list.metadata.continue_.is_some_and(|more| !more.is_empty()) {
        out += &format!("--- # there are more than {OBJECTS_MAX}\n");
    }
    Ok(out)
}

/// Takes out what people put into objects: variables, arguments, annotations.
fn strip(value: &mut Value) {
    match value {
        Value::Object(map) => {
            for field in ["managedFields", "annotations", "command", "args"] {
                map.remove(field);
            }
            if let Some(Value::Array(variables)) = map.get_mut("env") {
                for variable in variables.iter_mut().filter_map(Value::as_object_mut) {
                    variable.retain(|key, _| key == "name");
                }
            }
            map.values_mut().for_each(strip);
        }
        Value::Array(items) => items.iter_mut().for_each(strip),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn variables_keep_their_names_only() {
        let mut pod = json!({
            "metadata": { "name": "a", "annotations": { "x": "env: secret1" } },
            "spec": { "containers": [{
                "name": "c", "args": ["--password", "secret2"],
                "env": [{ "name": "PASSWORD", "value": "secret3" }],
            }] },
        });
        strip(&mut pod);
        let text = pod.to_string();
        assert!(!text.contains("secret") && text.contains("PASSWORD"), "{text}");
    }

    #[test]
    fn kinds_that_hold_secrets_are_not_listed() {
        assert!(KINDS.iter().all(|kind| !["Secret", "ConfigMap"].contains(&kind.kind)));
    }
}
