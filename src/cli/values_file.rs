//! A file with options of an addon: YAML or JSON, one key for each.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde_json::Value;

use super::CommandError;

/// Largest file, in bytes: options are settings, not data.
const BYTES_MAX: u64 = 1 << 20;

/// Reads the options; those that the command line names too are left to it.
pub fn read(
    path: &Path,
    named: &[(String, String)],
) -> Result<Vec<(String, String)>, CommandError> {
    let failed = |problem: String| {
        CommandError::new(format!("cannot take options from {}: {problem}", path.display()))
            .hint("write one option a line, for example replicas: 2")
    };
    let mut text = String::new();
    let file = File::open(path).map_err(|e| failed(e.to_string()))?;
    file.take(BYTES_MAX + 1).read_to_string(&mut text).map_err(|e| failed(e.to_string()))?;
    if text.len() as u64 > BYTES_MAX {
        return Err(failed(format!("it is larger than {BYTES_MAX} bytes")));
    }
    let mut options = parse(&text).map_err(failed)?;
    options.retain(|(key, _)| !named.iter().any(|(other, _)| other == key));
    Ok(options)
}

/// Each key with its value as it would be written after `--set`.
fn parse(text: &str) -> Result<Vec<(String, String)>, String> {
    let value = crate::addon::plain_data(text)?;
    match value {
        Value::Null => Ok(Vec::new()),
        Value::Object(map) => map
            .into_iter()
            .map(|(key, value)| match word(&value) {
                Ok(word) => Ok((key, word)),
                Err(problem) => Err(format!("{key}: {problem}")),
            })
            .collect(),
        _ => Err("it is not a list of keys with their values".into()),
    }
}

fn word(value: &Value) -> Result<String, String> {
    match value {
        Value::Array(items) => {
            let words: Result<Vec<String>, String> = items.iter().map(item).collect();
            Ok(words?.join(","))
        }
        other => scalar(other),
    }
}

fn item(value: &Value) -> Result<String, String> {
    let word = scalar(value)?;
    if word.contains(',') { Err(format!("{word:?} has a comma in it")) } else { Ok(word) }
}

fn scalar(value: &Value) -> Result<String, String> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Number(number) => Ok(number.to_string()),
        Value::Bool(truth) => Ok(truth.to_string()),
        Value::Null => Err("it has no value".into()),
        Value::Array(_) | Value::Object(_) => Err("a value is a word or a list of words".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(key: &str, value: &str) -> (String, String) {
        (key.into(), value.into())
    }

    #[test]
    fn yaml_and_json_become_what_set_would_be_given() {
        let options =
            [pair("replicas", "2"), pair("upstream", "10.0.0.1,fd00::1"), pair("wide", "true")];
        let yaml = "replicas: 2\nwide: true\nupstream: [10.0.0.1, 'fd00::1']\n";
        assert_eq!(parse(yaml).unwrap(), options);
        let json = r#"{"replicas": "2", "wide": true, "upstream": "10.0.0.1,fd00::1"}"#;
        assert_eq!(parse(json).unwrap(), options);
        assert_eq!(parse("# nothing\n").unwrap(), []);
    }

    #[test]
    fn what_no_option_can_be_is_refused_with_its_key() {
        let cases = [
            ("- a\n", "it is not a list of keys with their values"),
            ("a: {b: c}\n", "a: a value is a word or a list of words"),
            ("a: [[b]]\n", "a: a value is a word or a list of words"),
            ("a:\n", "a: it has no value"),
            ("a: ['b,c']\n", "a: \"b,c\" has a comma in it"),
        ];
        for (text, problem) in cases {
            assert_eq!(parse(text).unwrap_err(), problem);
        }
    }

    #[test]
    fn the_command_line_has_the_last_word() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("values.yaml");
        std::fs::write(&path, "a: 1\nb: 2\n").unwrap();
        assert_eq!(read(&path, &[pair("a", "9")]).unwrap(), [pair("b", "2")]);
        let error = read(&dir.path().join("gone"), &[]).unwrap_err();
        assert!(error.message.starts_with("cannot take options from "), "{error:?}");
    }
}
