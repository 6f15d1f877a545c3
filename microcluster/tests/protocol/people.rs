//! People: they carry tokens, type `join`, `reset` and Ctrl-C when they please, and on a control-plane
//! node they make and revoke tokens and remove nodes. At the end they finish what they began.

use std::collections::BTreeMap;
use std::rc::Rc;

use microcluster::protocol::{RemoveRequest, TokenSpec};
use microcluster::record::{MemberState, NodeId, NodeName, NodeRole};
use microcluster::token::{JoinToken, Secret};
use time::Duration;

use super::join;
use super::keys::authority;
use super::leave;
use super::machine::{SimDesk, Stand};
use super::store::Seat;
use super::world::{Handed, World};

/// Whoever stands before a machine.
pub async fn person(world: Rc<World>, number: usize) {
    let (low, high) = world.form.whim_us;
    while !world.quiet.get() {
        let us = world.within(low / 4, high);
        world.time.sleep(us).await;
        if !world.quiet.get() {
            whim(&world, number);
        }
    }
}

/// The same when all is well again: nothing is left half done.
pub async fn tidy(world: Rc<World>, number: usize) {
    loop {
        finish(&world, number);
        world.time.sleep(5_000_000).await;
    }
}

fn whim(world: &Rc<World>, number: usize) {
    let (is_on, is_busy, stand, is_told) = look(world, number);
    if !is_on {
        return;
    }
    if is_busy {
        if world.happens(80) {
            world.count("interrupts");
            world.machines.borrow()[number].interrupt.notify_waiters();
        }
        return;
    }
    match stand {
        Stand::Free if world.happens(700) => type_join(world, number),
        Stand::CutOff(_) if world.happens(800) => type_join(world, number),
        Stand::CutOff(_) => type_reset(world, number),
        Stand::Settled if world.happens(100) => type_reset(world, number),
        Stand::Member(_) if is_told => type_reset(world, number),
        Stand::Member(NodeRole::Worker) if world.happens(60) => type_reset(world, number),
        Stand::Member(role) => {
            let per_mille = if role == NodeRole::Worker { 90 } else { 20 };
            if world.happens(per_mille) {
                world.note(format_args!("{number}: skiff leave"));
                command(world, number, |world, seat| Box::pin(leave::leave(world, seat)));
            }
        }
        _ => {}
    }
}

fn finish(world: &Rc<World>, number: usize) {
    let (_, is_busy, stand, is_told) = look(world, number);
    let is_out = world.ledger().out.contains(&number);
    let was_cut_off = world.machines.borrow()[number].is_resetting;
    match stand {
        _ if is_busy => {}
        Stand::Member(_) if was_cut_off => type_reset(world, number),
        Stand::CutOff(_) => type_reset(world, number),
        Stand::Settled | Stand::Member(_) if is_told || is_out => type_reset(world, number),
        _ => {}
    }
}

fn look(world: &World, number: usize) -> (bool, bool, Stand, bool) {
    let machine = &world.machines.borrow()[number];
    (machine.is_on, machine.command.is_some(), machine.stand(), machine.is_told)
}

/// Types `skiff join` with a token that is at hand.
pub fn type_join(world: &Rc<World>, number: usize) {
    let role = world.machines.borrow()[number].role;
    let tokens: Vec<JoinToken> = {
        let handed = world.handed.borrow();
        handed.iter().filter(|handed| handed.role == role).map(|h| h.token.clone()).collect()
    };
    if tokens.is_empty() {
        return;
    }
    let token = world.chance.borrow_mut().pick(&tokens).clone();
    world.note(format_args!("{number}: skiff join"));
    command(world, number, |world, seat| Box::pin(join::join(world, seat, token)));
}

fn type_reset(world: &Rc<World>, number: usize) {
    world.note(format_args!("{number}: skiff reset"));
    world.machines.borrow_mut()[number].is_resetting = true;
    command(world, number, |world, seat| Box::pin(join::reset(world, seat)));
}

pub type Work = std::pin::Pin<Box<dyn Future<Output = ()>>>;

pub fn command(world: &Rc<World>, number: usize, work: impl FnOnce(Rc<World>, Seat) -> Work) {
    let process = world.tasks.process();
    world.machines.borrow_mut()[number].command = Some(process);
    let (work, world) = (work(world.clone(), (number, process)), world.clone());
    let tasks = world.tasks.clone();
    tasks.spawn(process, async move {
        work.await;
        world.machines.borrow_mut()[number].command = None;
    });
}

/// Root on the control-plane nodes.
pub async fn administrator(world: Rc<World>) {
    let (low, high) = world.form.whim_us;
    while !world.quiet.get() {
        let us = world.within(low / 8, high / 3);
        world.time.sleep(us).await;
        let Some((seat, desk)) = a_desk(&world) else { continue };
        let what = world.within(0, 100);
        let work = {
            let world = world.clone();
            async move {
                match what {
                    0..55 => {
                        add_token(&world, seat.0, &desk, None).await;
                    }
                    55..70 => revoke(&world, &desk).await,
                    70..90 => remove_any(&world, seat.0, &desk).await,
                    _ => {
                        let _ = desk.expire().await;
                    }
                }
            }
        };
        // It ends with skiffd, as the request of a command does.
        world.tasks.spawn(seat.1, work);
    }
}

/// A control-plane node that decides and whose skiffd runs.
pub fn a_desk(world: &World) -> Option<(Seat, Rc<SimDesk>)> {
    let machines = world.machines.borrow();
    let out = world.ledger().out.clone();
    let all: Vec<_> = (0..machines.len())
        .filter(|number| !out.contains(number))
        .filter_map(|n| Some(((n, machines[n].daemon?), machines[n].desk.clone()?)))
        .collect();
    if all.is_empty() { None } else { Some(world.chance.borrow_mut().pick(&all).clone()) }
}

/// `skiff add-node`; the token goes from hand to hand at once.
pub async fn add_token(
    world: &World,
    number: usize,
    desk: &SimDesk,
    wanted: Option<(NodeRole, u32)>,
) -> bool {
    let role = match world.happens(200) {
        true => NodeRole::ControlPlane,
        false => NodeRole::Worker,
    };
    let (role, uses) = wanted.unwrap_or((role, world.within(1, 4) as u32));
    let minutes = match world.form.of_days {
        true => world.within(600, 5_000),
        false => *world.chance.borrow_mut().pick(&[1, 3, 60, 600]),
    };
    let spec = TokenSpec {
        role,
        name: None,
        labels: BTreeMap::new(),
        taints: vec![],
        ttl: Duration::minutes(minutes as i64),
        uses,
        authority: authority().fingerprint,
    };
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&world.within(0, u64::MAX).to_be_bytes());
    let secret = Secret::from_bytes(bytes);
    if let Err(refusal) = desk.add_token(&spec, &secret).await {
        world.note(format_args!("{number}: no token: {refusal}"));
        return false;
    }
    let addresses = {
        let machines = world.machines.borrow();
        let decides = |m: &&super::machine::Machine| m.desk.is_some();
        let all = machines.iter().filter(decides).map(|m| format!("{}:7443", m.address));
        all.take(5).map(|text| text.parse().expect("an address with its port")).collect()
    };
    let token = JoinToken::new(addresses, spec.authority, secret);
    let Ok(token) = token else { return false };
    world.note(format_args!("{number}: token {} for {uses} of {role}", token.id()));
    world.handed.borrow_mut().push(Handed { token, role });
    true
}

async fn revoke(world: &World, desk: &SimDesk) {
    let ids: Vec<_> = world.handed.borrow().iter().map(|handed| handed.token.id()).collect();
    if !ids.is_empty() {
        let id = *world.chance.borrow_mut().pick(&ids);
        let _ = desk.revoke_token(id).await;
    }
}

async fn remove_any(world: &World, number: usize, desk: &SimDesk) {
    let now_us = world.now_us();
    let names: Vec<NodeName> = {
        let mut ledger = world.ledger();
        let record = ledger.now(now_us);
        record.into_iter().flat_map(|record| record.members.keys().cloned()).collect()
    };
    if !names.is_empty() {
        let name = world.chance.borrow_mut().pick(&names).clone();
        remove(world, number, desk, name).await;
    }
}

async fn remove(world: &World, number: usize, desk: &SimDesk, name: NodeName) {
    let here = world.machines.borrow()[number].disk.membership.as_ref().map(|own| own.name.clone());
    let Some(here) = here else { return };
    world.note(format_args!("{number}: skiff remove-node {name}"));
    world.ledger().promises.ordered_away(&name);
    let request = RemoveRequest { name, force: true, is_reachable: true, here };
    if let Err(refusal) = desk.remove(&request).await {
        world.note(format_args!("{number}: not removed: {refusal}"));
    }
}

/// When all is well again: removes whoever is not there any more, and whose machine could not say
/// so; and takes back what was left half way.
pub async fn remove_left_behind(world: Rc<World>) {
    let now_us = world.now_us();
    let left: Vec<NodeName> = {
        let mut ledger = world.ledger();
        let record = ledger.now(now_us).cloned();
        let machines = world.machines.borrow();
        let is_there = |id: NodeId| {
            let machine = ledger.promises.owners.get(&id).map(|number| &machines[*number]);
            machine.is_some_and(|m| m.disk.membership.as_ref().is_some_and(|own| own.id == id))
        };
        let told = |id: NodeId| machines.iter().all(|machine| !machine.untold.contains(&id));
        let mut left = Vec::new();
        let mut forgotten = Vec::new();
        for member in record.iter().flat_map(|record| record.living()) {
            let joins = matches!(member.state, MemberState::Joining { .. });
            if is_there(member.id) || joins {
                continue;
            }
            left.push(member.name.clone());
            forgotten.extend(told(member.id).then(|| member.name.to_string()));
        }
        for name in forgotten {
            ledger.promises.broke("done-or-undone", format!("{name} is a member, and nowhere"));
        }
        left
    };
    for name in left {
        if let Some((seat, desk)) = a_desk(&world) {
            remove(&world, seat.0, &desk, name).await;
        }
    }
}
