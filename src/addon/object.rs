//! From manifests and values to the objects that are applied. Pure.

use std::collections::BTreeSet;

use kube::ResourceExt;
use kube::api::DynamicObject;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::option::Values;
use super::order::rank;
use super::record::ObjectRef;
use super::registry::Addon;
use super::template;
use crate::kube::type_of;

/// Label of every object that an addon owns, and of the pods that come from it.
pub const OWNER_LABEL: &str = "skiff.io/addon";
/// Says which version of an addon an object comes from.
const VERSION_ANNOTATION: &str = "skiff.io/addon-version";
/// Value that changes whenever a ConfigMap or Secret of the addon does: as an annotation of a pod
/// template it makes new pods.
pub const CONFIG_DIGEST: &str = "config.digest";

/// All objects of an addon in the order of their application.
#[derive(Clone, Debug, PartialEq)]
pub struct Objects {
    pub list: Vec<DynamicObject>,
    /// Of all of them: equal digests mean that nothing is to be done.
    pub digest: String,
}

/// Fills in the values and marks everything as the addon's own. All problems at once.
pub fn build(addon: &Addon, values: &Values) -> Result<Objects, Vec<String>> {
    let mut problems = Vec::new();
    let mut configs = Vec::new();
    let mut others = Vec::new();
    for manifest in &addon.manifests {
        match holds(addon.definition.condition_of(&manifest.file), values) {
            Ok(true) => {}
            Ok(false) => continue,
            Err(problem) => {
                problems.push(format!("{}: {problem}", manifest.file));
                continue;
            }
        }
        for document in &manifest.documents {
            let place = (manifest.file.as_str(), document);
            match document["kind"].as_str() {
                Some("ConfigMap" | "Secret") => configs.push(place),
                _ => others.push(place),
            }
        }
    }
    let mut values = values.clone();
    let mut list = render_all(&configs, addon, &values, &mut problems);
    values.insert(CONFIG_DIGEST.into(), json!(digest(&list)));
    list.extend(render_all(&others, addon, &values, &mut problems));
    list.sort_by_key(|object| rank(&type_of(object).kind));
    let mut seen = BTreeSet::new();
    for object in &list {
        let object = ObjectRef::of(object);
        if !seen.insert(object.clone()) {
            problems.push(format!("{object} is there twice"));
        }
    }
    let digest = digest(&list);
    if problems.is_empty() { Ok(Objects { list, digest }) } else { Err(problems) }
}

/// Whether every term has a value, or with `!` in front has none.
fn holds(terms: &[String], values: &Values) -> Result<bool, String> {
    for term in terms {
        let (name, wanted) = match term.strip_prefix('!') {
            Some(name) => (name, false),
            None => (term.as_str(), true),
        };
        let value = values.get(name).ok_or_else(|| format!("there is no value {name}"))?;
        if is_set(value) != wanted {
            return Ok(false);
        }
    }
    Ok(true)
}

fn is_set(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        _ => true,
    }
}

fn render_all(
    documents: &[(&str, &Value)],
    addon: &Addon,
    values: &Values,
    problems: &mut Vec<String>,
) -> Vec<DynamicObject> {
    let mut objects = Vec::new();
    for (file, document) in documents {
        let rendered = template::render(document, values).and_then(|value| {
            let owned = own(value, addon);
            serde_json::from_value(owned).map_err(|e| vec![e.to_string()])
        });
        match rendered {
            Ok(object) => objects.push(object),
            Err(found) => problems.extend(found.iter().map(|problem| format!("{file}: {problem}"))),
        }
    }
    objects
}

/// Puts the addon's name on an object and on the pods that it makes.
fn own(mut object: Value, addon: &Addon) -> Value {
    put(&mut object, &["metadata", "labels", OWNER_LABEL], &addon.name);
    put(&mut object, &["metadata", "labels", "app.kubernetes.io/managed-by"], "skiff");
    put(&mut object, &["metadata", "annotations", VERSION_ANNOTATION], &addon.definition.version);
    let namespace = object.pointer("/metadata/namespace").and_then(Value::as_str).unwrap_or("");
    if namespace.is_empty() {
        put(&mut object, &["metadata", "namespace"], &addon.definition.namespace);
    }
    let template: &[&str] = match object["kind"].as_str() {
        Some("Deployment" | "DaemonSet" | "StatefulSet" | "Job") => &["spec", "template"],
        Some("CronJob") => &["spec", "jobTemplate", "spec", "template"],
        _ => return object,
    };
    let path = [template, &["metadata", "labels", OWNER_LABEL]].concat();
    put(&mut object, &path, &addon.name);
    let claims = object.pointer_mut("/spec/volumeClaimTemplates").and_then(Value::as_array_mut);
    for claim in claims.into_iter().flatten() {
        put(claim, &["metadata", "labels", OWNER_LABEL], &addon.name);
    }
    object
}

/// Sets a text, making the maps on the way to it. What is no map on the way is the API server's
/// to refuse.
fn put(object: &mut Value, path: &[&str], text: &str) {
    let Some((first, rest)) = path.split_first() else {
        *object = json!(text);
        return;
    };
    if object.is_null() {
        *object = json!({});
    }
    if let Some(map) = object.as_object_mut() {
        put(map.entry(*first).or_insert(Value::Null), rest, text);
    }
}

fn digest(objects: &[DynamicObject]) -> String {
    let mut hash = Sha256::new();
    for object in objects {
        // Maps of JSON values are sorted, so equal objects have equal texts.
        hash.update(serde_json::to_vec(object).expect("objects are JSON"));
        hash.update(b"\n");
    }
    hash.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

/// Groups and kinds of the addon's own CustomResourceDefinitions that live outside namespaces: the
/// API server does not know them yet.
pub fn cluster_wide_kinds(objects: &[DynamicObject]) -> BTreeSet<(String, String)> {
    let brought = |object: &DynamicObject| {
        let spec = object.data.get("spec")?;
        let wide = type_of(object).kind == "CustomResourceDefinition" && spec["scope"] == "Cluster";
        let (group, kind) = (spec["group"].as_str()?, spec["names"]["kind"].as_str()?);
        wide.then(|| (group.to_owned(), kind.to_owned()))
    };
    objects.iter().filter_map(brought).collect()
}

/// How a person calls an object.
pub fn name_of(object: &DynamicObject) -> String {
    format!("{} {}", type_of(object).kind, object.name_any())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addon::definition::Definition;
    use crate::addon::manifest::{Manifest, parse};

    const DEPLOYMENT: &str = "apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: d\nspec:\n  \
                              template:\n    metadata:\n      annotations: {c: '${config.digest}'}\n";
    const CONFIG: &str =
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: c\ndata:\n  a: '${size}'\n";

    fn addon(extra: &str, files: &[(&str, &str)]) -> Addon {
        let text = format!("description = 'd'\nversion = '1'\n{extra}");
        let manifests = files
            .iter()
            .map(|(file, text)| Manifest { file: (*file).into(), documents: parse(text).unwrap() })
            .collect();
        let definition = Definition::parse("sample", &text, &[]).unwrap();
        Addon { name: "sample".into(), definition, manifests, repository: None }
    }

    fn size(text: &str) -> Values {
        Values::from([("size".to_owned(), json!(text))])
    }

    #[test]
    fn objects_are_ordered_and_carry_their_owner() {
        let addon = addon("", &[("a.yaml", DEPLOYMENT), ("b.yaml", CONFIG)]);
        let objects = build(&addon, &size("1")).unwrap();
        let names: Vec<_> = objects.list.iter().map(name_of).collect();
        assert_eq!(names, ["ConfigMap c", "Deployment d"]);
        for object in &objects.list {
            assert_eq!(object.labels()[OWNER_LABEL], "sample");
            assert_eq!(object.namespace().as_deref(), Some("kube-system"));
        }
        let pod = objects.list[1].data.pointer("/spec/template/metadata/labels").unwrap();
        assert_eq!(pod[OWNER_LABEL], "sample");
    }

    #[test]
    fn a_changed_configuration_changes_the_pods_that_read_it() {
        let addon = addon("", &[("a.yaml", DEPLOYMENT), ("b.yaml", CONFIG)]);
        let [one, two] = [build(&addon, &size("1")), build(&addon, &size("2"))].map(Result::unwrap);
        assert_ne!(one.digest, two.digest);
        assert_ne!(one.list[1], two.list[1]);
        assert_eq!(build(&addon, &size("1")).unwrap(), one);
    }

    #[test]
    fn manifests_are_chosen_by_their_conditions() {
        let extra = "[[manifest]]\nfile = 'a.yaml'\nwhen = ['!size']\n";
        let addon = addon(extra, &[("a.yaml", DEPLOYMENT), ("b.yaml", CONFIG)]);
        assert_eq!(build(&addon, &size("1")).unwrap().list.len(), 1);
        assert_eq!(build(&addon, &size("")).unwrap().list.len(), 2);
        assert_eq!(
            build(&addon, &Values::new()).unwrap_err(),
            ["a.yaml: there is no value size", "b.yaml: data.a: there is no value size"]
        );
    }

    #[test]
    fn a_kind_that_the_addon_brings_is_known_to_live_outside_namespaces() {
        let definition = |kind: &str, scope: &str| {
            serde_json::from_value(json!({
                "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
                "metadata": { "name": kind },
                "spec": { "group": "example.org", "scope": scope, "names": { "kind": kind } },
            }))
            .unwrap()
        };
        let objects = [definition("Wide", "Cluster"), definition("Narrow", "Namespaced")];
        let expected = BTreeSet::from([("example.org".to_owned(), "Wide".to_owned())]);
        assert_eq!(cluster_wide_kinds(&objects), expected);
    }

    #[test]
    fn the_same_object_twice_is_refused() {
        let addon = addon("", &[("a.yaml", CONFIG), ("b.yaml", CONFIG)]);
        let problems = build(&addon, &size("1")).unwrap_err();
        assert_eq!(problems, ["ConfigMap kube-system/c is there twice"]);
    }
}
