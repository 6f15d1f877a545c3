//! Putting a cluster, a user and a context into a kubeconfig that already has others.

use std::fs;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
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
        Ok(text) => {
            serde_yaml::from_str(&text).map_err(|e| failed("read", &e).hint(ANOTHER_FILE))?
        }
        Err(error) if error.kind() == ErrorKind::NotFound => json!({}),
        Err(error) => return Err(failed("read", &error)),
    };
    let list = |name: &str| matches!(there.get(name), None | Some(Value::Null | Value::Array(_)));
    if !there.is_object() || !LISTS.iter().all(|name| list(name)) {
        let message = format!("{} is not a kubeconfig", file.display());
        return Err(CommandError::new(message).cause("it was left as it is").hint(ANOTHER_FILE));
    }
    let merged = merge(there.clone(), &serde_yaml::from_str(text)?, context);
    let former = fs::metadata(&file).ok();
    if merged == there && former.as_ref().is_some_and(|data| data.mode() & 0o777 == MODE) {
        return Ok(());
    }
    let dir = match file.parent() {
        Some(dir) if dir != Path::new("") => dir,
        _ => Path::new("."),
    };
    fs::create_dir_all(dir).map_err(|e| failed("make the directory of", &e))?;
    let mut fresh = tempfile::NamedTempFile::new_in(dir).map_err(|e| failed("write", &e))?;
    fresh
        .write_all(serde_yaml::to_string(&merged)?.as_bytes())
        .and_then(|()| fresh.as_file().set_permissions(fs::Permissions::from_mode(MODE)))
        .map_err(|e| failed("write", &e))?;
    if let Some(former) = former {
        // With sudo it is the file of somebody else, who must be able to read it afterwards.
        fchown(fresh.as_file(), Some(former.uid()), Some(former.gid()))
            .map_err(|e| failed("keep the owner of", &e))?;
    }
    fresh.persist(&file).map_err(|e| failed("write", &e))?;
    Ok(())
}

/// What a kubeconfig is made of.
const LISTS: [&str; 3] = ["clusters", "users", "contexts"];
/// What to type when a file is none.
const ANOTHER_FILE: &str = "repair or move that file, or skiff kubeconfig --merge --file FILE …";
/// Keys are within.
const MODE: u32 = 0o600;

/// The first cluster and user of `new`, named after the context, in `there`; entries of the same
/// names are replaced, everything else stays. The context becomes the current one.
fn merge(mut there: Value, new: &Value, context: &str) -> Value {
    let part = |pointer: &str| new.pointer(pointer).cloned().unwrap_or(Value::Null);
    let user = format!("{context}-{}", part("/users/0/name").as_str().unwrap_or("user"));
    let entries = [
        json!({ "name": context, "cluster": part("/clusters/0/cluster") }),
        json!({ "name": user, "user": part("/users/0/user") }),
        json!({ "name": context, "context": { "cluster": context, "user": user } }),
    ];
    for (list, entry) in LISTS.into_iter().zip(entries) {
        let mut all: Vec<Value> = there[list].as_array().cloned().unwrap_or_default();
        match all.iter_mut().find(|old| old["name"] == entry["name"]) {
            Some(old) => *old = entry,
            None => all.push(entry),
        }
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
        assert_eq!(value["clusters"][0]["cluster"]["server"], "https://m:6443");
        assert_eq!(value["clusters"][1]["name"], "other");
        assert_eq!(value["clusters"].as_array().unwrap().len(), 2);
        assert_eq!(value["preferences"]["colors"], true);
        assert_eq!(value["current-context"], "boat");
        assert_eq!(mode(&file), 0o600);
    }

    #[test]
    fn merging_the_same_again_does_not_write() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config");
        merge_into(&file, NEW, "boat").unwrap();
        let before = (fs::metadata(&file).unwrap().ino(), fs::read(&file).unwrap());
        merge_into(&file, NEW, "boat").unwrap();
        assert_eq!((fs::metadata(&file).unwrap().ino(), fs::read(&file).unwrap()), before);
    }

    #[test]
    fn a_file_that_everybody_could_read_is_closed() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config");
        merge_into(&file, NEW, "boat").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
        merge_into(&file, NEW, "boat").unwrap();
        assert_eq!(mode(&file), 0o600);
    }

    #[test]
    fn a_link_stays_and_what_is_behind_it_changes() {
        let dir = tempfile::tempdir().unwrap();
        let (file, link) = (dir.path().join("real"), dir.path().join("link"));
        fs::write(&file, "").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        merge_into(&link, NEW, "boat").unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert!(fs::read_to_string(&file).unwrap().contains("boat"));
    }

    /// `sudo skiff kubeconfig --merge`: the file stays its user's.
    #[test]
    fn the_owner_of_a_file_stays() {
        if !nix::unistd::Uid::effective().is_root() {
            println!("skipped: only root may give a file away");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config");
        fs::write(&file, "").unwrap();
        std::os::unix::fs::chown(&file, Some(65534), Some(65534)).unwrap();
        merge_into(&file, NEW, "boat").unwrap();
        let data = fs::metadata(&file).unwrap();
        assert_eq!((data.uid(), data.gid()), (65534, 65534));
    }

    fn mode(file: &Path) -> u32 {
        fs::metadata(file).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_file_that_is_something_else_is_not_touched() {
        let broken = ["just words", "a: [", "- a", "clusters: {a: b}", "users: words", "\t- :"];
        for text in broken {
            let dir = tempfile::tempdir().unwrap();
            let file = dir.path().join("config");
            fs::write(&file, text).unwrap();
            let error = merge_into(&file, NEW, "boat").unwrap_err();
            assert!(error.message.contains("config"), "{text:?}: {error:?}");
            assert_eq!(fs::read_to_string(&file).unwrap(), text);
            assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "something was left");
        }
    }
}
