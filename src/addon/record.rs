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
    /// What of it, or of what it makes itself, holds what users stored.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub data: Vec<DataRef>,
    /// A later version that was tried and did not come up: only a person tries it again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
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
    /// It is disabled; what users stored in it is still there, and so are its options.
    Kept,
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

/// An object that holds what users stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DataRef {
    #[serde(flatten)]
    pub object: ObjectRef,
    /// What is in it.
    pub description: String,
}

impl ObjectRef {
    pub fn of(object: &DynamicObject) -> Self {
        Self { types: type_of(object), namespace: object.namespace(), name: object.name_any() }
    }

    /// Whether both name one object, also where they speak different versions of its kind.
    pub fn is_same(&self, other: &Self) -> bool {
        self.types.group() == other.types.group()
            && self.types.kind == other.types.kind
            && self.namespace == other.namespace
            && self.name == other.name
    }

    pub fn is_in(&self, list: &[Self]) -> bool {
        list.iter().any(|object| object.is_same(self))
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
    pub fn is_enabled(&self) -> bool {
        self.phase != Phase::Kept
    }

    /// Whether a node whose build has `version` of the addon leaves it as it is, unasked: another
    /// node brought a later one, or this one did not come up.
    pub fn is_ahead_of(&self, version: &str) -> bool {
        self.refused.as_deref() == Some(version) || is_older(version, &self.version)
    }

    /// What held users' data stays on the list, also when this version of the addon neither brings
    /// nor names it any more: nothing of it is ever pruned.
    #[must_use]
    pub fn keeping_data(mut self, former: Option<&Self>) -> Self {
        self.know_data(former.into_iter().flat_map(|former| former.data.iter().cloned()));
        let listed = former.map_or(&[][..], |former| former.objects.as_slice());
        for data in &self.data {
            if data.object.is_in(listed) && !data.object.is_in(&self.objects) {
                self.objects.push(data.object.clone());
            }
        }
        self
    }

    /// Adds what is not known yet to hold data.
    pub fn know_data(&mut self, data: impl IntoIterator<Item = DataRef>) {
        for data in data {
            if !self.data.iter().any(|known| known.object.is_same(&data.object)) {
                self.data.push(data);
            }
        }
    }

    /// The record to write before `objects` are applied: what was there stays in the list until
    /// it is pruned, so that a crash in between loses sight of nothing.
    pub fn begin(former: Option<&Self>, next: &Self) -> Self {
        let mut objects = next.objects.clone();
        for object in former.into_iter().flat_map(|record| &record.objects) {
            if !object.is_in(&objects) {
                objects.push(object.clone());
            }
        }
        Self { phase: Phase::Enabling, objects, ..next.clone() }
    }

    /// What the former record lists and the next one does not, last applied first.
    pub fn pruned(former: Option<&Self>, next: &Self) -> Vec<ObjectRef> {
        let former = former.into_iter().flat_map(|record| record.objects.iter().rev());
        former.filter(|object| !object.is_in(&next.objects)).cloned().collect()
    }
}

/// Whether one version comes before another, as far as both are made of numbers.
fn is_older(one: &str, other: &str) -> bool {
    let numbers = |version: &str| -> Option<Vec<u64>> {
        version.trim_start_matches('v').split('.').map(|part| part.parse().ok()).collect()
    };
    numbers(one).zip(numbers(other)).is_some_and(|(one, other)| one < other)
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
            data: vec![],
            refused: None,
        }
    }

    #[test]
    fn what_holds_data_is_never_pruned() {
        let mut old = record(&["a", "claim"]);
        old.data = vec![DataRef { object: old.objects[1].clone(), description: "d".into() }];
        let next = record(&["a"]).keeping_data(Some(&old));
        assert_eq!(next.objects, old.objects);
        assert_eq!(next.data, old.data);
        assert!(Record::pruned(Some(&old), &next).is_empty());
        // Also two versions later, and not for who never had it.
        assert_eq!(record(&["a"]).keeping_data(Some(&next)), next);
        assert_eq!(record(&["a"]).keeping_data(None), record(&["a"]));
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
    fn an_object_that_is_spoken_to_in_another_version_is_not_pruned() {
        let of = |version: &str| {
            let mut record = record(&["budget"]);
            record.objects[0].types = TypeRef::new(version, "PodDisruptionBudget");
            record
        };
        let (old, new) = (of("policy/v1beta1"), of("policy/v1"));
        assert!(Record::pruned(Some(&old), &new).is_empty());
        assert_eq!(Record::begin(Some(&old), &new).objects, new.objects);
        assert_eq!(Record::pruned(Some(&old), &of("other/v1")), old.objects);
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
    fn a_node_with_an_older_build_does_not_take_an_addon_back() {
        let mut record = record(&[]);
        record.version = "1.10.0".into();
        for (build, leaves_it) in [
            ("1.9.9", true),
            ("v1.9", true),
            ("1.10.0", false),
            ("1.11.0", false),
            ("other", false),
        ] {
            assert_eq!(record.is_ahead_of(build), leaves_it, "{build}");
        }
        record.refused = Some("1.11.0".into());
        assert!(record.is_ahead_of("1.11.0"), "it did not come up");
        assert!(!record.is_ahead_of("1.11.1"));
    }

    #[test]
    fn a_record_is_read_back_as_written() {
        let record = record(&["a"]);
        let text = serde_json::to_string(&record).unwrap();
        assert_eq!(serde_json::from_str::<Record>(&text).unwrap(), record);
    }
}
