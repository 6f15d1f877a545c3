//! Serves clients as one of several members, while its node comes and goes.

use std::pin::Pin;
use std::time::Instant;

use tokio::sync::watch;
use tracing::{Instrument, error, info};

use super::breakdown::Breakdowns;
use super::open::{MemberError, open_or_renew};
use super::renewal::{RENEWALS_MAX, renew};
use super::run::{Member, Seat};
use crate::clock;
use crate::database::Databases;
use crate::options::Options;
use crate::run::{DRAIN_TIMEOUT, RunError};
use crate::serve::{Service, remove_sockets};
use crate::server::Server;
use crate::shared::Damage;
use crate::store::disk;
use crate::store::sole::OpenError;

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
    let seats = Seat::all(options);
    let (stopping, stopped) = watch::channel(false);
    // None waits for another: the leader may not serve each of them.
    let serve = seats.as_ref().map(|seat| {
        let (database, mut ready) = (seat.database, seat.ready.subscribe());
        let server = Server {
            engine: seat.engine.clone(),
            progress_interval: options.watch_progress_notify_interval,
            slow_after: options.warning_unary_request_duration,
            stopping: stopped.clone(),
        };
        let serve = async move {
            // An error means that the node has ended, and everything with it.
            let _ = ready.wait_for(|ready| *ready).await;
            let service = Service::bind(options, database, server).await?;
            info!(after_ms = began.elapsed().as_millis() as u64, "datastore serves");
            service.run().await
        };
        serve.instrument(database.span())
    });
    let mut serving = Box::pin(futures::future::try_join_all(serve));
    let (phase, phases) = watch::channel(Phase::Run);
    let (handed_over, mut handed) = watch::channel(false);
    let mut nodes = Box::pin(run_nodes(options, seats, phases, handed_over));
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
    remove_sockets(options);
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
    /// Its disk failed it, and it does nothing any more.
    Broken,
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
    mut seats: Databases<Seat>,
    mut phase: watch::Receiver<Phase>,
    handed_over: watch::Sender<bool>,
) -> Result<(), MemberError> {
    let mut renewals = 0;
    let mut breakdowns = Breakdowns::default();
    loop {
        let engines = seats.as_ref().map(|seat| seat.engine.clone());
        let links = tokio::select! {
            links = open_or_renew(options, &engines) => links?,
            _ = phase.wait_for(|phase| *phase != Phase::Run) => return Ok(()),
        };
        let member = Member::assemble(options, seats, links);
        let began = clock::now();
        let ended = tokio::select! {
            damage = member.damaged() => Ended::Damaged(damage),
            () = member.removed() => Ended::Removed,
            address = member.disowned() => Ended::Disowned { address },
            () = member.restart() => Ended::Again,
            () = member.broken() => Ended::Broken,
            _ = phase.wait_for(|phase| *phase != Phase::Run) => Ended::Stop,
        };
        let dir = options.dir.clone();
        match ended {
            Ended::Damaged(damage) => {
                member.give_way().await;
                seats = member.stop().await;
                tokio::select! {
                    renewed = renew_once_more(options, damage, &mut renewals) => renewed?,
                    _ = phase.wait_for(|phase| *phase != Phase::Run) => return Ok(()),
                }
                seats.iter_mut().for_each(Seat::renew);
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
                seats = member.stop().await;
                continue;
            }
            Ended::Broken => {
                seats = member.stop().await;
                let pause = breakdowns.pause_after(clock::now() - began);
                let pause_ms = pause.as_millis() as u64;
                error!(
                    pause_ms,
                    "dqlite gave up after a failed write to its disk: it starts again"
                );
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    _ = phase.wait_for(|phase| *phase != Phase::Run) => return Ok(()),
                }
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
