use std::process::ExitCode;

use tracing_subscriber::EnvFilter;

use crate::cli::{CommandError, Session};
use crate::node;

/// Run the node daemon in the foreground
#[derive(clap::Args, Debug)]
pub struct Arguments {}

pub(super) async fn run(_: Arguments, session: &Session) -> Result<ExitCode, CommandError> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().json().with_env_filter(filter).with_writer(std::io::stderr).init();
    let options = node::Options { paths: session.paths.clone(), config: session.config.clone() };
    node::run(options).await?;
    Ok(ExitCode::SUCCESS)
}
