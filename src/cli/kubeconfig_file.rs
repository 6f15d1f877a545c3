//! The kubeconfig of `skiff kubectl`: it holds no secret, it says whom to ask for a certificate.
//!
//! It lies in a directory that is the user's own, never in a shared one: whoever can write it
//! chooses which program kubectl runs. What the user changes in it with `kubectl config` (a
//! namespace, another context) stays, as long as cluster and user are what they must be.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::{CommandError, Session};
use crate::distribution::current;
use crate::node::{account, admin_group};

/// Whether kubectl is told which file to use.
pub fn is_given(arguments: &[OsString]) -> bool {
    arguments
        .iter()
        .map(|argument| argument.to_string_lossy())
        .take_while(|argument| argument != "--")
        .any(|argument| argument == "--kubeconfig" || argument.starts_with("--kubeconfig="))
}

/// Makes the file what it must be and answers its path.
pub fn ensure(session: &Session) -> Result<PathBuf, CommandError> {
    let authority = session.paths.pki().join("ca.crt");
    if !authority.is_file() {
        return Err(CommandError::new("this node was never started").hint("sudo skiff start"));
    }
    let wanted = content(session, &authority)?;
    let dir = own_dir(session)?;
    let path = dir.join(format!("{}.kubeconfig", session.paths.instance()));
    let there = fs::read(&path).ok();
    let there = there.and_then(|text| serde_yaml::from_slice::<Value>(&text).ok());
    if there.is_none_or(|there| !serves(&there, &wanted)) {
        let failed = |e: &dyn std::error::Error| {
            CommandError::because(format!("cannot write {}", path.display()), e)
        };
        let fresh = tempfile::NamedTempFile::new_in(&dir).map_err(|e| failed(&e))?;
        fs::write(fresh.path(), serde_json::to_vec_pretty(&wanted)?).map_err(|e| failed(&e))?;
        fresh.persist(&path).map_err(|e| failed(&e))?;
    }
    Ok(path)
}

fn content(session: &Session, authority: &Path) -> Result<Value, CommandError> {
    let port = fs::read_to_string(session.paths.api_port_file()).unwrap_or_default();
    let port = port.trim().parse::<u16>().unwrap_or(6443);
    // The link follows an upgrade; the program that runs now may be gone then.
    let staged = session.paths.builds().join("current/bin/skiff");
    let program = match current(&session.paths.builds()) {
        Some(_) => staged,
        None => std::env::current_exe()?,
    };
    Ok(json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{ "name": "skiff", "cluster": {
            "server": format!("https://127.0.0.1:{port}"),
            "certificate-authority": authority,
        }}],
        "users": [{ "name": "admin", "user": { "exec": {
            "apiVersion": "client.authentication.k8s.io/v1",
            "command": program,
            "args": [
                "credential", "--root", session.paths.root(),
                "--user", "admin", "--group", admin_group(),
            ],
            "interactiveMode": "Never",
        }}}],
        "contexts": [{ "name": "skiff", "context": { "cluster": "skiff", "user": "admin" } }],
        "current-context": "skiff",
    }))
}

/// Whether cluster and user of a file are ours; its contexts are the user's business.
fn serves(there: &Value, wanted: &Value) -> bool {
    let fields = [
        "/clusters/0/name",
        "/clusters/0/cluster/server",
        "/clusters/0/cluster/certificate-authority",
        "/users/0/name",
        "/users/0/user/exec/command",
        "/users/0/user/exec/args",
    ];
    fields.iter().all(|field| there.pointer(field) == wanted.pointer(field))
        && there.pointer("/current-context").is_some_and(|name| name != "")
}

/// A directory that nobody else may write.
fn own_dir(session: &Session) -> Result<PathBuf, CommandError> {
    if account::is_root() {
        return Ok(session.paths.run());
    }
    let uid = nix::unistd::Uid::effective().as_raw();
    let mine = |path: &PathBuf| fs::metadata(path).is_ok_and(|data| data.uid() == uid);
    if let Some(dir) = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(mine) {
        return Ok(dir);
    }
    let home = std::env::var_os("HOME").map(PathBuf::from).filter(mine).ok_or_else(|| {
        CommandError::new("no directory of your own for a kubeconfig")
            .cause("neither XDG_RUNTIME_DIR nor HOME is a directory that you own")
            .hint("export HOME, or sudo skiff kubectl …")
    })?;
    let dir = home.join(".cache/skiff");
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&dir)
        .map_err(|e| CommandError::because(format!("cannot make {}", dir.display()), &e))?;
    Ok(dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kubeconfig_among_the_arguments_is_noticed() {
        let given = |line: &str| is_given(&line.split(' ').map(Into::into).collect::<Vec<_>>());
        assert!(given("get pods --kubeconfig a"));
        assert!(given("--kubeconfig=a get pods"));
        assert!(!given("exec p -- tool --kubeconfig a"));
        assert!(!given("get pods"));
    }

    #[test]
    fn what_the_user_set_in_contexts_is_kept_and_a_strange_program_is_not() {
        let wanted = json!({
            "clusters": [{ "name": "skiff", "cluster": { "server": "s", "certificate-authority": "a" }}],
            "users": [{ "name": "admin", "user": { "exec": { "command": "c", "args": ["x"] }}}],
            "current-context": "skiff",
        });
        let mut there = wanted.clone();
        there["contexts"] = json!([{ "name": "mine", "context": { "namespace": "n" }}]);
        there["users"][0]["user"]["exec"]["env"] = Value::Null;
        assert!(serves(&there, &wanted));
        there["users"][0]["user"]["exec"]["command"] = json!("/tmp/evil");
        assert!(!serves(&there, &wanted));
        assert!(!serves(&json!(null), &wanted));
    }
}
