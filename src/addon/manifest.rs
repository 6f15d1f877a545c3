//! Manifest files: parsed as YAML with bounds, turned into plain data.

use serde_json::Value;

use super::unfold::{Budget, unfold};

/// Most objects of an addon.
const OBJECTS_MAX: usize = 1000;

/// A file of `manifests/` with its documents, placeholders still in them.
#[derive(Clone, Debug, PartialEq)]
pub struct Manifest {
    pub file: String,
    pub documents: Vec<Value>,
}

/// Parses the manifests of one addon: names and texts of files.
pub fn parse_all<'a>(
    files: impl Iterator<Item = (&'a str, &'a str)>,
) -> Result<Vec<Manifest>, Vec<String>> {
    let mut budget = Budget::of_addon();
    let mut manifests = Vec::new();
    let mut problems = Vec::new();
    for (file, text) in files {
        match parse_within(text, &mut budget) {
            Ok(documents) => manifests.push(Manifest { file: file.into(), documents }),
            Err(problem) => problems.push(format!("{file}: {problem}")),
        }
    }
    let objects: usize = manifests.iter().map(|manifest| manifest.documents.len()).sum();
    if objects > OBJECTS_MAX {
        problems.push(format!("{objects} objects are more than {OBJECTS_MAX}"));
    }
    if problems.is_empty() { Ok(manifests) } else { Err(problems) }
}

/// Parses the documents of a text that is an addon of its own.
#[cfg(test)]
pub fn parse(text: &str) -> Result<Vec<Value>, String> {
    parse_within(text, &mut Budget::of_addon())
}

/// Parses the documents of a file; empty ones are left out. Nesting is bounded by the parser.
fn parse_within(text: &str, budget: &mut Budget) -> Result<Vec<Value>, String> {
    let mut documents = Vec::new();
    for document in serde_yaml::Deserializer::from_str(text) {
        let value = unfold(document, budget).map_err(|e| e.to_string())?;
        if value.is_null() {
            continue;
        }
        if let Some(problem) = problem_of(&value) {
            return Err(format!("document {}: {problem}", documents.len() + 1));
        }
        documents.push(value);
    }
    Ok(documents)
}

/// What an object must have before anything else can be said of it.
fn problem_of(value: &Value) -> Option<String> {
    let text = |pointer: &str| value.pointer(pointer).and_then(Value::as_str);
    for (pointer, field) in
        [("/apiVersion", "apiVersion"), ("/kind", "kind"), ("/metadata/name", "metadata.name")]
    {
        match text(pointer) {
            None | Some("") => return Some(format!("{field} is missing")),
            Some(name) if field != "metadata.name" && name.contains("${") => {
                return Some(format!("{field} must not be a placeholder"));
            }
            Some(_) => {}
        }
    }
    if text("/kind").is_some_and(|kind| kind == "List" || kind.ends_with("List")) {
        return Some("a list is not an object: write its items as documents".into());
    }
    keys_with_placeholders(value).map(|key| format!("a key must not be a placeholder: {key}"))
}

fn keys_with_placeholders(value: &Value) -> Option<&str> {
    match value {
        Value::Object(map) => map.iter().find_map(|(key, item)| {
            if key.contains("${") { Some(key.as_str()) } else { keys_with_placeholders(item) }
        }),
        Value::Array(items) => items.iter().find_map(keys_with_placeholders),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\n";

    #[test]
    fn documents_are_taken_apart_and_empty_ones_left_out() {
        let text = format!("---\n{ONE}---\n# nothing\n---\n{ONE}");
        assert_eq!(parse(&text).unwrap().len(), 2);
    }

    #[test]
    fn what_is_not_an_object_is_refused() {
        let cases = [
            ("kind: A\nmetadata: {name: a}\n", "document 1: apiVersion is missing"),
            ("apiVersion: v1\nkind: A\n", "document 1: metadata.name is missing"),
            (
                "apiVersion: v1\nkind: ${kind}\nmetadata: {name: a}\n",
                "document 1: kind must not be a placeholder",
            ),
            (
                "apiVersion: v1\nkind: A\nmetadata: {name: a}\ndata: {\"${k}\": 1}\n",
                "document 1: a key must not be a placeholder: ${k}",
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(parse(text).unwrap_err(), expected);
        }
    }

    #[test]
    fn aliases_that_multiply_are_refused() {
        let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for i in 1..10 {
            let items = vec![format!("*a{}", i - 1); 10].join(", ");
            text += &format!("a{i}: &a{i} [{items}]\n");
        }
        assert!(parse(&text).is_err());
    }
}
