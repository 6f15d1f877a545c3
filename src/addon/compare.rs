//! What differs between an object as it is and as it would be. Pure.

use std::collections::BTreeSet;

use serde_json::{Map, Value};
use skiff_api::FieldChange;

/// Most fields of one object that are told: who changes more reads the manifests.
const FIELDS_MAX: usize = 200;
/// What the API server writes by itself.
const OF_THE_SERVER: [&str; 6] = [
    "metadata.managedFields",
    "metadata.resourceVersion",
    "metadata.generation",
    "metadata.uid",
    "metadata.creationTimestamp",
    "status",
];
/// Stands for what nobody is shown.
const SECRET: &str = "(secret)";

/// Every field that differs, in the order of their paths.
pub fn compare(before: &Value, after: &Value) -> Vec<FieldChange> {
    let is_secret = before["kind"] == "Secret" || after["kind"] == "Secret";
    let mut found = Vec::new();
    walk("", Some(before), Some(after), &mut found);
    for change in found.iter_mut().filter(|change| is_secret && holds_secret(&change.path)) {
        for text in [&mut change.before, &mut change.after].into_iter().flatten() {
            SECRET.clone_into(text);
        }
    }
    found
}

fn holds_secret(path: &str) -> bool {
    ["data", "stringData"].iter().any(|field| {
        path.strip_prefix(field).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    })
}

fn walk(path: &str, before: Option<&Value>, after: Option<&Value>, found: &mut Vec<FieldChange>) {
    if before == after || OF_THE_SERVER.contains(&path) || found.len() == FIELDS_MAX {
        return;
    }
    match (before, after) {
        (Some(Value::Object(before)), Some(Value::Object(after))) => {
            walk_fields(path, before, after, found);
        }
        (Some(Value::Array(before)), Some(Value::Array(after))) => {
            walk_items(path, before, after, found);
        }
        _ => found.push(FieldChange {
            path: path.to_owned(),
            before: before.map(text),
            after: after.map(text),
        }),
    }
}

fn walk_fields(
    path: &str,
    before: &Map<String, Value>,
    after: &Map<String, Value>,
    found: &mut Vec<FieldChange>,
) {
    let keys: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    for key in keys {
        let below = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        walk(&below, before.get(key), after.get(key), found);
    }
}

/// Items that have names belong together by them, others by their place.
fn walk_items(path: &str, before: &[Value], after: &[Value], found: &mut Vec<FieldChange>) {
    if let (Some(old), Some(new)) = (by_name(before), by_name(after)) {
        let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
        for name in names {
            walk(&format!("{path}[{name}]"), old.get(name), new.get(name), found);
        }
        return;
    }
    for index in 0..before.len().max(after.len()) {
        walk(&format!("{path}[{index}]"), before.get(index), after.get(index), found);
    }
}

fn by_name(items: &[Value]) -> Option<Map<String, Value>> {
    let named = |item: &Value| Some((item.get("name")?.as_str()?.to_owned(), item.clone()));
    let map: Option<Map<String, Value>> = items.iter().map(named).collect();
    map.filter(|map| map.len() == items.len())
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn lines(before: &Value, after: &Value) -> Vec<String> {
        let word = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".into());
        compare(before, after)
            .iter()
            .map(|c| format!("{}: {} -> {}", c.path, word(&c.before), word(&c.after)))
            .collect()
    }

    #[test]
    fn what_the_server_writes_itself_is_no_difference() {
        let object = |generation: u32| {
            json!({ "kind": "Deployment", "status": { "replicas": generation }, "metadata":
                { "name": "d", "generation": generation, "managedFields": [generation] } })
        };
        assert!(compare(&object(1), &object(2)).is_empty());
    }

    #[test]
    fn fields_are_told_by_their_path_and_items_by_their_name() {
        let before = json!({ "spec": { "replicas": 0, "paused": true, "args": ["a", "b"],
            "containers": [{ "name": "x", "image": "i:1" }, { "name": "y" }] } });
        let after = json!({ "spec": { "replicas": 2, "args": ["a", "c", "d"],
            "containers": [{ "name": "new" }, { "name": "x", "image": "i:2" }] } });
        assert_eq!(
            lines(&before, &after),
            [
                "spec.args[1]: b -> c",
                "spec.args[2]: - -> d",
                "spec.containers[new]: - -> {\"name\":\"new\"}",
                "spec.containers[x].image: i:1 -> i:2",
                "spec.containers[y]: {\"name\":\"y\"} -> -",
                "spec.paused: true -> -",
                "spec.replicas: 0 -> 2",
            ]
        );
    }

    #[test]
    fn secrets_are_not_shown() {
        let secret =
            |value: &str| json!({ "kind": "Secret", "type": value, "data": { "k": value } });
        assert_eq!(
            lines(&secret("a"), &secret("b")),
            ["data.k: (secret) -> (secret)", "type: a -> b"]
        );
        let whole = lines(&json!({ "kind": "Secret" }), &secret("b"));
        assert_eq!(whole, ["data: - -> (secret)", "type: - -> b"]);
    }

    #[test]
    fn there_is_an_end_to_what_is_told() {
        let items = |text: &str| json!({ "list": vec![text; 1000] });
        assert_eq!(compare(&items("a"), &items("b")).len(), FIELDS_MAX);
    }
}
