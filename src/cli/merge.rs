//! Putting a cluster, a user and a context into a kubeconfig that already has others.

use std::fs;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::CommandError;

/// Where kubectl would look first.
pub fn default_file() -> Result<PathBuf, CommandError> {
    let listed = std::env::var_os("KUBECONFIG").unwrap_or_default();
    let first = std::env::split_paths(&listed).find(|path| !path.as_os_str().is_empty());
    if let Some(first) = first {
        return Ok(first);
    }
    match std::env::var_os("HOME") {
        Some(home) => Ok(PathBuf::from(home).join(".kube/config")),
        None => Err(CommandError::new("there is no home directory for a kubeconfig")
            .hint("skiff kubeconfig --merge --file FILE")),
    }
}

/// Merges the text of a kubeconfig into a file, replaced as a whole and readable by its owner
/// alone. A link is followed, so that the file behind it is what changes.
pub fn merge_into(file: &Path, text: &str, context: &str) -> Result<(), CommandError> {
    let file = fs::canonicalize(file).unwrap_or_else(|_| file.to_path_buf());
    let failed = |what: &str, error: &dyn std::error::Error| {
        CommandError::because(format!("cannot {what} {}", file.display()), error)
    };
    let there = match fs::read_to_string(&file) {
        Ok(text) if text.trim().is_empty() => json!({}),
        Ok(text) => serde_yaml::from_str(&text).map_err(|e| failed("read", &e))?,
        Err(error) if error.kind() == ErrorKind::NotFound => json!({}),
        Err(error) => return Err(failed("read", &error)),
    };
    if !there.is_object() {
        return Err(CommandError::new(format!("{} is not a kubeconfig", file.display())));
    }
    let merged = merge(there, &serde_yaml::from_str(text)?, context);
    let dir = match file.parent() {
        Some(dir) if dir != Path::new("") => dir,
        _ => Path::new("."),
    };
    fs::create_dir_all(dir).map_err(|e| failed("make the directory of", &e))?;
    let mut fresh = tempfile::NamedTempFile::new_in(dir).map_err(|e| failed("write", &e))?;
    fresh
        .write_all(serde_yaml::to_string(&merged)?.as_bytes())
        .and_then(|()| fresh.as_file().set_permissions(fs::Permissions::from_mode(0o600)))
        .map_err(|e| failed("write", &e))?;
    fresh.persist(&file).map_err(|e| failed("write", &e))?;
    Ok(())
}

/// The first cluster and user of `new`, named after the context, in `there`; entries of the same
/// names are replaced, everything else stays. The context becomes the current one.
fn merge(mut there: Value, new: &Value, context: &str) -> Value {
    let part = |pointer: &str| new.pointer(pointer).cloned().unwrap_or(Value::Null);
    let user = format!("{context}-{}", part("/users/0/name").as_str().unwrap_or("user"));
    let entries = [
        ("clusters", json!({ "name": context, "cluster": part("/clusters/0/cluster") })),
        ("users", json!({ "name": user, "user": part("/users/0/user") })),
        ("contexts", json!({ "name": context, "context": { "cluster": context, "user": user } })),
    ];
    for (list, entry) in entries {
        let mut all: Vec<Value> = there[list].as_array().cloned().unwrap_or_default();
        all.retain(|old| old["name"] != entry["name"]);
        all.push(entry);
        there[list] = Value::Array(all);
    }
    there["apiVersion"] = json!("v1");
    there["kind"] = json!("Config");
    there["current-context"] = json!(context);
    there
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEW: &str = "clusters: [{name: skiff, cluster: {server: 'https://n:6443'}}]\n\
                       users: [{name: ann, user: {client-key-data: aw==}}]\n";

    #[test]
    fn other_entries_stay_and_our_own_are_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("sub/config");
        merge_into(&file, NEW, "boat").unwrap();
        let mut value: Value = serde_yaml::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
        assert_eq!(value["contexts"][0]["context"]["user"], "boat-ann");
        value["clusters"].as_array_mut().unwrap().push(json!({ "name": "other", "cluster": {} }));
        value["preferences"] = json!({ "colors": true });
        fs::write(&file, serde_yaml::to_string(&value).unwrap()).unwrap();

        merge_into(&file, &NEW.replace("n:6443", "m:6443"), "boat").unwrap();
        let value: Value = serde_yaml::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
        assert_eq!(value["clusters"][0]["name"], "other");
        assert_eq!(value["clusters"][1]["cluster"]["server"], "https://m:6443");
        assert_eq!(value["clusters"].as_array().unwrap().len(), 2);
        assert_eq!(value["preferences"]["colors"], true);
        assert_eq!(value["current-context"], "boat");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_file_that_is_something_else_is_not_touched() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config");
        fs::write(&file, "just words").unwrap();
        assert!(merge_into(&file, NEW, "boat").is_err());
        assert_eq!(fs::read_to_string(&file).unwrap(), "just words");
    }
}
