use std::process::ExitCode;

use microcluster::endpoint::{Endpoint, EndpointError};

use super::Outcome;
use crate::backup;
use crate::cli::interrupt::{self, Interrupt};
use crate::cli::ready::{self, Wait};
use crate::cli::{CommandError, Session, launch, replace, span, ui};
use crate::daemons::agent;
use crate::distribution::{Distribution, end_trial, select, stage};
use crate::node::cluster::join::{Stand, stand};
use crate::node::cluster::{Departure, Membership, PEERS_MAX, Step, Ways};
use crate::node::{Options, account, configuration};

/// What a mistake shows of what was typed.
const SHOWN_MAX: usize = 80;

/// Start the node
///
/// Checks the machine, puts the components below the node's root, starts the
/// node daemon (skiffd) in the background and waits until Kubernetes calls the
/// node ready. Where systemd runs, the default node becomes the unit skiffd and
/// comes back at every boot.
///
/// Starting again is safe: a node that runs the same build is left alone. With
/// another build of skiff, the node is handed over to it while pods go on. When
/// the new build does not become ready within the timeout, keeps failing, or is
/// no longer ready 10 s later, the node goes back to the former build, and this
/// command fails with the reason. A hand-over is waited for with --no-wait too.
///
/// Ctrl-C ends the waiting, not the node; nobody goes back to a former build
/// then.
///
/// Nodes of a cluster follow each other to other addresses by themselves while
/// a majority of the control plane stays connected. When all have moved at once,
/// nobody knows where anybody is: --peer says where one of the others is now, on
/// each node but one, whether it runs or not. Whoever answers there must show
/// that it belongs to the cluster.
///
///   sudo skiff start
///   sudo skiff start --timeout 60
///   sudo skiff start --peer 10.88.0.2
#[derive(clap::Args, Debug)]
#[command(verbatim_doc_comment)]
pub struct Arguments {
    /// Seconds to wait until the node is ready; 0 waits as long as it takes
    #[arg(long, default_value = "300", value_parser = span::seconds, value_name = "SECONDS")]
    timeout: u64,

    /// Return as soon as skiffd answers
    #[arg(long, conflicts_with = "timeout")]
    no_wait: bool,

    /// Start even when `skiff check` finds an error
    #[arg(long)]
    skip_checks: bool,

    /// Where a control-plane node of this node's cluster is now; repeatable.
    /// Port 7443 when none is given
    #[arg(long = "peer", value_parser = peer, value_name = "ADDRESS")]
    peers: Vec<Endpoint>,
}

pub(super) async fn run(arguments: Arguments, session: &Session) -> Outcome {
    if !account::is_root() {
        return Err(CommandError::new("starting a node needs root").hint("sudo skiff start"));
    }
    refuse_cut_off(session)?;
    note_peers(session, arguments.peers)?;
    let wait = Wait { until_crash_loop: true, ..Wait::new(arguments.timeout) };
    let mut interrupt = Interrupt::new()?;
    match session.running().await? {
        Some(running) => match replace::other_build(session, &running.build)? {
            Some(new) => {
                refuse_configuration(session)?;
                replace::replace(session, new, &running.build, wait, &mut interrupt).await?;
            }
            None => ui::say("the node runs already"),
        },
        None => begin(session, arguments.skip_checks, &mut interrupt).await?,
    }
    if arguments.no_wait {
        ui::say("the node is starting");
        return Ok(ExitCode::SUCCESS);
    }
    wait_ready(session, wait, &mut interrupt).await?;
    Ok(ExitCode::SUCCESS)
}

/// Starts a stopped node for another command, and waits until it is ready.
pub(super) async fn bring_up(session: &Session, timeout_s: u64) -> Result<(), CommandError> {
    let wait = Wait { until_crash_loop: true, ..Wait::new(timeout_s) };
    let mut interrupt = Interrupt::new()?;
    begin(session, false, &mut interrupt).await?;
    wait_ready(session, wait, &mut interrupt).await
}

async fn begin(
    session: &Session,
    skip_checks: bool,
    interrupt: &mut Interrupt,
) -> Result<(), CommandError> {
    backup::go_on(&session.paths)?;
    refuse_configuration(session)?;
    if !skip_checks {
        super::check::refuse_errors(session, super::check::role(session))?;
    }
    stage_and_select(session)?;
    if interrupt.has_come() {
        return Err(interrupt::left("nothing was started").hint("sudo skiff start"));
    }
    Ok(launch::launch(session, interrupt).await?)
}

async fn wait_ready(
    session: &Session,
    wait: Wait,
    interrupt: &mut Interrupt,
) -> Result<(), CommandError> {
    let status = ready::wait(session, wait, interrupt).await?;
    ui::say(&format!("node {} is ready (Kubernetes {})", status.node, status.kubernetes));
    Ok(())
}

/// Before anything is touched: a node that runs goes on when its configuration went bad.
fn refuse_configuration(session: &Session) -> Result<(), CommandError> {
    let options = Options { paths: session.paths.clone(), config: session.config.clone() };
    configuration(&options)?;
    Ok(())
}

/// A join that has left no node behind is not one to be started, and neither is a node that its
/// cluster has let go.
fn refuse_cut_off(session: &Session) -> Result<(), CommandError> {
    if let Stand::CutOff(_) = stand(&session.paths)? {
        return Err(CommandError::new("a join of this machine was cut off")
            .hint("sudo skiff join TOKEN --worker, or sudo skiff reset to give it up"));
    }
    let dir = session.paths.node();
    let Some(membership) = Membership::read(&dir)? else { return Ok(()) };
    match Departure::read(&dir, &membership)?.map(|departure| departure.step) {
        Some(Step::Going | Step::Gone) => {
            Err(CommandError::new("this node is about to leave its cluster, and was cut off")
                .hint("sudo skiff leave, which goes on with it"))
        }
        Some(Step::Moving) => {
            ui::say("a leave of this node was cut off: it is taken back");
            Ok(())
        }
        None => Ok(()),
    }
}

/// An address or a name, with the port where nodes meet unless there is another one.
fn peer(text: &str) -> Result<Endpoint, EndpointError> {
    let usual = match text.parse() {
        Err(EndpointError::NoPort(_)) => format!("{text}:{}", agent::PORT),
        Err(EndpointError::Brackets(_)) => format!("[{text}]:{}", agent::PORT),
        outcome => return outcome,
    };
    // What is wrong is shown as it was typed.
    usual.parse().map_err(|error| match error {
        unreachable @ EndpointError::Unreachable(_) => unreachable,
        _ => EndpointError::Host(text.chars().take(SHOWN_MAX).collect()),
    })
}

/// Has the node look there for the others, whether it runs or is about to.
fn note_peers(session: &Session, peers: Vec<Endpoint>) -> Result<(), CommandError> {
    if peers.is_empty() {
        return Ok(());
    }
    let dir = session.paths.node();
    if Membership::read(&dir)?.is_none() {
        return Err(CommandError::new("this node is in no cluster of several: it has no peers")
            .hint("sudo skiff start; or sudo skiff join TOKEN, on a machine that is no node yet"));
    }
    let ways = ways(peers)?;
    ways.write(&dir)?;
    let named: Vec<String> = ways.peers.iter().map(ToString::to_string).collect();
    ui::say(&format!("the others are looked for at {}, too", named.join(", ")));
    Ok(())
}

/// Each place once, and not too many.
fn ways(named: Vec<Endpoint>) -> Result<Ways, CommandError> {
    let mut peers = Vec::new();
    for peer in named {
        if !peers.contains(&peer) {
            peers.push(peer);
        }
    }
    if peers.len() > PEERS_MAX {
        return Err(CommandError::new(format!("more than {PEERS_MAX} peers are named"))
            .hint("one is enough: who meets tells whom it has met"));
    }
    Ok(Ways { peers })
}

pub(super) fn stage_and_select(session: &Session) -> Result<(), CommandError> {
    let builds = session.paths.builds();
    let distribution = Distribution::find()?;
    ui::say("putting the components in place");
    let (id, _) = stage(&distribution, &builds)?;
    select(&builds, &id)?;
    // It was asked for by name, and no other one runs.
    end_trial(&builds)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_an_address_or_a_name_with_the_usual_port_unless_it_has_one() {
        let said = |text: &str| peer(text).map(|peer| peer.to_string());
        assert_eq!(said("10.88.0.2").unwrap(), "10.88.0.2:7443");
        assert_eq!(said("10.88.0.2:8443").unwrap(), "10.88.0.2:8443");
        assert_eq!(said("fd00::2").unwrap(), "[fd00::2]:7443");
        assert_eq!(said("[fd00::2]:8443").unwrap(), "[fd00::2]:8443");
        assert_eq!(said("alpha.example").unwrap(), "alpha.example:7443");
        assert_eq!(said("[fd00::2]").unwrap(), "[fd00::2]:7443");
        assert_eq!(said("Alpha").unwrap(), "alpha:7443");
    }

    #[test]
    fn a_peer_that_is_none_is_refused_with_what_was_typed() {
        let host = "is neither an address nor a name";
        let port = "has no port from 1 to 65535 behind its last colon";
        for (wrong, why) in [
            ("", host),
            ("a b", host),
            ("10.88.0", host),
            ("10.88.0.256", host),
            ("[fd00::2", host),
            ("[alpha]", host),
            ("http://10.88.0.2", port),
            ("10.88.0.2:", port),
            ("10.88.0.2:port", port),
            ("10.88.0.2:0", port),
            ("10.88.0.2:70000", port),
            ("[fd00::2]:70000", port),
        ] {
            let error = peer(wrong).unwrap_err().to_string();
            assert_eq!(error.split_once("\" ").unwrap(), (&*format!("\"{wrong}"), why), "{error}");
        }
        for nowhere in ["127.0.0.1", "0.0.0.0:7443", "::1", "[::]:7443", "fe80::1"] {
            let error = peer(nowhere).unwrap_err().to_string();
            assert!(error.ends_with("cannot be reached from another machine"), "{error}");
        }
        let long = peer(&"a".repeat(300)).unwrap_err().to_string();
        assert!(long.len() < 200, "{long}");
    }

    #[test]
    fn a_few_peers_are_taken_each_once_and_more_refused() {
        let named = |count: usize| (1..=count).map(|n| peer(&format!("10.88.0.{n}")).unwrap());
        assert_eq!(
            ways(named(PEERS_MAX).chain(named(2)).collect()).unwrap().peers.len(),
            PEERS_MAX
        );
        let error = ways(named(PEERS_MAX + 1).collect()).unwrap_err();
        assert_eq!(error.message, "more than 8 peers are named");
    }
}
