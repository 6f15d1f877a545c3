use std::ffi::OsString;
use std::process::Command;

use super::Outcome;
use super::kubectl::{execute, program};
use crate::cli::{CommandError, Session};
use crate::node::account;

/// Run ctr, containerd's own tool, in the namespace of Kubernetes
///
/// Everything after `ctr` is ctr's own. Needs root, and a node that runs.
///
///   sudo skiff ctr images list
///   sudo skiff ctr images import app.tar
#[derive(clap::Args, Debug)]
#[command(verbatim_doc_comment, disable_help_flag = true)]
pub struct Arguments {
    /// Arguments of ctr
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGUMENT")]
    arguments: Vec<OsString>,
}

pub(super) fn run(_: Arguments, session: &Session) -> Outcome {
    if !account::is_root() {
        return Err(CommandError::new("containerd answers to root only").hint("sudo skiff ctr …"));
    }
    let socket = session.paths.containerd_socket();
    if !socket.exists() {
        return Err(CommandError::new("containerd does not run: the node is stopped")
            .hint("sudo skiff start"));
    }
    let mut command = Command::new(program(session, "ctr")?);
    command.arg("--address").arg(socket);
    command.args(["--namespace", "k8s.io"]).args(&session.rest);
    execute(command)
}
