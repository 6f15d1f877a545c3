use std::process::ExitCode;
use std::time::Duration;

use microcluster::record::NodeRole;
use microcluster::token::JoinToken;

use super::Outcome;
use super::stop::order;
use crate::cli::interrupt::{self, Interrupt};
use crate::cli::kept_logs::KeptLogs;
use crate::cli::ready::{self, Unready, Wait};
use crate::cli::skiffd::Skiffd;
use crate::cli::{CommandError, Session, launch, span, ui};
use crate::distribution::Distribution;
use crate::node::cluster::join::{JoinError, Joiner, Stand, Welcome, give_up, stand, take_back};
use crate::node::cluster::leave::Leaver;
use crate::node::cluster::{Begun, Membership, version_of};
use crate::node::{Options, account, configuration, reset_stopped};

/// Join a cluster with a token, as `skiff add-node` says it
///
/// Checks the machine, the cluster and whether they go together, then sets the
/// machine up and waits until Kubernetes calls it ready. It ends as a node of the
/// cluster, or as it was before, with the reason; Ctrl-C takes the join back.
/// Daemons that did not become ready leave their last logs in `failed-join` below
/// the root.
///
/// The machine must not have been started as a node of its own. Its ranges for
/// pods and Services and its domain are those of the cluster; name and address
/// come from its own configuration. A control-plane node also gets the cluster's
/// keys, holds its data, and takes over when another one fails.
///
///   sudo skiff join skiff1.AbCd
///   sudo skiff join skiff1.AbCd --worker
#[derive(clap::Args, Debug)]
#[command(verbatim_doc_comment)]
pub struct Arguments {
    /// The token
    #[arg(value_name = "TOKEN")]
    token: String,

    /// Run pods and no control plane
    #[arg(long)]
    worker: bool,

    /// Seconds to wait until the node is ready; 0 waits as long as it takes
    #[arg(long, default_value = "300", value_parser = span::seconds, value_name = "SECONDS")]
    timeout: u64,

    /// Join even when `skiff check` finds an error
    #[arg(long)]
    skip_checks: bool,
}

/// How long the cluster may take to hear that a join is taken back.
const TAKE_BACK_TIMEOUT: Duration = Duration::from_secs(20);

pub(super) async fn run(arguments: Arguments, session: &Session) -> Outcome {
    let token: JoinToken = arguments.token.trim().parse().map_err(|error| {
        CommandError::because("this is not a token that one could join with", &error)
            .hint("skiff add-node, on a control-plane node, makes one")
    })?;
    if !account::is_root() {
        return Err(CommandError::new("joining needs root").hint("sudo skiff join TOKEN"));
    }
    let mut interrupt = Interrupt::new()?;
    let wait = Wait { until_crash_loop: true, ..Wait::new(arguments.timeout) };
    let membership = match begin(session).await? {
        Some(membership) => membership,
        None => {
            let role = match arguments.worker {
                true => NodeRole::Worker,
                false => NodeRole::ControlPlane,
            };
            if !arguments.skip_checks {
                super::check::refuse_errors(session, Some(role))?;
            }
            let options = Options { paths: session.paths.clone(), config: session.config.clone() };
            let (config, _) = configuration(&options)?;
            let build = Distribution::find()?;
            let kubernetes = version_of(build.version_of("kube"));
            let (paths, token) = (&session.paths, &token);
            let joiner = Joiner { role, paths, config: &config, kubernetes, token };
            // Up to here nothing has changed, here or there.
            let welcome = tokio::select! {
                welcome = joiner.ask(&|line| ui::say(line)) => welcome?,
                () = interrupt.came() => return Err(interrupt::left("nothing was begun")),
            };
            let entered = tokio::select! {
                entered = enter(session, &joiner, welcome) => entered,
                () = interrupt.came() => Err(interrupted()),
            };
            match entered {
                Ok(membership) => membership,
                Err(error) => return Err(undo(session, error, KeptLogs::default()).await),
            }
        }
    };
    let ready = async {
        if session.running().await.map_err(Unready::Failed)?.is_none() {
            launch::launch(session, &mut interrupt).await?;
        }
        ready::wait(session, wait, &mut interrupt).await
    };
    let (error, logs) = match ready.await {
        Ok(status) => {
            let (name, kubernetes) = (status.node, status.kubernetes);
            ui::say(&format!("node {name} has joined and is ready (Kubernetes {kubernetes})"));
            return Ok(ExitCode::SUCCESS);
        }
        Err(Unready::Interrupted) => (interrupted(), KeptLogs::default()),
        // What its hint says of the node is of one that will not be there any more.
        Err(Unready::Failed(error)) => (error.hint("skiff check"), KeptLogs::read(&session.paths)),
    };
    keep_for(session, &token, &membership)?;
    Err(undo(session, error, logs).await)
}

/// Whether a join can begin here; answers one that goes on.
async fn begin(session: &Session) -> Result<Option<Membership>, CommandError> {
    match stand(&session.paths)? {
        Stand::Free => Ok(None),
        Stand::Settled(membership) => {
            ui::say("going on with the join that was cut off");
            Ok(Some(*membership))
        }
        Stand::CutOff(begun) => {
            ui::say("taking back the join that was cut off");
            // It is over in half an hour in any case.
            let _ = tokio::time::timeout(TAKE_BACK_TIMEOUT, take_back(&begun)).await;
            reset_stopped(&session.paths).await?;
            Ok(None)
        }
        Stand::Member(role) => {
            let message = format!("this machine is a {role} node of a cluster already");
            Err(CommandError::new(message).hint("sudo skiff reset, which loses what it has"))
        }
        Stand::Alone => Err(CommandError::new("this machine is a node of its own already")
            .cause("its objects, images and volumes would be lost")
            .hint("sudo skiff reset, which loses them; then join")),
    }
}

/// Puts the components in place and asks the cluster in.
async fn enter(
    session: &Session,
    joiner: &Joiner<'_>,
    welcome: Welcome,
) -> Result<Membership, CommandError> {
    super::start::stage_and_select(session)?;
    Ok(joiner.enter(welcome, &|line| ui::say(line)).await?)
}

/// The line by which a join that has settled is taken back.
fn keep_for(
    session: &Session,
    token: &JoinToken,
    membership: &Membership,
) -> Result<(), CommandError> {
    let begun = Begun { token: token.to_string(), id: membership.id };
    Ok(begun.write(&session.paths.node())?)
}

fn interrupted() -> CommandError {
    interrupt::left("the join is taken back").hint("sudo skiff join TOKEN --worker")
}

/// Makes everything as it was: at the cluster first, which may say that the join is over. The logs
/// of daemons that had been started are kept aside.
async fn undo(session: &Session, error: CommandError, logs: KeptLogs) -> CommandError {
    match undo_all(session).await {
        Ok(true) => error.cause("the cluster took the node as a member meanwhile: it stays one"),
        Ok(false) => {
            let mut error = error.cause("the join was taken back: this machine is as it was");
            if let Some(dir) = logs.put(&session.paths) {
                error = error.cause(format!("the last logs of its daemons: {}", dir.display()));
            }
            error.hint.get_or_insert_with(|| "skiff check".into());
            error
        }
        Err(failure) => {
            let reason = format!("taking the join back failed: {}", failure.message);
            error.cause(reason).hint("sudo skiff reset")
        }
    }
}

async fn undo_all(session: &Session) -> Result<bool, CommandError> {
    if let Some(begun) = Begun::read(&session.paths.node())? {
        let told = tokio::time::timeout(TAKE_BACK_TIMEOUT, take_back(&begun)).await;
        match told {
            Ok(Ok(true)) => {
                Begun::remove(&session.paths.node())?;
                return Ok(true);
            }
            Ok(Ok(false)) => {}
            Ok(Err(error)) => ui::say(&format!("the cluster was not told: {}", cause(&error))),
            Err(_) => ui::say("the cluster was not told: it does not answer"),
        }
    }
    let skiffd = Skiffd::of(&session.paths);
    match session.running().await?.is_some() {
        true => drop(order(session, "/v1/reset", skiffd).await?),
        false => reset_stopped(&session.paths).await?,
    }
    launch::remove_unit(session)?;
    Ok(false)
}

fn cause(error: &JoinError) -> String {
    std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string)
}

/// What a reset tells the cluster of a node that belongs to one; the cluster may not be there. An
/// error is that it cannot do without this node. What comes back is held until all is removed.
pub(super) async fn depart(session: &Session) -> Result<Option<Leaver>, CommandError> {
    let Ok(there) = stand(&session.paths) else { return Ok(None) };
    let outcome = match there {
        Stand::CutOff(begun) => tokio::time::timeout(TAKE_BACK_TIMEOUT, take_back(&begun))
            .await
            .map(|told| told.map(drop)),
        Stand::Settled(_) => tokio::time::timeout(TAKE_BACK_TIMEOUT, give_up(&session.paths)).await,
        Stand::Member(_) => return super::leave::depart(session).await,
        Stand::Free | Stand::Alone => return Ok(None),
    };
    match outcome {
        Ok(Ok(())) => ui::say("the cluster was told that this node goes"),
        Ok(Err(error)) => ui::say(&format!("the cluster was not told: {}", cause(&error))),
        Err(_) => ui::say("the cluster was not told: it does not answer"),
    }
    Ok(None)
}
