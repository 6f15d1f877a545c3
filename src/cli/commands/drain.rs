use std::process::ExitCode;

use super::{Outcome, kubectl};
use crate::cli::{Session, interrupt, span};

/// Move all pods away from a node, before it is switched off or changed
///
/// The node is cordoned, and its pods are evicted: each has its grace period, and
/// budgets (PodDisruptionBudget) are respected. Whoever owns a pod makes another
/// one elsewhere. Pods of DaemonSets stay: they belong to the node.
///
/// What pods keep in emptyDir volumes is lost with them, unless --keep-emptydir
/// is given: then a node with such pods is not drained. Pods that nobody would
/// make anew are moved with --force only, and then they are gone.
///
/// A drain that failed or was interrupted leaves the node cordoned, and may be
/// said again. `skiff uncordon` puts the node back into service.
///
///   skiff drain beta
///   skiff drain beta --timeout 30m
#[derive(clap::Args, Debug)]
#[command(verbatim_doc_comment)]
pub struct Arguments {
    /// Node, as `skiff nodes` lists them
    #[arg(value_name = "NODE")]
    node: String,

    /// Time until it is given up: 90s, 5m, 2h; 0 waits as long as it takes
    #[arg(long, default_value = "5m", value_parser = span::seconds, value_name = "TIME")]
    timeout: u64,

    /// Also pods that nobody makes anew
    #[arg(long)]
    force: bool,

    /// Leave the node alone when one of its pods has an emptyDir volume
    #[arg(long)]
    keep_emptydir: bool,
}

pub(super) async fn run(arguments: Arguments, session: &Session) -> Outcome {
    let node = &arguments.node;
    let options = options(&arguments);
    let work = kubectl::on_node(session, "drain", node, &options);
    let stays = format!("{node} may be cordoned, and some of its pods moved");
    interrupt::or_leave(work, &stays, &format!("skiff uncordon {node}")).await?;
    Ok(ExitCode::SUCCESS)
}

fn options(arguments: &Arguments) -> Vec<String> {
    vec![
        // One that is moved away would be back on the node before it is gone.
        "--ignore-daemonsets".into(),
        // Addons of ours have such volumes, and who drains expects pods to go.
        format!("--delete-emptydir-data={}", !arguments.keep_emptydir),
        format!("--force={}", arguments.force),
        format!("--timeout={}s", arguments.timeout),
    ]
}
