use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use super::kubectl::program;
use crate::cli::{CommandError, Session};

/// Run ctr, containerd's own tool, in the namespace of Kubernetes
#[derive(clap::Args, Debug)]
#[command(disable_help_flag = true)]
pub struct Arguments {
    /// Arguments of ctr
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGS")]
    args: Vec<OsString>,
}

pub(super) fn run(arguments: Arguments, session: &Session) -> Result<ExitCode, CommandError> {
    let mut command = Command::new(program(session, "ctr")?);
    command.arg("--address").arg(session.paths.containerd_socket());
    command.args(["--namespace", "k8s.io"]).args(arguments.args);
    // Only comes back when the program cannot be executed.
    Err(command.exec().into())
}
