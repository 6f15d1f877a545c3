use std::process::ExitCode;

use microcluster::agent::{Agent, Options};
use tokio::signal::unix::{SignalKind, signal};

use super::Outcome;

#[derive(clap::Args, Debug)]
#[command(verbatim_doc_comment)]
pub struct Arguments {
    #[command(flatten)]
    options: Options,
}

pub(super) async fn run(arguments: Arguments) -> Outcome {
    super::write_log();
    let mut terminate = signal(SignalKind::terminate())?;
    let agent = Agent::bind(arguments.options).await?;
    agent.run(async move { terminate.recv().await.unwrap_or_default() }).await;
    Ok(ExitCode::SUCCESS)
}
