//! Disabling: what of an addon stays, because somebody else stored or made what is in it.
//!
//! ```text
//! user-data of the definition           stays unless the data is to be deleted
//! CustomResourceDefinition              stays while there are resources of it that users made,
//!                                       unless the data is to be deleted
//! Namespace                             stays while anything in it is not the addon's, or stays
//! ```

use kube::ResourceExt;
use kube::api::{DynamicObject, PartialObjectMeta};

use super::error::AddonError;
use super::object::OWNER_LABEL;
use super::record::{DataRef, ObjectRef, Record};
use super::work::Work;
use crate::kube::{ClusterError, Resources, TypeRef};

/// What is not removed, and why.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Stay {
    /// What users stored.
    pub data: Vec<DataRef>,
    /// What is held by something that users made, with a word about that.
    pub held: Vec<(ObjectRef, String)>,
}

impl Stay {
    pub fn keeps(&self, object: &ObjectRef) -> bool {
        self.data.iter().any(|data| data.object.is_same(object))
            || self.held.iter().any(|(held, _)| held.is_same(object))
    }

    /// A line for each.
    pub fn sentences(&self) -> Vec<String> {
        let data = self.data.iter().map(|data| format!("{} ({})", data.object, data.description));
        let held = self.held.iter().map(|(object, by)| format!("{object}, which holds {by}"));
        data.chain(held).collect()
    }

    /// What a later `--delete-data` would remove: the record goes on listing it. A Namespace with
    /// only the users' objects is theirs from now on.
    pub fn deletable(&self, record: &Record) -> Vec<ObjectRef> {
        let with_data = |object: &&ObjectRef| {
            object.types.kind != "Namespace"
                || self.data.iter().any(|data| data.object.namespace.as_ref() == Some(&object.name))
        };
        record
            .objects
            .iter()
            .filter(|object| self.keeps(object))
            .filter(with_data)
            .cloned()
            .collect()
    }
}

/// Asks the cluster what has to stay.
pub(super) async fn find(
    work: &Work<'_>,
    record: &Record,
    delete_data: bool,
) -> Result<Stay, AddonError> {
    ask(work, record, delete_data).await.map_err(AddonError::cluster(work.name))
}

async fn ask(work: &Work<'_>, record: &Record, delete_data: bool) -> Result<Stay, ClusterError> {
    let mut stay = Stay::default();
    let resources = &work.resources;
    let of_kind =
        |kind: &'static str| record.objects.iter().filter(move |object| object.types.kind == kind);
    if !delete_data {
        for data in &record.data {
            let object = &data.object;
            let namespace = object.namespace.as_deref();
            if resources.metadata(&object.types, namespace, &object.name).await?.is_some() {
                stay.data.push(data.clone());
            }
        }
        for object in of_kind("CustomResourceDefinition") {
            if let Some(by) = custom_resource(resources, object, work.name).await? {
                stay.held.push((object.clone(), by));
            }
        }
    }
    for object in of_kind("Namespace") {
        if let Some(by) = inhabitant(resources, object, work.name, &stay).await? {
            stay.held.push((object.clone(), by));
        }
    }
    Ok(stay)
}

/// A resource of this kind that users made.
async fn custom_resource(
    resources: &Resources,
    definition: &ObjectRef,
    addon: &str,
) -> Result<Option<String>, ClusterError> {
    let Some(found) = resources.get(&definition.types, None, &definition.name).await? else {
        return Ok(None);
    };
    let Some(types) = served_types(&found) else { return Ok(None) };
    let list = resources.list_kind(&types).await?;
    Ok(first_of_users(list.iter().map(|object| (&types, object)), addon))
}

/// The kind that a CustomResourceDefinition brings, in a version that is served.
fn served_types(definition: &DynamicObject) -> Option<TypeRef> {
    let spec = definition.data.get("spec")?;
    let versions = spec["versions"].as_array()?;
    let served = versions.iter().find(|version| version["served"] == true)?;
    let (group, version) = (spec["group"].as_str()?, served["name"].as_str()?);
    Some(TypeRef::new(format!("{group}/{version}"), spec["names"]["kind"].as_str()?))
}

/// What keeps a Namespace from being removed.
async fn inhabitant(
    resources: &Resources,
    namespace: &ObjectRef,
    addon: &str,
    stay: &Stay,
) -> Result<Option<String>, ClusterError> {
    let stored = |data: &&DataRef| data.object.namespace.as_ref() == Some(&namespace.name);
    if let Some(data) = stay.data.iter().find(stored) {
        return Ok(Some(data.object.to_string()));
    }
    let inside = resources.list_inside(&namespace.name).await?;
    Ok(first_of_users(inside.iter().map(|(types, object)| (types, object)), addon))
}

fn first_of_users<'a>(
    mut objects: impl Iterator<Item = (&'a TypeRef, &'a PartialObjectMeta<DynamicObject>)>,
    addon: &str,
) -> Option<String> {
    let (types, object) = objects.find(|(types, object)| is_users(types, object, addon))?;
    Some(format!("{} {}", types.kind, object.name_any()))
}

/// Whether neither the addon nor the cluster itself made an object.
fn is_users(types: &TypeRef, object: &PartialObjectMeta<DynamicObject>, addon: &str) -> bool {
    let of_the_cluster = match types.kind.as_str() {
        "Event" | "Lease" | "Endpoints" | "EndpointSlice" | "PodMetrics" => true,
        "ConfigMap" => object.name_any() == "kube-root-ca.crt",
        "ServiceAccount" => object.name_any() == "default",
        _ => false,
    };
    let owner = object.labels().get(OWNER_LABEL).map(String::as_str);
    let goes_by_itself =
        !object.owner_references().is_empty() || object.metadata.deletion_timestamp.is_some();
    !of_the_cluster && !goes_by_itself && owner != Some(addon)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::{Value, json};

    use super::*;
    use crate::addon::record::Phase;

    fn object(kind: &str, namespace: Option<&str>, name: &str) -> ObjectRef {
        ObjectRef {
            types: TypeRef::new("v1", kind),
            namespace: namespace.map(str::to_owned),
            name: name.into(),
        }
    }

    fn is_users_object(kind: &str, metadata: Value) -> bool {
        let object = serde_json::from_value(json!({ "metadata": metadata })).unwrap();
        is_users(&TypeRef::new("v1", kind), &object, "sample")
    }

    #[test]
    fn only_what_nobody_else_made_is_the_users() {
        let owners = json!([{ "apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u" }]);
        assert!(is_users_object("ConfigMap", json!({ "name": "mine" })));
        let other = json!({ "name": "a", "labels": { OWNER_LABEL: "other" } });
        assert!(is_users_object("ConfigMap", other), "what another addon made is not ours either");
        for (kind, metadata) in [
            ("ConfigMap", json!({ "name": "a", "labels": { OWNER_LABEL: "sample" } })),
            ("ConfigMap", json!({ "name": "kube-root-ca.crt" })),
            ("ServiceAccount", json!({ "name": "default" })),
            ("Event", json!({ "name": "e" })),
            ("Secret", json!({ "name": "s", "ownerReferences": owners })),
            ("Pod", json!({ "name": "p", "deletionTimestamp": "2026-01-01T00:00:00Z" })),
        ] {
            assert!(!is_users_object(kind, metadata.clone()), "{kind} {metadata}");
        }
    }

    #[test]
    fn a_namespace_is_listed_on_as_long_as_data_is_in_it() {
        let claim = object("PersistentVolumeClaim", Some("one"), "claim");
        let spaces = ["one", "two"].map(|name| object("Namespace", None, name));
        let record = Record {
            phase: Phase::Enabled,
            version: "1".into(),
            options: BTreeMap::new(),
            digest: String::new(),
            objects: [&spaces[..], &[claim.clone(), object("Service", Some("one"), "s")]].concat(),
            data: vec![],
            refused: None,
        };
        let stay = Stay {
            data: vec![DataRef { object: claim.clone(), description: "images".into() }],
            held: spaces.iter().map(|space| (space.clone(), "ConfigMap mine".into())).collect(),
        };
        assert_eq!(stay.deletable(&record), [spaces[0].clone(), claim]);
        assert_eq!(
            stay.sentences(),
            [
                "PersistentVolumeClaim one/claim (images)",
                "Namespace one, which holds ConfigMap mine",
                "Namespace two, which holds ConfigMap mine",
            ]
        );
    }

    #[test]
    fn the_kind_of_a_definition_is_one_that_is_served() {
        let definition = json!({ "metadata": { "name": "w" }, "spec": {
            "group": "example.org", "names": { "kind": "Widget" },
            "versions": [{ "name": "v1", "served": false }, { "name": "v2", "served": true }],
        } });
        let types = served_types(&serde_json::from_value(definition).unwrap());
        assert_eq!(types, Some(TypeRef::new("example.org/v2", "Widget")));
    }
}
