use std::process::ExitCode;

use tracing_subscriber::EnvFilter;

use crate::cli::CommandError;

/// Run the datastore: etcd's API on dqlite
#[derive(clap::Args, Debug)]
pub struct Arguments {
    #[command(flatten)]
    options: skiff_datastore::Options,
}

pub(super) async fn run(arguments: Arguments) -> Result<ExitCode, CommandError> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().json().with_env_filter(filter).with_writer(std::io::stderr).init();
    skiff_datastore::run(arguments.options).await?;
    Ok(ExitCode::SUCCESS)
}
