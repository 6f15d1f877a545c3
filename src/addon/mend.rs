//! A damaged record is made anew of what carries the addon's label in the cluster.

use std::collections::BTreeMap;

use kube::ResourceExt;
use kube::api::{DynamicObject, PartialObjectMeta};

use super::object::OWNER_LABEL;
use super::order::rank;
use super::record::{ObjectRef, Phase, Record};
use crate::kube::{ClusterError, Listed, Resources, TypeRef};

/// A record of everything that the addon owns. What the user chose is lost with the former one.
pub(super) async fn record(resources: &Resources, addon: &str) -> Result<Record, ClusterError> {
    let found = resources.list_labelled(&format!("{OWNER_LABEL}={addon}")).await?;
    Ok(rebuilt(&found))
}

fn rebuilt(found: &[Listed]) -> Record {
    let applied = found.iter().filter(|(types, object)| is_applied(types, object));
    let mut objects: Vec<ObjectRef> = applied
        .map(|(types, object)| ObjectRef {
            types: types.clone(),
            namespace: object.namespace(),
            name: object.name_any(),
        })
        .collect();
    objects.sort_by_key(|object| rank(&object.types.kind));
    Record {
        phase: Phase::Enabling,
        version: String::new(),
        options: BTreeMap::new(),
        digest: String::new(),
        objects,
        data: vec![],
        refused: None,
    }
}

/// Controllers copy our labels to what they make of our objects: nearly all of that has an owner.
fn is_applied(types: &TypeRef, object: &PartialObjectMeta<DynamicObject>) -> bool {
    object.owner_references().is_empty() && types.kind != "Endpoints"
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_controllers_made_of_the_objects_is_left_to_them() {
        let found: Vec<_> = [
            ("apps/v1", "Deployment", json!({ "name": "d", "namespace": "n" })),
            ("v1", "Service", json!({ "name": "s", "namespace": "n" })),
            ("v1", "Endpoints", json!({ "name": "s", "namespace": "n" })),
            (
                "v1",
                "Pod",
                json!({ "name": "p", "ownerReferences": [
                    { "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": "u" } ] }),
            ),
            ("v1", "Namespace", json!({ "name": "n" })),
        ]
        .into_iter()
        .map(|(version, kind, metadata)| {
            let object = serde_json::from_value(json!({ "metadata": metadata })).unwrap();
            (TypeRef::new(version, kind), object)
        })
        .collect();
        let record = rebuilt(&found);
        let names: Vec<String> = record.objects.iter().map(ToString::to_string).collect();
        assert_eq!(names, ["Namespace n", "Service n/s", "Deployment n/d"]);
        assert_eq!(record.phase, Phase::Enabling, "it is to be applied again");
    }
}
