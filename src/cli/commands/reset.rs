use std::io::{self, BufRead, IsTerminal};
use std::process::ExitCode;

use skiff_api::ClientError;

use super::progress;
use crate::cli::{CommandError, Session};
use crate::node::{account, reset_stopped};

/// Return the node to factory: stop it and remove all of its state
///
/// Every object, image, volume and key of this node is lost. The configuration that you wrote
/// stays.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

/// What a person types to mean it.
const WORD: &str = "reset";

pub(super) async fn run(
    arguments: Arguments,
    session: &Session,
) -> Result<ExitCode, CommandError> {
    if !account::is_root() {
        return Err(CommandError::new("resetting a node needs root").hint("sudo skiff reset"));
    }
    if !arguments.yes {
        confirm(session)?;
    }
    match progress::follow(&session.client(), "/v1/reset", &()).await {
        Ok(message) => eprintln!("{message}"),
        Err(error) => match session.client().get::<skiff_api::Version>("/v1/version").await {
            Err(ClientError::NotRunning(_)) => {
                reset_stopped(&session.paths).await?;
                eprintln!("the node is as new");
            }
            _ => return Err(error),
        },
    }
    Ok(ExitCode::SUCCESS)
}

fn confirm(session: &Session) -> Result<(), CommandError> {
    if !io::stdin().is_terminal() {
        return Err(CommandError::new("reset loses everything and nobody is here to confirm it")
            .hint("skiff reset --yes"));
    }
    eprintln!("everything below {} will be lost", session.paths.root().display());
    eprintln!("type {WORD:?} to go on:");
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line)?;
    if line.trim() == WORD { Ok(()) } else { Err(CommandError::new("nothing was done")) }
}
