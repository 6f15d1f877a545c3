use std::process::ExitCode;
use std::time::Duration;

use serde::Serialize;

use super::{Outcome, reset};
use crate::cli::confirm::{Loss, confirm};
use crate::cli::interrupt::{self, Interrupt};
use crate::cli::output::{self, Choice};
use crate::cli::{CommandError, Session, span, ui};
use crate::node::account;
use crate::node::cluster::Step;
use crate::node::cluster::leave::{LeaveError, Leaver};

/// Take this node out of its cluster, and remove its state
///
/// Its pods are moved to other nodes, each within its grace and as budgets allow;
/// its member of the datastore hands leadership over and is removed, which is
/// refused where the others would lose their majority; the cluster forgets the
/// node; and everything below the root goes. The machine is then as before its
/// first start: `skiff start` makes it a node of its own, `skiff join` one of a
/// cluster. The configuration that you wrote stays.
///
/// Until the cluster is asked to let the node go, Ctrl-C and every failure take
/// the leave back: the node stays a member, in service as before. From then on it
/// goes on; when it is cut off, skiffd ends it, or the same command does.
///
/// With --force it also leaves a cluster that does not answer. If that cluster
/// lives, it does not know: `skiff remove-node` there.
///
///   sudo skiff leave
///   sudo skiff leave --timeout 30m --yes
#[derive(clap::Args, Debug)]
#[command(verbatim_doc_comment)]
pub struct Arguments {
    /// Time until moving pods away is given up: 90s, 5m, 2h; 0 waits as long as it takes
    #[arg(long, default_value = "5m", value_parser = span::seconds, value_name = "TIME")]
    timeout: u64,

    /// Leave the pods where they are: they end with the node
    #[arg(long)]
    skip_drain: bool,

    /// Leave although the cluster does not answer
    #[arg(long)]
    force: bool,

    /// Do not ask
    #[arg(long)]
    yes: bool,

    #[command(flatten)]
    output: Choice,
}

const LOSS: Loss<'_> = Loss {
    word: "leave",
    reason: "leaving removes what is on this machine",
    otherwise: "sudo skiff leave --yes",
};
/// How long a reset waits for the cluster: its member of the datastore may have to give leadership
/// away.
const RESET_TIMEOUT: Duration = Duration::from_secs(60);

/// What came of it.
#[derive(Debug, Serialize)]
struct Left {
    node: String,
    role: String,
    /// Pods that were moved to other nodes.
    pods_moved: usize,
    /// Whether the cluster knows.
    cluster_told: bool,
}

pub(super) async fn run(arguments: Arguments, session: &Session) -> Outcome {
    if !arguments.yes {
        let root = session.paths.root().display();
        confirm(LOSS, &[&format!("everything below {root} will be lost")])?;
    }
    if !account::is_root() {
        return Err(CommandError::new("leaving a cluster needs root").hint("sudo skiff leave"));
    }
    let mut interrupt = Interrupt::new()?;
    let leaver = Leaver::of(&session.paths).await?;
    let left = leave(&arguments, session, &leaver, &mut interrupt).await?;
    reset::wipe(session, "sudo skiff leave --yes").await?;
    ui::say(&format!("{} has left the cluster; the machine is as new", left.node));
    output::print(arguments.output, &left, |_, _| String::new())?;
    Ok(ExitCode::SUCCESS)
}

/// Up to where the cluster does not know the node any more.
async fn leave(
    arguments: &Arguments,
    session: &Session,
    leaver: &Leaver,
    interrupt: &mut Interrupt,
) -> Result<Left, CommandError> {
    let (node, role) = (leaver.name(), leaver.role().to_string());
    let left = |pods_moved, cluster_told| Left { node, role, pods_moved, cluster_told };
    let is_over = matches!(leaver.step()?, Some(Step::Going | Step::Gone));
    let drains = !arguments.skip_drain && !is_over;
    let runs = session.running().await?.is_some();
    if drains && !runs && !arguments.force {
        return Err(CommandError::new("the node is stopped, and its pods cannot be moved")
            .hint("sudo skiff start, or sudo skiff leave --skip-drain"));
    }
    ui::say("telling the cluster that this node leaves");
    let begun = tokio::select! {
        begun = leaver.begin() => begun,
        () = interrupt.came() => return Err(stay(leaver, interrupted()).await),
    };
    let step = match begun {
        Err(error) if arguments.force && error.is_unanswered() => {
            give_up(leaver, &error)?;
            return Ok(left(0, false));
        }
        Err(error) => return Err(stay(leaver, error.into()).await),
        Ok(step) => step,
    };
    let mut moved = 0;
    if step == Step::Moving && drains && runs {
        let bound = (arguments.timeout > 0).then(|| Duration::from_secs(arguments.timeout));
        let drained = tokio::select! {
            drained = leaver.drain(bound, ui::say) => drained.map_err(CommandError::from),
            () = interrupt.came() => Err(interrupted()),
        };
        moved = match drained {
            Ok(moved) => moved,
            Err(error) => return Err(stay(leaver, error).await),
        };
    }
    if step != Step::Gone {
        ui::say("asking the cluster to let this node go");
        match leaver.finish().await {
            Ok(()) => {}
            Err(error) if arguments.force && error.is_unanswered() => {
                give_up(leaver, &error)?;
                return Ok(left(moved, false));
            }
            Err(error) if error.is_needed() => return Err(stay(leaver, error.into()).await),
            Err(error) => {
                let error = CommandError::from(error);
                return Err(error
                    .cause("the cluster may have let this node go already: it goes on leaving")
                    .hint("sudo skiff leave, or --force when the cluster is gone for ever"));
            }
        }
    }
    Ok(left(moved, true))
}

fn give_up(leaver: &Leaver, error: &LeaveError) -> Result<(), CommandError> {
    ui::say(&format!("the cluster was not told: {}", cause(error)));
    ui::say(&format!("if it lives: skiff remove-node {}, on another node", leaver.name()));
    Ok(leaver.give_up()?)
}

fn interrupted() -> CommandError {
    interrupt::left("the leave is taken back").hint("sudo skiff leave")
}

/// The node stays a member: the failure, with what became of taking back.
async fn stay(leaver: &Leaver, error: CommandError) -> CommandError {
    if leaver.step().is_ok_and(|step| step.is_none()) {
        return error.cause("nothing was changed: this node stays a member");
    }
    match leaver.take_back().await {
        Ok(()) => error.cause("the leave was taken back: this node stays a member"),
        Err(failure) => {
            let reason = format!("taking the leave back failed: {}", cause(&failure));
            error.cause(reason).cause("skiffd takes it back as soon as it can")
        }
    }
}

fn cause(error: &LeaveError) -> String {
    std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string)
}

/// What a reset tells the cluster of a member that goes; the cluster may not be there. An error is
/// that it cannot do without this node. Whoever is at work is held on to until all is removed, so
/// that skiffd does not end it as well.
pub(super) async fn depart(session: &Session) -> Result<Option<Leaver>, CommandError> {
    let leaver = match Leaver::of(&session.paths).await {
        // Nobody is there to be told.
        Err(LeaveError::Sole) => return Ok(None),
        Err(error) => {
            ui::say(&format!("the cluster was not told: {error}"));
            return Ok(None);
        }
        Ok(leaver) => leaver.hurried(),
    };
    let leaving = async {
        match leaver.begin().await? {
            Step::Gone => Ok(()),
            Step::Moving | Step::Going => leaver.finish().await,
        }
    };
    let reason = match tokio::time::timeout(RESET_TIMEOUT, leaving).await {
        Ok(Ok(())) => {
            ui::say("the cluster was told that this node goes");
            return Ok(Some(leaver));
        }
        Ok(Err(error)) if error.is_needed() => {
            let hint = "sudo skiff reset --force, and the others lose their majority";
            return Err(stay(&leaver, CommandError::from(error).hint(hint)).await);
        }
        Ok(Err(error)) => cause(&error),
        Err(_) => "it does not answer".into(),
    };
    ui::say(&format!("the cluster was not told: {reason}"));
    ui::say(&format!("there it is removed by: skiff remove-node {}", leaver.name()));
    Ok(Some(leaver))
}
