use std::process::ExitCode;

use super::{Outcome, kubectl};
use crate::cli::Session;

/// Keep new pods away from a node; those that run there stay
///
/// The same as `skiff kubectl cordon`, with an error that says what to do. Saying
/// it twice does no harm; `skiff uncordon` takes it back.
///
///   skiff cordon beta
#[derive(clap::Args, Debug)]
#[command(verbatim_doc_comment)]
pub struct Arguments {
    /// Node, as `skiff nodes` lists them
    #[arg(value_name = "NODE")]
    node: String,
}

pub(super) async fn run(arguments: Arguments, session: &Session) -> Outcome {
    kubectl::on_node(session, "cordon", &arguments.node, &[]).await?;
    Ok(ExitCode::SUCCESS)
}
