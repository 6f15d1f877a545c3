//! Handing a running node over to another build, and back when that one does not become ready.
//!
//! skiffd leaves its daemons running when it is told to detach; the skiffd of the other build
//! adopts them and restarts those whose specification differs. Pods belong to no daemon, so they
//! go on throughout. What the new build wrote stays when the node goes back: a build must be able
//! to read what the next one writes.
//!
//! From the moment at which skiffd is told to leave until another one is started nobody restarts
//! a daemon that dies; a signal does not end the command there.

use std::time::Duration;

use super::interrupt::{self, Interrupt};
use super::ready::{self, Unready, Wait};
use super::skiffd::Skiffd;
use super::{CommandError, Session, launch, progress, ui};
use crate::distribution::{
    BuildId, Distribution, begin_trial, boot, current, end_trial, forget_builds, select, stage,
    staged,
};

/// How long a skiffd that was told to leave may take.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(30);
/// The same for one that did not answer as it should.
const LEAVE_TIMEOUT_DOUBTFUL: Duration = Duration::from_secs(5);
/// A build must stay ready for this long before its hand-over is over: some fail only when they
/// have work.
const PROOF: Duration = Duration::from_secs(10);

/// The build at hand when it is another one than the node runs; it is staged then.
pub fn other_build(session: &Session, running: &str) -> Result<Option<BuildId>, CommandError> {
    // A node can be looked after without a distribution at hand.
    let Ok(distribution) = Distribution::find() else { return Ok(None) };
    let at_hand = match current(&session.paths.builds()) {
        Some((id, dir)) if dir == distribution.dir() => id,
        _ => stage(&distribution, &session.paths.builds())?.0,
    };
    Ok((at_hand.to_string() != running).then_some(at_hand))
}

/// Makes the node run `new` instead of `running`. On failure it runs the former build again, and
/// the error says why.
pub async fn replace(
    session: &Session,
    new: BuildId,
    running: &str,
    wait: Wait,
    interrupt: &mut Interrupt,
) -> Result<(), CommandError> {
    let builds = session.paths.builds();
    // One that does not say what it is was the selected one.
    let former = staged(&builds, running).or_else(|| current(&builds).map(|(id, _)| id));
    let was = if running.is_empty() { "unknown" } else { running };
    ui::say(&format!("handing the node over from build {was} to {new}; pods go on"));
    if let Some(former) = former.as_ref().filter(|former| **former != new) {
        begin_trial(&builds, former, boot()?)?;
    }
    let (failed, error) = match hand_over(session, &new, wait, interrupt).await {
        Ok(()) => {
            end_trial(&builds)?;
            return forget_older(&builds, new, former);
        }
        Err((_, Unready::Interrupted)) => return Err(left_alone(&new, former.as_ref())),
        Err((stage, Unready::Failed(error))) => (stage, error),
    };
    match choose_next(failed, &new, former) {
        Next::Stay => {
            end_trial(&builds)?;
            Err(stayed(&new, was, error))
        }
        Next::GiveUp => Err(error.cause("there is no former build to go back to")),
        Next::GoBack(former) => {
            ui::say(&format!("build {new} does not become ready: {}", error.message));
            ui::say(&format!("going back to build {former}"));
            let back = match hand_over(session, &former, wait, interrupt).await {
                Ok(()) => Ok(end_trial(&builds)?),
                Err((_, unready)) => Err(unready.into()),
            };
            Err(went_back(&new, &former, error, back))
        }
    }
}

/// Keeps the build that was proven and the one before it. Running shims hold what they execute, and
/// call runc by the link to the selected build.
fn forget_older(
    builds: &std::path::Path,
    new: BuildId,
    former: Option<BuildId>,
) -> Result<(), CommandError> {
    let keep: Vec<BuildId> = std::iter::once(new).chain(former).collect();
    Ok(forget_builds(builds, &keep)?)
}

/// The steps of a hand-over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// The skiffd that runs goes; its daemons stay.
    Leave,
    /// The other build becomes the one that is started, also at a boot.
    Select,
    /// Its skiffd answers.
    Launch,
    /// The node is ready, and stays so.
    Prove,
}

/// What follows a failure.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Next {
    /// The former skiffd has not left: nothing has changed.
    Stay,
    GoBack(BuildId),
    /// There is nothing to go back to. What was started goes on trying.
    GiveUp,
}

/// Pure: `failed` is the step that the hand-over to `new` did not get past, `former` the build
/// that ran before, if it is still on disk.
fn choose_next(failed: Step, new: &BuildId, former: Option<BuildId>) -> Next {
    match (failed, former) {
        (Step::Leave, _) => Next::Stay,
        (Step::Select | Step::Launch | Step::Prove, Some(former)) if former != *new => {
            Next::GoBack(former)
        }
        _ => Next::GiveUp,
    }
}

async fn hand_over(
    session: &Session,
    to: &BuildId,
    wait: Wait,
    interrupt: &mut Interrupt,
) -> Result<(), (Step, Unready)> {
    let at = |step| move |unready: Unready| (step, unready);
    leave(session).await.map_err(|error| (Step::Leave, Unready::Failed(error)))?;
    select(&session.paths.builds(), to)
        .map_err(|error| (Step::Select, Unready::Failed(error.into())))?;
    launch::launch(session, interrupt).await.map_err(at(Step::Launch))?;
    is_of(session, to).await.map_err(|error| (Step::Launch, Unready::Failed(error)))?;
    ready::wait(session, wait, interrupt).await.map_err(at(Step::Prove))?;
    ready::stays(session, PROOF, interrupt).await.map_err(at(Step::Prove))
}

/// Makes skiffd leave and everything else stay. What counts is that its process has ended: its
/// last word may be lost with it.
async fn leave(session: &Session) -> Result<(), CommandError> {
    let skiffd = Skiffd::of(&session.paths);
    if session.running().await?.is_none() {
        return Ok(());
    }
    let Some(skiffd) = skiffd else {
        return Err(
            CommandError::new("a skiffd answers whose process is not known").hint("skiff inspect")
        );
    };
    let said = progress::follow(&session.client(), "/v1/detach", &()).await;
    let bound = if said.is_ok() { LEAVE_TIMEOUT } else { LEAVE_TIMEOUT_DOUBTFUL };
    if skiffd.ended(bound).await {
        return Ok(());
    }
    said?;
    let bound = bound.as_secs();
    Err(CommandError::new(format!("skiffd did not leave within {bound} s"))
        .hint("skiff logs skiffd"))
}

/// Another skiffd that got hold of the node must not be taken for the one that was started.
async fn is_of(session: &Session, build: &BuildId) -> Result<(), CommandError> {
    let answers = session.running().await?.map(|version| version.build).unwrap_or_default();
    if answers == build.to_string() {
        return Ok(());
    }
    Err(CommandError::new(format!("skiffd of build {answers:?} answers, not of build {build}"))
        .hint("skiff logs skiffd"))
}

fn stayed(new: &BuildId, was: &str, error: CommandError) -> CommandError {
    let mut answer = CommandError::new(format!("the node was not handed over to build {new}"))
        .cause(error.message)
        .hint(error.hint.unwrap_or_else(|| "skiff logs skiffd".into()));
    answer.causes.extend(error.causes);
    answer.cause(format!("the node runs build {was} as before"))
}

fn left_alone(new: &BuildId, former: Option<&BuildId>) -> CommandError {
    let error = interrupt::left(&format!("build {new} takes the node over by itself"))
        .hint("skiff status --wait-ready");
    match former {
        Some(former) => error
            .cause(format!("should it not become ready, nobody goes back to build {former} now")),
        None => error,
    }
}

/// What is said when `new` failed with `error`, and `back` came of going back.
fn went_back(
    new: &BuildId,
    former: &BuildId,
    error: CommandError,
    back: Result<(), CommandError>,
) -> CommandError {
    let mut answer =
        CommandError::new(format!("build {new} did not become ready")).cause(error.message);
    answer.causes.extend(error.causes);
    match back {
        Ok(()) => answer
            .cause(format!("the node runs build {former} again and is ready"))
            .hint("skiff logs --since 10m"),
        Err(second) => {
            let mut answer = answer
                .cause(format!("going back to build {former} failed too: {}", second.message))
                .hint(second.hint.unwrap_or_else(|| "skiff logs skiffd".into()));
            answer.causes.extend(second.causes);
            answer
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn build(id: &str) -> BuildId {
        serde_json::from_value(id.into()).unwrap()
    }

    #[test]
    fn a_node_goes_back_only_when_its_skiffd_has_left_and_the_former_build_is_there() {
        let (new, former) = (build("new"), build("former"));
        let next = |step, former: Option<&BuildId>| choose_next(step, &new, former.cloned());
        for step in [Step::Select, Step::Launch, Step::Prove] {
            assert_eq!(next(step, Some(&former)), Next::GoBack(former.clone()), "{step:?}");
            assert_eq!(next(step, None), Next::GiveUp, "{step:?}");
            assert_eq!(next(step, Some(&new)), Next::GiveUp, "{step:?}");
        }
        assert_eq!(next(Step::Leave, Some(&former)), Next::Stay);
        assert_eq!(next(Step::Leave, None), Next::Stay);
    }

    #[test]
    fn the_reason_for_going_back_is_told_even_when_going_back_fails() {
        let first = || {
            CommandError::new("service kube-control keeps failing")
                .cause("failed 5 times, last: exit code 1 after 0.0 s")
                .hint("skiff logs kube-control")
        };
        let (new, former) = (build("new"), build("former"));
        let back = went_back(&new, &former, first(), Ok(()));
        assert_eq!(back.message, "build new did not become ready");
        assert_eq!(
            back.causes,
            [
                "service kube-control keeps failing",
                "failed 5 times, last: exit code 1 after 0.0 s",
                "the node runs build former again and is ready",
            ]
        );
        assert_eq!(back.hint.as_deref(), Some("skiff logs --since 10m"));

        let second = CommandError::new("the node is not ready within 300 s").cause("no space left");
        let lost = went_back(&new, &former, first(), Err(second));
        assert_eq!(
            lost.causes[2..],
            [
                "going back to build former failed too: the node is not ready within 300 s",
                "no space left",
            ]
        );
        assert_eq!(lost.hint.as_deref(), Some("skiff logs skiffd"));
    }

    #[test]
    fn a_node_that_was_not_handed_over_runs_as_before() {
        let error = CommandError::new("skiffd did not leave within 30 s").hint("skiff logs skiffd");
        let stayed = stayed(&build("new"), "former", error);
        assert_eq!(stayed.message, "the node was not handed over to build new");
        assert_eq!(
            stayed.causes,
            ["skiffd did not leave within 30 s", "the node runs build former as before"]
        );
    }
}
