//! Placeholders in manifests, replaced as data and never as text of the document.
//!
//! A manifest is parsed first. Only then is `${name}` replaced, inside string values:
//!
//! ```yaml
//! replicas: ${replicas}                    # a whole value: takes the option's type, here a number
//! args: ${upstream}                        # a list stays a list
//! text: "forward . ${upstream} here"       # within a text: a list is joined by spaces
//! literal: "$${HOME}"                      # gives ${HOME}
//! ```
//!
//! A value therefore cannot add a key, end a string or begin a document, whatever is in it.

use serde_json::Value;

use super::option::Values;

/// Replaces every placeholder in `value`. All problems are collected, each with its place.
pub fn render(value: &Value, values: &Values) -> Result<Value, Vec<String>> {
    let mut problems = Vec::new();
    let rendered = walk(value, values, &mut String::new(), &mut problems);
    if problems.is_empty() { Ok(rendered) } else { Err(problems) }
}

/// Every name that is asked for in `value`.
pub fn names(value: &Value) -> Vec<String> {
    let mut found = Vec::new();
    collect(value, &mut found);
    found.sort();
    found.dedup();
    found
}

fn collect(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::String(text) => {
            for piece in pieces(text).unwrap_or_default() {
                if let Piece::Name(name) = piece {
                    found.push(name.to_owned());
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, found)),
        Value::Object(map) => map.values().for_each(|item| collect(item, found)),
        _ => {}
    }
}

fn walk(value: &Value, values: &Values, path: &mut String, problems: &mut Vec<String>) -> Value {
    match value {
        Value::String(text) => replace(text, values).unwrap_or_else(|problem| {
            problems.push(format!("{}: {problem}", path.trim_start_matches('.')));
            Value::Null
        }),
        Value::Array(items) => {
            let each = |(i, item)| below(path, &format!("[{i}]"), item, values, problems);
            Value::Array(items.iter().enumerate().map(each).collect())
        }
        Value::Object(map) => {
            let mut out = serde_json::Map::new();
            for (key, item) in map {
                let rendered = below(path, &format!(".{key}"), item, values, problems);
                out.insert(key.clone(), rendered);
            }
            Value::Object(out)
        }
        other => other.clone(),
    }
}

fn below(
    path: &mut String,
    step: &str,
    value: &Value,
    values: &Values,
    problems: &mut Vec<String>,
) -> Value {
    let length = path.len();
    path.push_str(step);
    let rendered = walk(value, values, path, problems);
    path.truncate(length);
    rendered
}

#[derive(Debug, PartialEq)]
enum Piece<'a> {
    Text(&'a str),
    Name(&'a str),
}

/// Takes a text apart. `$${` is a literal `${`; a `$` before anything else stands for itself.
fn pieces(text: &str) -> Result<Vec<Piece<'_>>, String> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        if rest[..at].ends_with('$') {
            found.push(Piece::Text(&rest[..at - 1]));
            found.push(Piece::Text("${"));
            rest = &rest[at + 2..];
            continue;
        }
        found.push(Piece::Text(&rest[..at]));
        let inner = &rest[at + 2..];
        let end = inner.find('}').ok_or_else(|| format!("{:?} has no closing }}", &rest[at..]))?;
        let name = &inner[..end];
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
        if name.is_empty() || !name.chars().all(allowed) {
            return Err(format!("{name:?} is not the name of a value"));
        }
        found.push(Piece::Name(name));
        rest = &inner[end + 1..];
    }
    found.push(Piece::Text(rest));
    found.retain(|piece| *piece != Piece::Text(""));
    Ok(found)
}

fn replace(text: &str, values: &Values) -> Result<Value, String> {
    let pieces = pieces(text)?;
    let look_up = |name: &str| values.get(name).ok_or_else(|| format!("there is no value {name}"));
    if let [Piece::Name(name)] = pieces.as_slice() {
        return look_up(name).cloned();
    }
    let mut out = String::new();
    for piece in pieces {
        match piece {
            Piece::Text(text) => out.push_str(text),
            Piece::Name(name) => out.push_str(&inline(name, look_up(name)?)?),
        }
    }
    Ok(Value::String(out))
}

/// A value within a longer text.
fn inline(name: &str, value: &Value) -> Result<String, String> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Number(number) => Ok(number.to_string()),
        Value::Bool(truth) => Ok(truth.to_string()),
        Value::Null => Err(format!("{name} has no value")),
        Value::Array(items) => {
            let texts: Result<Vec<_>, _> = items.iter().map(|item| inline(name, item)).collect();
            Ok(texts?.join(" "))
        }
        Value::Object(_) => Err(format!("{name} cannot stand within a text")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn values(pairs: &[(&str, Value)]) -> Values {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect()
    }

    #[test]
    fn a_whole_value_keeps_its_type_and_a_part_becomes_text() {
        let values = values(&[("n", json!(2)), ("l", json!(["a", "b"])), ("t", json!(true))]);
        let manifest = json!({ "a": "${n}", "b": ["${l}"], "c": "n=${n} l=${l} t=${t}", "d": 1 });
        let expected = json!({ "a": 2, "b": [["a", "b"]], "c": "n=2 l=a b t=true", "d": 1 });
        assert_eq!(render(&manifest, &values).unwrap(), expected);
    }

    #[test]
    fn a_doubled_dollar_is_a_literal() {
        let rendered = render(&json!("$${HOME} $x $$"), &values(&[])).unwrap();
        assert_eq!(rendered, json!("${HOME} $x $$"));
    }

    #[test]
    fn what_is_missing_is_told_with_its_place() {
        let manifest = json!({ "spec": { "items": ["ok", "${gone}", "${open", "${a b}"] } });
        let problems = render(&manifest, &values(&[])).unwrap_err();
        assert_eq!(
            problems,
            [
                "spec.items[1]: there is no value gone",
                "spec.items[2]: \"${open\" has no closing }",
                "spec.items[3]: \"a b\" is not the name of a value",
            ]
        );
    }

    #[test]
    fn names_are_collected_once() {
        let manifest = json!({ "a": "${x} ${y}", "b": ["${x}", "$${z}"] });
        assert_eq!(names(&manifest), ["x", "y"]);
    }

    proptest! {
        /// Whatever the value is, the document keeps its shape and the value arrives unchanged.
        #[test]
        fn no_value_breaks_out_of_its_place(text in any::<String>()) {
            let manifest = json!({ "a": "${v}", "b": "<${v}>", "c": { "d": "stays" } });
            let rendered = render(&manifest, &values(&[("v", json!(text))])).unwrap();
            let back: Value =
                serde_yaml::from_str(&serde_yaml::to_string(&rendered).unwrap()).unwrap();
            prop_assert_eq!(&back["a"], &json!(text));
            prop_assert_eq!(&back["b"], &json!(format!("<{text}>")));
            prop_assert_eq!(&back["c"], &json!({ "d": "stays" }));
            prop_assert_eq!(back.as_object().unwrap().len(), 3);
        }

        #[test]
        fn no_manifest_makes_it_panic(text in any::<String>()) {
            let _ = render(&json!(text), &values(&[]));
        }
    }
}
