use std::process::ExitCode;
use std::time::Duration;

use super::Outcome;
use crate::cli::skiffd::Skiffd;
use crate::cli::{CommandError, Session, interrupt, progress, span, ui};

/// Stop the node and everything that runs on it
///
/// Pods get their grace period, at most 30 s; then the daemons end. Nothing
/// stays but the node's state on disk: `skiff start` brings every object and
/// every address back. A node that systemd starts at boot comes back at the
/// next boot.
///
/// Stopping a stopped node does nothing.
#[derive(clap::Args, Debug)]
#[command(verbatim_doc_comment)]
pub struct Arguments {
    /// Seconds to wait until everything has ended; 0 waits as long as it takes
    #[arg(long, default_value = "120", value_parser = span::seconds, value_name = "SECONDS")]
    timeout: u64,
}

/// skiffd ends right after it said that the node is stopped.
const EXIT_TIMEOUT: Duration = Duration::from_secs(10);

pub(super) async fn run(arguments: Arguments, session: &Session) -> Outcome {
    let skiffd = Skiffd::of(&session.paths);
    if session.running().await?.is_none() {
        ui::say("the node is stopped");
        return Ok(ExitCode::SUCCESS);
    }
    let stop = bounded(arguments.timeout, order(session, "/v1/stop", skiffd));
    let goes_on = "skiffd goes on stopping the node";
    let message = interrupt::or_leave(stop, goes_on, "skiff status").await?;
    ui::say(&message);
    Ok(ExitCode::SUCCESS)
}

/// Gives skiffd an order after which it ends, and waits until it has.
pub async fn order(
    session: &Session,
    path: &str,
    skiffd: Option<Skiffd>,
) -> Result<String, CommandError> {
    let outcome = progress::follow(&session.client(), path, &()).await;
    let ended = match skiffd {
        Some(skiffd) => skiffd.ended(EXIT_TIMEOUT).await,
        None => true,
    };
    match outcome {
        Ok(_) if !ended => {
            let bound = EXIT_TIMEOUT.as_secs();
            Err(CommandError::new(format!("skiffd has not ended {bound} s after its last word"))
                .hint("skiff logs skiffd"))
        }
        outcome => outcome,
    }
}

async fn bounded(
    timeout_s: u64,
    work: impl Future<Output = Result<String, CommandError>>,
) -> Result<String, CommandError> {
    if timeout_s == 0 {
        return work.await;
    }
    match tokio::time::timeout(Duration::from_secs(timeout_s), work).await {
        Ok(outcome) => outcome,
        Err(_) => Err(CommandError::new(format!("the node has not stopped within {timeout_s} s"))
            .cause("skiffd goes on stopping it")
            .hint("skiff status")),
    }
}
