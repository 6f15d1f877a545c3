//! What the cluster remembers of an enabled addon.

use std::collections::BTreeMap;
use std::fmt;

use kube::ResourceExt;
use kube::api::DynamicObject;
use serde::{Deserialize, Serialize};

use crate::kube::{TypeRef, type_of};

/// Kept in a ConfigMap, so that any node can go on where another one stopped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    pub phase: Phase,
    /// Version that was applied last.
    pub version: String,
    /// What the user chose; defaults are not in it, so that they can change with the addon.
    #[serde(default)]
    pub options: BTreeMap<String, String>,
    /// Digest of the applied objects.
    pub digest: String,
    /// Everything that may exist in the cluster because of the addon, in the order of application.
    pub objects: Vec<ObjectRef>,
}

/// How far an addon is on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Its objects are being applied, or were when somebody crashed.
    Enabling,
    /// All objects are applied; health is asked of the cluster.
    Enabled,
    /// Its objects are being removed.
    Disabling,
}

/// Names one object of any kind.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectRef {
    #[serde(flatten)]
    pub types: TypeRef,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    pub name: String,
}

impl ObjectRef {
    pub fn of(object: &DynamicObject) -> Self {
        Self { types: type_of(object), namespace: object.namespace(), name: object.name_any() }
    }
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { types, namespace, name } = self;
        match namespace {
            Some(namespace) => write!(f, "{} {namespace}/{name}", types.kind),
            None => write!(f, "{} {name}", types.kind),
        }
    }
}

impl Record {
    /// The record to write before `objects` are applied: what was there stays in the list until
    /// it is pruned, so that a crash in between loses sight of nothing.
    pub fn begin(former: Option<&Self>, next: &Self) -> Self {
        let mut objects = next.objects.clone();
        for object in former.into_iter().flat_map(|record| &record.objects) {
            if !objects.contains(object) {
                objects.push(object.clone());
            }
        }
        Self { phase: Phase::Enabling, objects, ..next.clone() }
    }

    /// What the former record lists and the next one does not, last applied first.
    pub fn pruned(former: Option<&Self>, next: &Self) -> Vec<ObjectRef> {
        let former = former.into_iter().flat_map(|record| record.objects.iter().rev());
        former.filter(|object| !next.objects.contains(object)).cloned().collect()
    }
}

/// The options after a further request: the last word on each counts. An empty key stands for
/// the positional option.
pub fn merge_options(
    former: Option<&Record>,
    given: &[(String, String)],
    positional: Option<&str>,
) -> Vec<(String, String)> {
    let mut merged: Vec<(String, String)> = Vec::new();
    let named = |key: &str| match (key, positional) {
        ("", Some(name)) => name.to_owned(),
        (key, _) => key.to_owned(),
    };
    for (key, value) in former.into_iter().flat_map(|record| &record.options) {
        if !given.iter().any(|(other, _)| named(other) == *key) {
            merged.push((key.clone(), value.clone()));
        }
    }
    merged.extend(given.iter().map(|(key, value)| (named(key), value.clone())));
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(names: &[&str]) -> Record {
        let object = |name: &&str| ObjectRef {
            types: TypeRef::new("v1", "ConfigMap"),
            namespace: None,
            name: (*name).into(),
        };
        Record {
            phase: Phase::Enabled,
            version: "1".into(),
            options: BTreeMap::from([("size".into(), "1".into())]),
            digest: String::new(),
            objects: names.iter().map(object).collect(),
        }
    }

    #[test]
    fn nothing_is_lost_from_sight_between_two_versions() {
        let (old, new) = (record(&["a", "b", "c"]), record(&["b", "d"]));
        let begun = Record::begin(Some(&old), &new);
        assert_eq!(begun.phase, Phase::Enabling);
        assert_eq!(begun.objects, record(&["b", "d", "a", "c"]).objects);
        assert_eq!(Record::pruned(Some(&begun), &new), record(&["c", "a"]).objects);
    }

    #[test]
    fn later_options_win_and_others_stay() {
        let former = record(&[]);
        let given = [(String::new(), "10.0.0.1".to_owned())];
        let merged = merge_options(Some(&former), &given, Some("upstream"));
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        assert_eq!(merged, [pair("size", "1"), pair("upstream", "10.0.0.1")]);
        assert_eq!(merge_options(Some(&former), &[pair("size", "2")], None), [pair("size", "2")]);
    }

    #[test]
    fn a_record_is_read_back_as_written() {
        let record = record(&["a"]);
        let text = serde_json::to_string(&record).unwrap();
        assert_eq!(serde_json::from_str::<Record>(&text).unwrap(), record);
    }
}
