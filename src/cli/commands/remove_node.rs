use std::process::ExitCode;

use skiff_api::{RemoveRequest, Removed};

use super::Outcome;
use crate::cli::{Session, ui};

/// Remove a node from the cluster, also one that no longer exists
///
/// From then on its identity is refused, and Kubernetes forgets it: its pods are
/// started elsewhere. A node that answers is removed with --force only: its pods
/// go on running there until it is reset. A control-plane node leaves the datastore
/// first, which refuses when the others would lose their majority. It had the keys
/// of the cluster's authorities: the command says how those are replaced.
#[derive(clap::Args, Debug)]
#[command(verbatim_doc_comment)]
pub struct Arguments {
    /// Node, as `skiff nodes` lists them
    #[arg(value_name = "NODE")]
    node: String,

    /// Remove it although it answers
    #[arg(long)]
    force: bool,
}

const HELD_KEYS: &str = "it had the keys of the cluster's authorities; if the machine is not in your \
     hands any more:\n  skiff certs rotate --authorities";

pub(super) async fn run(arguments: Arguments, session: &Session) -> Outcome {
    let Arguments { node, force } = arguments;
    let path = format!("/v1/cluster/nodes/{node}/remove");
    let removed: Removed = session.client().post(&path, &RemoveRequest { force }).await?;
    ui::say(&format!("{node} is removed"));
    if removed.held_keys {
        ui::say(HELD_KEYS);
    }
    Ok(ExitCode::SUCCESS)
}
