use std::process::ExitCode;

use super::{Outcome, kubectl};
use crate::cli::Session;

/// Let new pods come to a node again, after cordon or drain
///
/// Pods that were moved away do not come back by themselves; new ones may. Saying
/// it twice does no harm.
///
///   skiff uncordon beta
#[derive(clap::Args, Debug)]
#[command(verbatim_doc_comment)]
pub struct Arguments {
    /// Node, as `skiff nodes` lists them
    #[arg(value_name = "NODE")]
    node: String,
}

pub(super) async fn run(arguments: Arguments, session: &Session) -> Outcome {
    kubectl::on_node(session, "uncordon", &arguments.node, &[]).await?;
    Ok(ExitCode::SUCCESS)
}
