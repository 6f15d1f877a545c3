//! skiffd's part, turn by turn as `src/node/cluster/upkeep.rs` does it: certificates first, then the
//! cluster's word that the join is done, then who belongs to the cluster.

use std::rc::Rc;

use microcluster::message::{Answer, RefusalCode, Renew, Request};
use microcluster::record::{MemberRecord, MemberView, NodeRole};
use microcluster::trust::Purpose;

use super::join::{Keys, files, generate};
use super::keys::key;
use super::leave;
use super::links::{Shows, Trouble, ask};
use super::machine::{SimDesk, Stage};
use super::plant::Plant;
use super::store::Seat;
use super::world::{KUBERNETES, MINUTE_US, World};

/// Between two looks in production.
pub const INTERVAL_US: u64 = 15_000_000;

/// Never ends by itself.
pub async fn run(world: Rc<World>, seat: Seat) {
    loop {
        leave::tend(&world, seat).await;
        if let Err(trouble) = turn(&world, seat).await {
            hear(&world, seat.0, &trouble);
        }
        let joins = world.stage(seat.0) == Some(Stage::Joining);
        let pause_us = match joins {
            true => 1_000_000,
            false => world.interval_us(),
        };
        world.time.sleep(pause_us).await;
    }
}

async fn turn(world: &Rc<World>, seat: Seat) -> Result<(), Trouble> {
    let number = seat.0;
    let desk = world.machines.borrow()[number].desk.clone();
    if let Some(desk) = desk {
        return decide(world, seat, &desk).await;
    }
    let unmoved = renew_when_due(world, seat).await?;
    let is_ready = world.now_us() >= world.machines.borrow()[number].ready_us;
    if is_ready && world.stage(number) == Some(Stage::Joining) {
        confirm(world, seat).await?;
    }
    if let Answer::Members { members, .. } = say(world, number, Request::Members {}).await? {
        world.machines.borrow_mut()[number].heard_us = world.now_us();
        take_over(world, seat, members).await;
    }
    unmoved.map_or(Ok(()), Err)
}

/// What a control-plane node does besides.
async fn decide(world: &Rc<World>, seat: Seat, desk: &SimDesk) -> Result<(), Trouble> {
    let record = desk.record().await.map_err(Trouble::Refused)?;
    let members = record.living().map(MemberRecord::view).collect();
    world.machines.borrow_mut()[seat.0].heard_us = world.now_us();
    take_over(world, seat, members).await;
    renew_when_due(world, seat).await?;
    let is_due = world.now_us() >= world.machines.borrow()[seat.0].kept_us + MINUTE_US;
    if is_due && world.plant != Some(Plant::KeeperSleeps) {
        desk.expire().await.map_err(Trouble::Refused)?;
        world.machines.borrow_mut()[seat.0].kept_us = world.now_us();
    }
    Ok(())
}

async fn confirm(world: &Rc<World>, seat: Seat) -> Result<(), Trouble> {
    say(world, seat.0, Request::Confirm {}).await?;
    if world.plant == Some(Plant::ConfirmedBeforeWritten) {
        // As if the directory had not been synced: whoever dies now finds nothing.
        let steps = ("daemon: before it is a member", "daemon: unsynced");
        let kept = world.machines.borrow()[seat.0].disk.clone();
        world.write(seat, steps, |disk| *disk = Default::default()).await;
        world.machines.borrow_mut()[seat.0].disk = kept;
    }
    let steps = ("daemon: before it is a member", "daemon: after it is a member");
    let become_member = |disk: &mut super::machine::Disk| {
        if let Some(membership) = &mut disk.membership {
            membership.stage = Stage::Member;
        }
    };
    world.write(seat, steps, become_member).await;
    world.note(format_args!("{}: is a member", seat.0));
    world.open_desk(seat);
    let steps = ("daemon: before the line goes", "daemon: after the line goes");
    world.write(seat, steps, |disk| disk.begun = None).await;
    Ok(())
}

async fn say(world: &Rc<World>, number: usize, request: Request) -> Result<Answer, Trouble> {
    let addresses = world.machines.borrow()[number].addresses();
    ask(world, number, &addresses, request, Shows::Identity).await
}

/// New certificates at half the life of the old ones, and whenever something has changed here. An
/// address that the node cannot have keeps it from nothing else; why, is the answer.
async fn renew_when_due(world: &Rc<World>, seat: Seat) -> Result<Option<Trouble>, Trouble> {
    let Some(due) = due(world, seat.0) else { return Ok(None) };
    let Due { role, keys, is_over } = due;
    let requests = keys.iter().map(|(purpose, number)| key(*number).request(*purpose)).collect();
    let address = world.machines.borrow()[seat.0].address;
    let renew = Renew {
        requests,
        addresses: Some(vec![address]),
        kubernetes: Some(KUBERNETES),
        failure_domain: None,
        settings: None,
        rotation: None,
    };
    if world.plant == Some(Plant::KeyReplacedEarly) && role == NodeRole::Worker {
        fits(world, seat.0, false);
    }
    let mut answer = say(world, seat.0, Request::Renew(renew.clone())).await;
    let mut unmoved = None;
    if let Err(Trouble::Refused(refusal)) = &answer
        && matches!(refusal.code, RefusalCode::AddressTaken | RefusalCode::AddressInvalid)
        && world.plant != Some(Plant::RenewedAllOrNothing)
    {
        unmoved = answer.err();
        if !is_over {
            return Ok(unmoved);
        }
        answer = say(world, seat.0, Request::Renew(Renew { addresses: None, ..renew })).await;
    }
    if let Err(Trouble::Refused(refusal)) = &answer {
        judge_refusal(world, seat.0, refusal.code);
    }
    if let Answer::Renewed(renewed) = answer? {
        world.count("renewals");
        for (purpose, leaf) in files(&renewed.leaves, &keys) {
            let steps = ("daemon: before a new certificate", "daemon: after a new certificate");
            world.write(seat, steps, |disk| drop(disk.leaves.insert(purpose, leaf))).await;
        }
        take_over(world, seat, renewed.members).await;
    }
    Ok(unmoved)
}

/// What is asked for when it is time.
struct Due {
    role: NodeRole,
    keys: Keys,
    /// A certificate is half over.
    is_over: bool,
}

/// Whether it is time, and with which keys.
fn due(world: &World, number: usize) -> Option<Due> {
    let now = world.clock(number);
    let (role, has_moved, is_over, own) = {
        let machine = &world.machines.borrow()[number];
        let membership = machine.disk.membership.as_ref()?;
        let own = membership.members.iter().find(|member| member.id == membership.id);
        let has_moved = own.is_none_or(|own| own.addresses != [machine.address]);
        let middle =
            |leaf: &super::machine::Leaf| leaf.not_before + (leaf.not_after - leaf.not_before) / 2;
        let is_over = machine.disk.leaves.values().any(|leaf| now >= middle(leaf));
        let own = machine.disk.leaves.get(&Purpose::Node).map(|leaf| leaf.key);
        (membership.role, has_moved, is_over, own)
    };
    if !has_moved && !is_over {
        return None;
    }
    let keys = match role {
        NodeRole::Worker => generate(world, number, role),
        // The first key of a control-plane node names it for life.
        NodeRole::ControlPlane => vec![(Purpose::Node, own?)],
    };
    Some(Due { role, keys, is_over })
}

fn fits(world: &World, number: usize, fits: bool) {
    let mut machines = world.machines.borrow_mut();
    if let Some(leaf) = machines[number].disk.leaves.get_mut(&Purpose::Node) {
        leaf.fits = fits;
    }
}

/// A node that belongs here gets new certificates, whatever became of its former requests.
fn judge_refusal(world: &World, number: usize, code: RefusalCode) {
    let id = world.machines.borrow()[number].disk.membership.as_ref().map(|own| own.id);
    let now_us = world.now_us();
    let mut ledger = world.ledger();
    let lives = ledger.now(now_us).zip(id).is_some_and(|(record, id)| record.member(id).is_some());
    if lives && code == RefusalCode::IdentityStale {
        let what = format!("{number} is a member, and its key is not believed");
        ledger.promises.broke("renewal-locks-nobody-out", what);
    }
}

/// Writes the list when it says something else than before.
async fn take_over(world: &World, seat: Seat, members: Vec<MemberView>) {
    // Whoever tells of nobody knows nothing.
    if !members.iter().any(|member| member.role == NodeRole::ControlPlane) {
        return;
    }
    let is_news = {
        let machine = &world.machines.borrow()[seat.0];
        machine.disk.membership.as_ref().is_some_and(|own| own.members != members)
    };
    if !is_news {
        return;
    }
    let grows = world.plant == Some(Plant::ListsGrow);
    let steps = ("daemon: before its list", "daemon: after its list");
    let change = |disk: &mut super::machine::Disk| {
        let Some(own) = &mut disk.membership else { return };
        let gone = |old: &&MemberView| members.iter().all(|member| member.id != old.id);
        let kept: Vec<_> = own.members.iter().filter(gone).filter(|_| grows).cloned().collect();
        own.members = members.clone();
        own.members.extend(kept);
    };
    world.write(seat, steps, change).await;
}

fn hear(world: &World, number: usize, trouble: &Trouble) {
    if let Trouble::Refused(refusal) = trouble
        && matches!(refusal.code, RefusalCode::Removed | RefusalCode::NotMember)
    {
        world.machines.borrow_mut()[number].is_told = true;
    }
}

impl World {
    /// Between two looks of a node at its cluster; at the end it is production's.
    pub fn interval_us(&self) -> u64 {
        if self.quiet.get() { INTERVAL_US } else { self.form.interval_us }
    }

    /// How far a machine belongs to a cluster, by its disk.
    pub fn stage(&self, number: usize) -> Option<Stage> {
        let machines = self.machines.borrow();
        machines[number].disk.membership.as_ref().map(|membership| membership.stage)
    }
}
