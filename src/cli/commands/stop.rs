use std::process::ExitCode;

use skiff_api::ClientError;

use super::progress;
use crate::cli::{CommandError, Session};

/// Stop the node and everything that runs on it
///
/// Pods get their grace period, at most 30 s; then the daemons end, and nothing stays behind but
/// the node's state on disk. `skiff start` brings everything back.
#[derive(clap::Args, Debug)]
pub struct Arguments {}

pub(super) async fn run(_: Arguments, session: &Session) -> Result<ExitCode, CommandError> {
    match progress::follow(&session.client(), "/v1/stop", &()).await {
        Ok(message) => eprintln!("{message}"),
        Err(_) if stopped(session).await => eprintln!("the node is stopped"),
        Err(error) => return Err(error),
    }
    Ok(ExitCode::SUCCESS)
}

async fn stopped(session: &Session) -> bool {
    let answer = session.client().get::<skiff_api::Version>("/v1/version").await;
    matches!(answer, Err(ClientError::NotRunning(_)))
}
