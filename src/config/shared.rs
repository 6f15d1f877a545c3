//! The layer that all nodes of a cluster share: what the cluster was begun with, and what somebody
//! has set with `skiff set`. A lone node has such a layer of its own.
//!
//! ```text
//!   default < skiff.toml < drop-ins < snap < cluster
//!                                            │
//!            a cluster's setting: its value decides, and one of the node's own is told to be idle
//!            flags of the kubelet and kube-proxy: the cluster's come first, the node's own after
//!            a node's own setting: no such value can be set
//! ```

use std::collections::BTreeMap;

use microcluster::record::SharedSettings;
use serde::Deserialize;
use toml::Value;

use super::endpoint::Endpoint;
use super::error::{Mistake, Problem};
use super::layer::{self, Merged, Origin};
use super::setting::{self, Known, Scope};

/// The names that a cluster's API servers have from its founder, and others may add theirs to.
const API_NAMES: &str = "api.extra-sans";
const ENDPOINT: &str = "datastore.endpoint";

/// See the module's words.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Shared {
    /// What somebody has set.
    pub set: SharedSettings,
    /// What the cluster was begun with, by dotted names. Empty where it was begun.
    pub decided: BTreeMap<String, Value>,
    /// Names that the founder's API server has.
    pub api_names: Vec<String>,
    /// Where the cluster keeps Kubernetes' objects, if somewhere else.
    pub datastore: Option<String>,
}

/// A value of the node's own files for a setting of the cluster.
#[derive(Clone, Debug, PartialEq)]
pub struct Own {
    pub origin: Origin,
    pub value: Value,
    /// It counts after the cluster's.
    pub is_added: bool,
}

impl Shared {
    /// Of a node that is alone.
    pub fn set(set: SharedSettings) -> Self {
        Self { set, ..Self::default() }
    }

    /// Refuses what of the set values cannot be one here: no such setting, not a cluster's, not of its
    /// kind.
    pub fn check(set: &SharedSettings) -> Result<(), Problem> {
        let origin = Origin::Set(set.revision.0);
        let mistake = |(key, value): (&String, &serde_json::Value)| {
            let text = match setting::known(key) {
                None => layer::unknown("setting", key, setting::like(key)),
                Some(known) => match known.scope {
                    Scope::Node => {
                        format!("{key} is each node's own: write it into skiff.toml there")
                    }
                    Scope::Decided(reason) => format!("{key} is decided: {reason}"),
                    Scope::Cluster | Scope::Both => kind_mistake(known, value)?,
                },
            };
            Some(Mistake::new(origin.clone(), text))
        };
        match Problem::chain(set.values.iter().filter_map(mistake).collect()) {
            None => Ok(()),
            Some(problem) => Err(problem),
        }
    }
}

fn kind_mistake(known: &Known, value: &serde_json::Value) -> Option<String> {
    match Value::deserialize(value) {
        Ok(value) if layer::fits(known.key, &value) => None,
        Ok(value) => {
            Some(format!("{} must be {}, not {}", known.key, known.kind, layer::shown(&value)))
        }
        Err(_) => Some(format!("{} must be {}", known.key, known.kind)),
    }
}

/// What somebody typed behind `KEY=`, as that setting takes it: words of TOML, or a bare text, which
/// is a list of one where a list is meant.
pub fn read_value(key: &str, text: &str) -> Option<serde_json::Value> {
    let table: Option<toml::Table> = format!("it = {text}").parse().ok();
    let words = table.and_then(|mut table| table.remove("it"));
    let bare = Value::String(text.to_owned());
    let list = Value::Array(vec![bare.clone()]);
    let fitting = words.into_iter().chain([bare, list]).find(|value| layer::fits(key, value))?;
    serde_json::to_value(fitting).ok()
}

impl Merged {
    /// Puts the shared layer over the node's own ones. A setting that this version does not know is
    /// left alone: a newer one has set it, and the node goes on without.
    pub(super) fn add_shared(&mut self, shared: &Shared) {
        for (key, value) in &shared.decided {
            self.share(Origin::Cluster, key, value.clone());
        }
        let revision = Origin::Set(shared.set.revision.0);
        for (key, value) in &shared.set.values {
            let scope = setting::known(key).map(|known| known.scope);
            if matches!(scope, Some(Scope::Cluster | Scope::Both))
                && let Ok(value) = Value::deserialize(value)
                && layer::fits(key, &value)
            {
                self.share(revision.clone(), key, value);
            }
        }
        if !shared.set.values.contains_key(API_NAMES) {
            self.add_names(&shared.api_names);
        }
        self.keep_datastore(shared.datastore.as_deref());
    }

    fn share(&mut self, origin: Origin, key: &str, mut value: Value) {
        let Some((group, name)) = key.split_once('.') else { return };
        let is_added = setting::known(key).is_some_and(|known| known.scope == Scope::Both);
        if let Some(own) = self.value(key) {
            let origin = self.origins.get(key).cloned().unwrap_or_default();
            if is_added && let (Value::Array(all), Value::Array(own)) = (&mut value, &own) {
                all.extend(own.iter().cloned());
            }
            if is_added || own != value {
                self.own.insert(key.to_owned(), Own { origin, value: own, is_added });
            }
        }
        self.put(origin, group, name, value);
    }

    /// The founder's, after the node's own.
    fn add_names(&mut self, names: &[String]) {
        let own = match self.value(API_NAMES) {
            Some(Value::Array(own)) => own,
            _ => vec![],
        };
        let missing: Vec<Value> = names.iter().cloned().map(Value::String).collect();
        let missing: Vec<Value> = missing.into_iter().filter(|name| !own.contains(name)).collect();
        if missing.is_empty() {
            return;
        }
        let origin = match own.is_empty() {
            true => Origin::Cluster,
            false => self.origins.get(API_NAMES).cloned().unwrap_or_default(),
        };
        self.put(origin, "api", "extra-sans", Value::Array([own, missing].concat()));
    }

    /// Members of an etcd may be named one by one on each node; another datastore is refused where
    /// the node is held to what it began with, and when it joins.
    fn keep_datastore(&mut self, clusters: Option<&str>) {
        let Some(clusters) = clusters else { return };
        if self.value(ENDPOINT).is_none() {
            self.put(Origin::Cluster, "datastore", "endpoint", Value::String(clusters.to_owned()));
        }
    }
}

/// How a datastore is called in a cluster's record.
pub fn datastore_name(endpoint: Option<Endpoint>) -> Option<String> {
    endpoint.map(|endpoint| endpoint.to_string())
}

#[cfg(test)]
#[path = "shared_test.rs"]
mod tests;
