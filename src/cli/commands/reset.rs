use std::process::ExitCode;

use super::Outcome;
use super::stop::order;
use crate::cli::confirm::{Loss, confirm};
use crate::cli::skiffd::Skiffd;
use crate::cli::{CommandError, Session, interrupt, launch, ui};
use crate::node::{account, reset_stopped};

/// Return the node to factory: stop it and remove all of its state
///
/// Every object, image, volume, log and key of this node is lost, in seconds.
/// A node of a cluster leaves that first, when it can be reached; where the other
/// control-plane nodes would lose their majority, nothing is done without --force.
/// The configuration that you wrote stays. On a terminal it asks; elsewhere it
/// needs --yes.
#[derive(clap::Args, Debug)]
#[command(verbatim_doc_comment)]
pub struct Arguments {
    /// Do not ask
    #[arg(long)]
    yes: bool,

    /// Reset although the cluster cannot do without this node
    #[arg(long)]
    force: bool,
}

const LOSS: Loss<'_> =
    Loss { word: "reset", reason: "reset loses everything", otherwise: "sudo skiff reset --yes" };

pub(super) async fn run(arguments: Arguments, session: &Session) -> Outcome {
    if !arguments.yes {
        let root = session.paths.root().display();
        confirm(LOSS, &[&format!("everything below {root} will be lost")])?;
    }
    if !account::is_root() {
        return Err(CommandError::new("resetting a node needs root").hint("sudo skiff reset"));
    }
    let _at_work = match super::join::depart(session).await {
        Err(error) if !arguments.force => return Err(error),
        Err(error) => {
            ui::say(&format!("the cluster was not told: {}", error.message));
            None
        }
        Ok(leaver) => leaver,
    };
    wipe(session, "sudo skiff reset --yes").await?;
    ui::say("the node is as new");
    Ok(ExitCode::SUCCESS)
}

/// Stops the node and removes everything of it; `again` is what to type when that is cut off.
pub(super) async fn wipe(session: &Session, again: &str) -> Result<(), CommandError> {
    let skiffd = Skiffd::of(&session.paths);
    if session.running().await?.is_some() {
        let work = order(session, "/v1/reset", skiffd);
        let goes_on = "skiffd goes on removing the node's state";
        // What is left for this command to do is done by the next one.
        interrupt::or_leave(work, goes_on, again).await?;
    } else {
        reset_stopped(&session.paths).await?;
    }
    launch::remove_unit(session)
}
