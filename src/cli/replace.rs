//! Handing a running node over to another build, and back when that one does not become ready.
//!
//! skiffd leaves its daemons running when it is told to detach; the skiffd of the other build
//! adopts them and restarts those whose specification differs. Pods belong to no daemon, so they
//! go on throughout.

use std::time::Duration;

use super::ready::{self, Unready, Wait};
use super::skiffd::Skiffd;
use super::{CommandError, Session, launch, progress, ui};
use crate::distribution::{BuildId, Distribution, current, select, stage};

/// How long a skiffd that was told to leave may take.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(30);

/// The build at hand when it is another one than the node runs; it is staged then.
pub fn other_build(session: &Session, running: &str) -> Result<Option<BuildId>, CommandError> {
    // A node can be looked after without a distribution at hand.
    let Ok(distribution) = Distribution::find() else { return Ok(None) };
    let staged = current(&session.paths.builds());
    if staged.is_some_and(|(_, dir)| dir == distribution.dir()) {
        return Ok(None);
    }
    let (id, _) = stage(&distribution, &session.paths.builds())?;
    Ok((id.to_string() != running).then_some(id))
}

/// Makes the node run `new`. On failure it runs the former build again, and the error says why.
pub async fn replace(session: &Session, new: BuildId, wait: Wait) -> Result<(), CommandError> {
    let former = current(&session.paths.builds()).map(|(id, _)| id);
    let was = former.as_ref().map_or("unknown".into(), ToString::to_string);
    ui::say(&format!("handing the node over from build {was} to {new}; pods go on"));
    let error = match hand_over(session, &new, wait).await {
        Ok(()) => return Ok(()),
        Err(Unready::Interrupted) => return Err(Unready::Interrupted.into()),
        Err(Unready::Failed(error)) => error,
    };
    let Some(former) = former else { return Err(error) };
    ui::say(&format!("build {new} does not become ready: {}", error.message));
    ui::say(&format!("going back to build {former}"));
    hand_over(session, &former, wait).await?;
    let mut answer = CommandError::new(format!("build {new} did not become ready"))
        .cause(&error.message)
        .hint("skiff logs, from before the node went back");
    answer.causes.extend(error.causes);
    Err(answer.cause(format!("the node runs build {former} again and is ready")))
}

async fn hand_over(session: &Session, to: &BuildId, wait: Wait) -> Result<(), Unready> {
    leave(session).await.map_err(Unready::Failed)?;
    select(&session.paths.builds(), to).map_err(|e| Unready::Failed(e.into()))?;
    launch::launch(session).await.map_err(Unready::Failed)?;
    ready::wait(session, wait).await.map(|_| ())
}

/// Makes skiffd leave and everything else stay.
async fn leave(session: &Session) -> Result<(), CommandError> {
    let skiffd = Skiffd::of(&session.paths);
    if session.running().await?.is_some() {
        progress::follow(&session.client(), "/v1/detach", &()).await?;
    }
    let ended = match skiffd {
        Some(skiffd) => skiffd.ended(LEAVE_TIMEOUT).await,
        None => true,
    };
    if ended {
        return Ok(());
    }
    let bound = LEAVE_TIMEOUT.as_secs();
    Err(CommandError::new(format!("skiffd did not leave within {bound} s"))
        .hint("skiff logs skiffd"))
}
