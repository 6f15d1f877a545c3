//! `skiff leave`, step by step as `src/node/cluster/leave.rs` and the command do it, and what skiffd
//! makes of one that was cut off.

use std::pin::pin;
use std::rc::Rc;

use futures::future::{Either, select};
use microcluster::message::{LeaveStep, RefusalCode, Request};
use microcluster::record::MemberState;

use super::join::wipe;
use super::links::{Shows, Trouble, ask};
use super::machine::{Stage, Step};
use super::people::command;
use super::plant::Plant;
use super::store::Seat;
use super::world::World;

const TRIES_MAX: u32 = 5;
const TRY_PAUSE_US: u64 = 1_000_000;
/// How long the cluster may take to hear it, and to let the node go.
const TELL_US: u64 = 30_000_000;
const GO_US: u64 = 120_000_000;

/// The command.
pub async fn leave(world: Rc<World>, seat: Seat) {
    world.count("leaves");
    match begin(&world, seat).await {
        Some(Step::Moving) => {
            let pods_us = world.within(100_000, 60_000_000);
            let interrupt = world.machines.borrow()[seat.0].interrupt.clone();
            let (moving, interrupted) = (world.time.sleep(pods_us), interrupt.notified());
            let moved = matches!(select(pin!(moving), pin!(interrupted)).await, Either::Left(_));
            let is_left_alone = moved && !world.happens(200);
            if !is_left_alone {
                take_back(&world, seat).await;
                return world.count("leaves taken back");
            }
        }
        Some(Step::Going | Step::Gone) => {}
        None => {
            if world.machines.borrow()[seat.0].step().is_some() {
                take_back(&world, seat).await;
            }
            return world.count("leaves taken back");
        }
    }
    if finish(&world, seat).await {
        wipe(&world, seat).await;
        world.count("leaves done");
    }
}

/// The step that the node is at; none when the cluster did not hear, or does not let it.
pub async fn begin(world: &Rc<World>, seat: Seat) -> Option<Step> {
    let found = world.machines.borrow()[seat.0].step();
    if let Some(Step::Going | Step::Gone) = found {
        return found;
    }
    write(world, seat, Some(Step::Moving)).await;
    match tell(world, seat.0, LeaveStep::Begin, TELL_US).await {
        Ok(()) => Some(Step::Moving),
        Err(trouble) if is_gone(&trouble) => {
            write(world, seat, Some(Step::Gone)).await;
            Some(Step::Gone)
        }
        Err(Trouble::Unsure) => None,
        Err(_) => {
            if found.is_none() {
                write(world, seat, None).await;
            }
            None
        }
    }
}

/// Whether the cluster has let the node go.
pub async fn finish(world: &Rc<World>, seat: Seat) -> bool {
    write(world, seat, Some(Step::Going)).await;
    for _ in 0..TRIES_MAX {
        match tell(world, seat.0, LeaveStep::Finish, GO_US).await {
            Ok(()) => {}
            Err(trouble) if is_gone(&trouble) => {}
            Err(Trouble::Refused(refusal)) if refusal.code == RefusalCode::NotAllowed => {
                if tell(world, seat.0, LeaveStep::Begin, TELL_US).await.is_err() {
                    return false;
                }
                continue;
            }
            Err(_) => return false,
        }
        write(world, seat, Some(Step::Gone)).await;
        return true;
    }
    false
}

async fn take_back(world: &Rc<World>, seat: Seat) -> bool {
    match tell(world, seat.0, LeaveStep::Cancel, TELL_US).await {
        Ok(()) => {}
        Err(trouble) if is_gone(&trouble) => {}
        Err(_) => return false,
    }
    write(world, seat, None).await;
    true
}

/// skiffd ends what was cut off.
pub async fn tend(world: &Rc<World>, seat: Seat) {
    let (found, is_leaving) = {
        let machine = &world.machines.borrow()[seat.0];
        let Some(own) = &machine.disk.membership else { return };
        if machine.command.is_some() || own.stage == Stage::Joining {
            return;
        }
        let own = own.members.iter().find(|member| member.id == own.id);
        (machine.step(), own.is_some_and(|own| own.state == MemberState::Leaving))
    };
    if world.plant == Some(Plant::LeaveNotEnded) {
        return;
    }
    match found {
        None if !is_leaving => return,
        None | Some(Step::Moving) => {
            take_back(world, seat).await;
            return;
        }
        Some(Step::Going) if !finish(world, seat).await => return,
        Some(Step::Going | Step::Gone) => {}
    }
    world.note(format_args!("{}: skiffd ends the leave", seat.0));
    command(world, seat.0, |world, seat| {
        Box::pin(async move {
            wipe(&world, seat).await;
            world.count("leaves done");
        })
    });
}

/// Says it again while nobody knows what became of it.
async fn tell(
    world: &Rc<World>,
    number: usize,
    step: LeaveStep,
    bound_us: u64,
) -> Result<(), Trouble> {
    let telling = async {
        let mut tries_left = TRIES_MAX;
        loop {
            let addresses = world.machines.borrow()[number].addresses();
            let outcome =
                ask(world, number, &addresses, Request::Leave(step), Shows::Identity).await;
            tries_left -= 1;
            let is_passing = match &outcome {
                Err(Trouble::Refused(refusal)) => refusal.is_passing(),
                Err(_) => true,
                Ok(_) => false,
            };
            if !is_passing || tries_left == 0 {
                return outcome.map(drop);
            }
            world.time.sleep(TRY_PAUSE_US).await;
        }
    };
    world.time.timeout(bound_us, telling).await.unwrap_or(Err(Trouble::Unsure))
}

fn is_gone(trouble: &Trouble) -> bool {
    let gone = [RefusalCode::Removed, RefusalCode::NotMember];
    matches!(trouble, Trouble::Refused(refusal) if gone.contains(&refusal.code))
}

async fn write(world: &World, seat: Seat, step: Option<Step>) {
    let steps = match step {
        Some(Step::Moving) => ("leave: before its line", "leave: after its line"),
        Some(Step::Going) => ("leave: before no way back", "leave: after no way back"),
        Some(Step::Gone) => ("leave: before it is gone", "leave: after it is gone"),
        None => ("leave: before its line goes", "leave: after its line goes"),
    };
    let change = |disk: &mut super::machine::Disk| {
        let id = disk.membership.as_ref().map(|own| own.id);
        disk.departure = id.zip(step);
    };
    world.write(seat, steps, change).await;
}
