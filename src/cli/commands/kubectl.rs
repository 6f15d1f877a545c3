use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use super::Outcome;
use crate::cli::kubeconfig_file::{self, is_given};
use crate::cli::{CommandError, Session};
use crate::distribution::{Distribution, current};

/// Run kubectl against this node, as its administrator
///
/// Everything after `kubectl` is kubectl's own. Root and members of the group
/// skiff may use it: no key is stored for it, a certificate that lives an hour
/// is fetched when it is needed. With --kubeconfig among kubectl's arguments it
/// talks to whatever that file names.
///
///   skiff kubectl get pods --all-namespaces
///   skiff kubectl apply --filename app.yaml
#[derive(clap::Args, Debug)]
#[command(verbatim_doc_comment, disable_help_flag = true)]
pub struct Arguments {
    /// Arguments of kubectl
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGUMENT")]
    arguments: Vec<OsString>,
}

pub(super) fn run(_: Arguments, session: &Session) -> Outcome {
    let kubeconfig = match is_given(&session.rest) {
        true => None,
        false => Some(kubeconfig_file::ensure(session)?),
    };
    let mut command = Command::new(program(session, "kube")?);
    command.arg("kubectl").args(&session.rest);
    if let Some(path) = kubeconfig {
        command.env("KUBECONFIG", path);
    }
    execute(command)
}

/// A program of the build that runs, or of the distribution at hand when none is staged.
pub fn program(session: &Session, name: &str) -> Result<PathBuf, CommandError> {
    match current(&session.paths.builds()) {
        Some((_, build)) => Ok(build.join("bin").join(name)),
        None => Ok(Distribution::find()?.bin(name)),
    }
}

/// Becomes another program; only comes back when that cannot be executed.
pub fn execute(mut command: Command) -> Outcome {
    let error = command.exec();
    let program = command.get_program().to_string_lossy().into_owned();
    Err(CommandError::because(format!("cannot run {program}"), &error).hint("sudo skiff start"))
}
