use std::ffi::OsString;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use serde_json::json;

use crate::cli::{CommandError, Session};
use crate::distribution::{Distribution, current};
use crate::node::admin_group;

/// Run kubectl against this node, as its administrator
///
/// Everything after `kubectl` is kubectl's own. Root and members of the group skiff may use it;
/// nobody else's credentials are touched, and none are stored: a certificate that lives an hour
/// is fetched when it is needed.
#[derive(clap::Args, Debug)]
#[command(disable_help_flag = true)]
pub struct Arguments {
    /// Arguments of kubectl
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGS")]
    args: Vec<OsString>,
}

pub(super) fn run(arguments: Arguments, session: &Session) -> Result<ExitCode, CommandError> {
    let kube = program(session, "kube")?;
    let mut command = Command::new(kube);
    command.arg("kubectl").args(arguments.args);
    let file = kubeconfig(session)?;
    command.env("KUBECONFIG", &file);
    // Only comes back when the program cannot be executed.
    Err(command.exec().into())
}

/// A program of the build that runs, or of the distribution at hand when none is staged.
pub fn program(session: &Session, name: &str) -> Result<PathBuf, CommandError> {
    match current(&session.paths.builds()) {
        Some((_, build)) => Ok(build.join("bin").join(name)),
        None => Ok(Distribution::find()?.bin(name)),
    }
}

/// A kubeconfig without secrets: it says whom to ask for a certificate.
fn kubeconfig(session: &Session) -> Result<PathBuf, CommandError> {
    let authority = session.paths.pki().join("ca.crt");
    if !authority.is_file() {
        return Err(CommandError::new("the node was never started").hint("skiff start"));
    }
    let skiff = std::env::current_exe()?;
    let root = session.paths.root();
    let port = fs::read_to_string(session.paths.api_port_file()).unwrap_or_default();
    let port = port.trim().parse::<u16>().unwrap_or(6443);
    let value = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "skiff",
        "clusters": [{ "name": "skiff", "cluster": {
            "server": format!("https://127.0.0.1:{port}"),
            "certificate-authority": authority,
        }}],
        "users": [{ "name": "admin", "user": { "exec": {
            "apiVersion": "client.authentication.k8s.io/v1",
            "command": skiff,
            "args": ["credential", "--root", root, "--user", "admin", "--group", admin_group()],
            "interactiveMode": "Never",
        }}}],
        "contexts": [{ "name": "skiff", "context": { "cluster": "skiff", "user": "admin" } }],
    });
    let dir = match std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from) {
        Some(dir) if dir.is_dir() => dir,
        _ => std::env::temp_dir(),
    };
    let uid = nix::unistd::Uid::effective();
    let path = dir.join(format!("{}-kubectl-{uid}.kubeconfig", session.paths.instance()));
    let text = serde_json::to_string_pretty(&value)?;
    if !fs::read_to_string(&path).is_ok_and(|old| old == text) {
        let fresh = tempfile::NamedTempFile::new_in(&dir)?;
        fs::write(fresh.path(), text)?;
        fresh.persist(&path)?;
    }
    Ok(path)
}
