//! Serves clients as one of several members, while its node comes and goes.

use std::pin::Pin;
use std::time::Instant;

use tokio::sync::watch;
use tracing::info;

use super::open::{MemberError, open_or_renew};
use super::renewal::{RENEWALS_MAX, renew};
use super::run::{Member, Seat};
use crate::options::Options;
use crate::run::{DRAIN_TIMEOUT, RunError, bind_all, remove_sockets, serve_all};
use crate::server::Server;
use crate::shared::Damage;
use crate::store::disk;
use crate::store::sql::OpenError;

/// How far the end has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Run,
    /// Leadership is given away while requests are still served.
    HandOver,
    /// Nobody is served any more.
    End,
}

/// Serves until `stop` comes, the server fails, or this member was removed.
pub async fn run_member(
    options: &Options,
    mut stop: Pin<&mut impl Future<Output = ()>>,
) -> Result<(), RunError> {
    let began = Instant::now();
    disk::ensure_dir(&options.dir)
        .map_err(|source| OpenError::Directory { dir: options.dir.clone(), source })?;
    let seat = Seat::new(options);
    let (engine, mut ready) = (seat.engine.clone(), seat.ready.subscribe());
    let (stopping, stopped) = watch::channel(false);
    let serve = async {
        // An error means that the node has ended, and everything with it.
        let _ = ready.wait_for(|ready| *ready).await;
        let progress_interval = options.watch_progress_notify_interval;
        let slow_after = options.warning_unary_request_duration;
        let server = Server { engine, progress_interval, slow_after, stopping: stopped };
        let bound = bind_all(&options.listen, options).await?;
        info!(after_ms = began.elapsed().as_millis() as u64, "datastore serves");
        serve_all(bound, server, options).await
    };
    let mut serving = Box::pin(serve);
    let (phase, phases) = watch::channel(Phase::Run);
    let (handed_over, mut handed) = watch::channel(false);
    let mut nodes = Box::pin(run_nodes(options, seat, phases, handed_over));
    let result = tokio::select! {
        result = &mut serving => Err(result.err().unwrap_or(RunError::Unasked)),
        result = &mut nodes => result.map_err(RunError::from),
        () = &mut stop => {
            phase.send_replace(Phase::HandOver);
            let ended = tokio::select! {
                // An error means that the node ends by itself.
                _ = handed.wait_for(|handed| *handed) => None,
                result = &mut nodes => Some(result),
            };
            stopping.send_replace(true);
            // A client that does not let go is cut off.
            let _ = tokio::time::timeout(DRAIN_TIMEOUT, &mut serving).await;
            phase.send_replace(Phase::End);
            match ended {
                Some(result) => Ok(result?),
                None => Ok(nodes.await?),
            }
        }
    };
    remove_sockets(&options.listen);
    remove_sockets(&options.listen_metrics_urls);
    result
}

/// Why a node runs no longer.
enum Ended {
    Damaged(Damage),
    Removed,
    Disowned {
        address: String,
    },
    /// It is to start again with other timeouts.
    Again,
    Stop,
}

/// Begins anew, unless that has not helped before.
async fn renew_once_more(
    options: &Options,
    damage: Damage,
    renewals: &mut u32,
) -> Result<(), MemberError> {
    let why = MemberError::Damaged(damage);
    *renewals += 1;
    if *renewals > RENEWALS_MAX {
        return Err(MemberError::Again { dir: options.dir.clone(), source: Box::new(why) });
    }
    renew(options, why).await
}

/// Runs one node after the other: each begins with timeouts of its own.
async fn run_nodes(
    options: &Options,
    mut seat: Seat,
    mut phase: watch::Receiver<Phase>,
    handed_over: watch::Sender<bool>,
) -> Result<(), MemberError> {
    let mut renewals = 0;
    loop {
        let shared = seat.engine.shared().clone();
        let links = tokio::select! {
            links = open_or_renew(options, &shared) => links?,
            _ = phase.wait_for(|phase| *phase != Phase::Run) => return Ok(()),
        };
        let member = Member::assemble(options, seat, links);
        let ended = tokio::select! {
            damage = member.damaged() => Ended::Damaged(damage),
            () = member.removed() => Ended::Removed,
            address = member.disowned() => Ended::Disowned { address },
            () = member.restart() => Ended::Again,
            _ = phase.wait_for(|phase| *phase != Phase::Run) => Ended::Stop,
        };
        let dir = options.dir.clone();
        match ended {
            Ended::Damaged(damage) => {
                member.give_way().await;
                seat = member.stop().await;
                tokio::select! {
                    renewed = renew_once_more(options, damage, &mut renewals) => renewed?,
                    _ = phase.wait_for(|phase| *phase != Phase::Run) => return Ok(()),
                }
                seat.renew();
                continue;
            }
            Ended::Removed => {
                member.stop().await;
                return Err(MemberError::Removed { dir });
            }
            Ended::Disowned { address } => {
                member.stop().await;
                return Err(MemberError::Disowned { dir, address });
            }
            Ended::Again => {
                member.hand_over().await;
                seat = member.stop().await;
                continue;
            }
            Ended::Stop => member.hand_over().await,
        }
        handed_over.send_replace(true);
        let _ = phase.wait_for(|phase| *phase == Phase::End).await;
        member.stop().await;
        return Ok(());
    }
}

#[cfg(test)]
#[path = "daemon_test.rs"]
mod tests;
