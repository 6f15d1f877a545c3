use std::process::ExitCode;

use super::Outcome;

/// Run the datastore: etcd's API on dqlite
#[derive(clap::Args, Debug)]
#[command(verbatim_doc_comment)]
pub struct Arguments {
    #[command(flatten)]
    options: skiff_datastore::Options,
}

pub(super) async fn run(arguments: Arguments) -> Outcome {
    super::write_log();
    skiff_datastore::run(arguments.options).await?;
    Ok(ExitCode::SUCCESS)
}
