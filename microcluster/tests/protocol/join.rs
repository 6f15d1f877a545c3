//! `skiff join` and `skiff reset`, step by step as `src/node/cluster/join.rs` and
//! `src/cli/commands/join.rs` do them: every write and every wait is a step at which they may die.

use std::pin::pin;
use std::rc::Rc;

use futures::future::{Either, select};
use microcluster::message::{
    Answer, Applicant, Choices, Enter, Entered, Entrant, GivenUp, RefusalCode, Request, Undo,
};
use microcluster::protocol::CLOCKS_APART_MAX;
use microcluster::record::NodeRole;
use microcluster::token::{JoinToken, Proven, Statement};
use microcluster::trust::{IssuedLeaf, Purpose, read_identity};

use super::keys::key;
use super::leaf;
use super::leave;
use super::links::{Shows, Trouble, ask};
use super::machine::{Begun, Disk, Leaf, Membership, Stage, Stand, Step};
use super::plant::Plant;
use super::store::Seat;
use super::world::{KUBERNETES, World};

const TRIES_MAX: u32 = 5;
const TRY_PAUSE_US: u64 = 1_000_000;
const TAKE_BACK_US: u64 = 20_000_000;
const READY_US: u64 = 300_000_000;

/// Keys by their purpose.
pub type Keys = Vec<(Purpose, usize)>;

/// Fresh keys of a node of this role.
pub fn generate(world: &World, number: usize, role: NodeRole) -> Keys {
    let all = Purpose::ALL.into_iter().filter(|purpose| purpose.is_for(role));
    let wanted = all.filter(|purpose| world.form.all_leaves || *purpose == Purpose::Node);
    wanted.map(|purpose| (purpose, world.new_key(number, purpose))).collect()
}

/// The certificates of an answer with their keys, as files.
pub fn files(leaves: &[IssuedLeaf], keys: &[(Purpose, usize)]) -> Vec<(Purpose, Leaf)> {
    let file = |issued: &IssuedLeaf| {
        let (purpose, key) = *keys.iter().find(|(purpose, _)| *purpose == issued.purpose)?;
        let der = leaf::der(&issued.certificate);
        let not_after = issued.not_after;
        let not_before = match read_identity(&der) {
            Ok(identity) => identity.not_before,
            Err(_) => not_after - microcluster::trust::LEAF_LIFE,
        };
        Some((purpose, Leaf { der, key, not_before, not_after, fits: true }))
    };
    leaves.iter().filter_map(file).collect()
}

/// `skiff join TOKEN`.
pub async fn join(world: Rc<World>, seat: Seat, token: JoinToken) {
    let number = seat.0;
    let stand = world.machines.borrow()[number].stand();
    match stand {
        Stand::Free => {}
        Stand::Member(_) => return,
        Stand::Settled => return finish(&world, seat, &token).await,
        Stand::CutOff(begun) => {
            tell_taken_back(&world, number, &begun).await;
            wipe(&world, seat).await;
        }
    }
    world.count("joins begun");
    let Some(apart) = look(&world, number, &token).await else { return };
    if apart > CLOCKS_APART_MAX {
        return;
    }
    let role = world.machines.borrow()[number].role;
    let keys = generate(&world, number, role);
    let mut applicant = applicant(&world, number, &keys);
    match state_and_ask(&world, number, &token, &applicant).await {
        Ok(Answer::Asked(_)) => {}
        Err(Trouble::Refused(refusal)) => return throw_away(&world, &token, refusal.code),
        _ => return,
    }
    applicant.sent = world.clock(number);
    let interrupt = world.machines.borrow()[number].interrupt.clone();
    let entered = {
        let entering = pin!(enter(&world, seat, &token, applicant, keys));
        match select(entering, pin!(interrupt.notified())).await {
            Either::Left((entered, _)) => entered,
            Either::Right(_) => false,
        }
    };
    match entered {
        true => finish(&world, seat, &token).await,
        false => undo(&world, seat).await,
    }
}

/// A token that is no good any more is not kept, as a rule.
fn throw_away(world: &World, token: &JoinToken, code: RefusalCode) {
    use RefusalCode::{TokenExpired, TokenRevoked, TokenUnknown, TokenUsed, TokenWornOut};
    let no_good = [TokenExpired, TokenRevoked, TokenUnknown, TokenUsed, TokenWornOut];
    if no_good.contains(&code) && world.happens(900) {
        world.handed.borrow_mut().retain(|handed| handed.token.id() != token.id());
    }
}

/// How far apart the clocks are, when anybody answers.
async fn look(world: &Rc<World>, number: usize, token: &JoinToken) -> Option<time::Duration> {
    for address in endpoints(token) {
        let us = world.within(500, 4_000);
        world.time.sleep(us).await;
        let there = world.at(address).filter(|n| world.machines.borrow()[*n].daemon.is_some());
        if let Some(there) = there {
            return Some((world.clock(number) - world.clock(there)).abs());
        }
    }
    None
}

fn endpoints(token: &JoinToken) -> Vec<std::net::IpAddr> {
    use microcluster::endpoint::Host;
    let address = |host: &Host| match host {
        Host::Address(address) => Some(*address),
        Host::Name(_) => None,
    };
    token.addresses().iter().filter_map(|endpoint| address(endpoint.host())).collect()
}

fn applicant(world: &World, number: usize, keys: &[(Purpose, usize)]) -> Applicant {
    let machine = &world.machines.borrow()[number];
    Applicant {
        id: key(keys[0].1).id,
        name: machine.name.clone(),
        role: machine.role,
        addresses: vec![machine.address],
        kubernetes: KUBERNETES,
        failure_domain: String::new(),
        choices: Choices::default(),
        member_of: None,
        sent: world.clock(number),
    }
}

async fn state_and_ask<S: Statement>(
    world: &Rc<World>,
    number: usize,
    token: &JoinToken,
    statement: &S,
) -> Result<Answer, Trouble> {
    let proven = Proven::state(token, statement).expect("a statement can be written");
    let request = match S::KIND {
        "ask" => Request::Ask(proven),
        "enter" => Request::Enter(Enter::Proven(proven)),
        _ => Request::Undo(Undo::Proven(proven)),
    };
    again(world, number, token, request).await
}

/// Asks again while nobody knows what became of it.
async fn again(
    world: &Rc<World>,
    number: usize,
    token: &JoinToken,
    request: Request,
) -> Result<Answer, Trouble> {
    let mut tries_left = TRIES_MAX;
    loop {
        let outcome = ask(world, number, &endpoints(token), request.clone(), Shows::Nothing).await;
        tries_left -= 1;
        let is_passing = match &outcome {
            Err(Trouble::Unsure) => true,
            Err(Trouble::Refused(refusal)) => refusal.is_passing(),
            _ => false,
        };
        if !is_passing || tries_left == 0 {
            return outcome;
        }
        world.time.sleep(TRY_PAUSE_US).await;
    }
}

async fn enter(
    world: &Rc<World>,
    seat: Seat,
    token: &JoinToken,
    mut applicant: Applicant,
    mut keys: Keys,
) -> bool {
    let begun = Begun { token: token.clone(), id: applicant.id };
    let line = ("join: before its line", "join: after its line");
    world.write(seat, line, |disk| disk.begun = Some(begun)).await;
    let role = applicant.role;
    let recipient = match role {
        NodeRole::ControlPlane => Some(format!("age1{}", applicant.id)),
        NodeRole::Worker => None,
    };
    world.ledger().promises.stated(applicant.id, recipient.clone());
    let mut tries_left = if world.plant == Some(Plant::KeyPerTry) { TRIES_MAX } else { 1 };
    let answer = loop {
        let request = |(purpose, number): &(Purpose, usize)| key(*number).request(*purpose);
        let requests = keys.iter().map(request).collect();
        let recipient = recipient.clone();
        let entrant = Entrant { applicant: applicant.clone(), requests, recipient };
        let answer = state_and_ask(world, seat.0, token, &entrant).await;
        tries_left -= 1;
        if tries_left == 0 || answer.is_ok() {
            break answer;
        }
        keys = generate(world, seat.0, role);
        applicant.id = key(keys[0].1).id;
    };
    match answer {
        Ok(Answer::Entered(entered)) => {
            settle(world, seat, token, *entered, &keys).await;
            true
        }
        _ => false,
    }
}

/// Writes what the cluster has answered. The membership comes last: it is what counts.
async fn settle(
    world: &World,
    seat: Seat,
    token: &JoinToken,
    entered: Entered,
    keys: &[(Purpose, usize)],
) {
    world.note(format_args!("{}: entered as {} ({})", seat.0, entered.name, entered.id));
    for (purpose, leaf) in files(&entered.leaves, keys) {
        let steps = ("join: before a certificate", "join: after a certificate");
        world.write(seat, steps, |disk| drop(disk.leaves.insert(purpose, leaf))).await;
    }
    let membership = Membership {
        name: entered.name,
        id: entered.id,
        role: entered.role,
        stage: Stage::Joining,
        members: entered.members,
        endpoints: endpoints(token),
    };
    let steps = ("join: before the membership", "join: after the membership");
    world.write(seat, steps, |disk| disk.membership = Some(membership)).await;
    let steps = ("join: before its line goes", "join: after its line goes");
    world.write(seat, steps, |disk| disk.begun = None).await;
}

/// Starts the daemons and waits until they have finished the join.
async fn finish(world: &Rc<World>, seat: Seat, token: &JoinToken) {
    let number = seat.0;
    world.start_daemon(number);
    let interrupt = world.machines.borrow()[number].interrupt.clone();
    let joined = async {
        while !matches!(world.machines.borrow()[number].stand(), Stand::Member(_)) {
            world.time.sleep(1_000_000).await;
        }
    };
    let waited = pin!(world.time.timeout(READY_US, joined));
    if let Either::Left((Some(()), _)) = select(waited, pin!(interrupt.notified())).await {
        world.count("joins done");
        return;
    }
    let id = world.machines.borrow()[number].disk.membership.as_ref().map(|own| own.id);
    let Some(id) = id else { return };
    let begun = Begun { token: token.clone(), id };
    let steps = ("undo: before its line", "undo: after its line");
    world.write(seat, steps, |disk| disk.begun = Some(begun)).await;
    undo(world, seat).await;
}

/// Makes everything as it was: at the cluster first, which may say that the join is over.
async fn undo(world: &Rc<World>, seat: Seat) {
    world.count("joins undone");
    let begun = world.machines.borrow()[seat.0].disk.begun.clone();
    if let Some(begun) = begun
        && world.plant != Some(Plant::UndoneUntold)
        && tell_taken_back(world, seat.0, &begun).await
    {
        let steps = ("undo: before its line goes", "undo: after its line goes");
        return world.write(seat, steps, |disk| disk.begun = None).await;
    }
    wipe(world, seat).await;
}

/// True when the join is over and the node is a member.
async fn tell_taken_back(world: &Rc<World>, number: usize, begun: &Begun) -> bool {
    let given_up = GivenUp { id: begun.id };
    let telling = state_and_ask(world, number, &begun.token, &given_up);
    match world.time.timeout(TAKE_BACK_US, telling).await {
        Some(Ok(_)) => false,
        Some(Err(Trouble::Refused(refusal))) if refusal.code == RefusalCode::AlreadyMember => true,
        _ => {
            world.machines.borrow_mut()[number].untold.push(begun.id);
            false
        }
    }
}

/// `skiff reset`: tells the cluster, when it answers, and removes everything.
pub async fn reset(world: Rc<World>, seat: Seat) {
    let number = seat.0;
    let stand = world.machines.borrow()[number].stand();
    world.count("resets");
    match stand {
        Stand::CutOff(begun) => {
            tell_taken_back(&world, number, &begun).await;
        }
        Stand::Settled | Stand::Member(_) => {
            let told = world.time.timeout(TAKE_BACK_US, depart(&world, seat)).await;
            let own = world.machines.borrow()[number].disk.membership.as_ref().map(|own| own.id);
            if told != Some(true) {
                world.machines.borrow_mut()[number].untold.extend(own);
            }
        }
        Stand::Free => return,
    }
    wipe(&world, seat).await;
}

async fn depart(world: &Rc<World>, seat: Seat) -> bool {
    if world.stage(seat.0) != Some(Stage::Joining) {
        return match leave::begin(world, seat).await {
            None => false,
            Some(Step::Gone) => true,
            Some(Step::Moving | Step::Going) => leave::finish(world, seat).await,
        };
    }
    let addresses = world.machines.borrow()[seat.0].addresses();
    let undo = Request::Undo(Undo::Own {});
    ask(world, seat.0, &addresses, undo, Shows::Identity).await.is_ok()
}

/// Everything of the node goes, in any order.
pub async fn wipe(world: &World, seat: Seat) {
    world.kill_daemon(seat.0);
    let membership_first = world.happens(500);
    let steps = ("reset: before anything goes", "reset: after something is gone");
    world
        .write(seat, steps, |disk| match membership_first {
            true => disk.membership = None,
            false => disk.begun = None,
        })
        .await;
    let steps = ("reset: before the rest goes", "reset: after all is gone");
    world.write(seat, steps, |disk| *disk = Disk::default()).await;
    // It may have been started meanwhile.
    world.kill_daemon(seat.0);
    let mut machines = world.machines.borrow_mut();
    let machine = &mut machines[seat.0];
    (machine.is_told, machine.is_resetting) = (false, false);
    world.ledger().out.remove(&seat.0);
    drop(machines);
    world.note(format_args!("{}: is as new", seat.0));
}
