//! One history: a cluster is founded and grows, things go wrong, everything is repaired, and in the
//! end all must be as it should.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use microcluster::protocol::{Founder, JOIN_TIME_MAX, decide_found};
use microcluster::record::{
    API_PORT_DEFAULT, ClusterId, ClusterSettings, MemberRecord, MemberState, MemberView, NodeRole,
    Rest, RotationRecord, SharedSettings,
};
use microcluster::store::Change;
use microcluster::trust::{Purpose, Signer, order_leaf, read_request};

use super::chance::Chance;
use super::daemon::INTERVAL_US;
use super::executor::Executor;
use super::faults;
use super::form::Form;
use super::join::files;
use super::keys::{authority, key};
use super::ledger::{Ledger, Load};
use super::machine::{Disk, Machine, Membership, Stage, Stand};
use super::people;
use super::plant::Plant;
use super::promises::Promises;
use super::trace::Trace;
use super::world::{BEGINNING, KUBERNETES, MINUTE_US, RELEASE, World};

/// When all is well, every join and every reset has ended after this: a command waits five minutes
/// for its node to be ready, and before and after that for answers that never come.
const HEAL_US: u64 = 7 * MINUTE_US;
/// And everybody knows of a change after this.
const KNOW_US: u64 = INTERVAL_US + 5_000_000;

/// What came out.
#[derive(Clone, Debug, Default)]
pub struct Judgement {
    pub seed: u64,
    pub digest: u64,
    pub broken: Vec<String>,
    pub counts: BTreeMap<&'static str, u64>,
    pub steps: BTreeMap<&'static str, u64>,
    pub load: Load,
    pub messages: u64,
    pub machines: usize,
    pub simulated_us: u64,
    pub words: String,
}

/// Runs the history of one seed.
pub fn run(seed: u64, plant: Option<Plant>, in_words: bool) -> Judgement {
    let form = Form::choose(&mut Chance::new(seed, 1));
    let trace = Trace::new(in_words);
    let judged = {
        let trace = trace.clone();
        catch_unwind(AssertUnwindSafe(|| lived(seed, form, plant, trace)))
    };
    match judged {
        Ok(judgement) => judgement,
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
            let broken = vec![format!("nothing-panics: {}", text.unwrap_or("?"))];
            let (digest, words) = (trace.digest(), trace.words());
            Judgement { seed, digest, broken, words, ..Judgement::default() }
        }
    }
}

fn lived(seed: u64, form: Form, plant: Option<Plant>, trace: Trace) -> Judgement {
    let (mut executor, world) = begin(seed, form, plant, trace);
    executor.run(live(world.clone()));
    let ledger = world.ledger();
    Judgement {
        seed,
        digest: world.trace.digest(),
        broken: ledger.promises.broken.clone(),
        counts: world.counts.borrow().clone(),
        steps: world.falls.counts(),
        load: ledger.load,
        messages: world.links.borrow().messages,
        machines: world.form.machines,
        simulated_us: world.now_us(),
        words: world.trace.words(),
    }
}

/// A world in which nothing has happened.
pub fn begin(seed: u64, form: Form, plant: Option<Plant>, trace: Trace) -> (Executor, Rc<World>) {
    let executor = Executor::new(Chance::new(seed, 2));
    let ledger = Ledger::new(Promises::default(), plant, Chance::new(seed, 3));
    let chances = (Chance::new(seed, 4), Chance::new(seed, 5), Chance::new(seed, 6));
    let clock = (executor.time.clone(), executor.tasks.clone());
    let world = World::new(clock, form, ledger, chances, trace);
    world.note(format_args!("{:?}", world.form));
    (executor, world)
}

async fn live(world: Rc<World>) {
    grow(&world).await;
    world.falls.set(world.form.falls);
    world.ledger().unknown = world.form.unknown;
    let people = world.tasks.process();
    for number in 0..world.form.machines {
        world.tasks.spawn(people, people::person(world.clone(), number));
    }
    world.tasks.spawn(people, people::administrator(world.clone()));
    world.tasks.spawn(people, faults::harm(world.clone()));
    world.tasks.spawn(people, faults::eavesdrop(world.clone()));
    world.time.sleep(world.form.trouble_us).await;
    faults::repair(&world);
    let repaired_us = world.now_us();
    for number in 0..world.form.machines {
        world.tasks.spawn(people, people::tidy(world.clone(), number));
    }
    world.time.sleep(HEAL_US).await;
    reset_stranded(&world);
    check_machines(&world, repaired_us);
    people::remove_left_behind(world.clone()).await;
    if people::a_desk(&world).is_none() {
        // Its last control-plane node was reset when the cluster could not be told.
        return world.count("clusters ended");
    }
    // One change may be what another one waits for: an address that is free now, say.
    let mut looks_left = 10;
    while world.now_us() < world.ledger().changed_us + KNOW_US && looks_left > 0 {
        let known_us = world.ledger().changed_us + KNOW_US;
        world.time.sleep_until(known_us).await;
        looks_left -= 1;
    }
    check_agreement(&world);
    for number in 0..world.form.machines {
        if world.machines.borrow()[number].desk.is_none() {
            world.power_off(number);
        }
    }
    world.time.sleep(JOIN_TIME_MAX.whole_microseconds() as u64 + 12 * MINUTE_US).await;
    check_record(&world);
}

/// A cluster of one, then of as many as there are at the beginning; nothing goes wrong yet.
pub async fn grow(world: &Rc<World>) {
    make_machines(world);
    found(world).await;
    let process = world.tasks.process();
    world.tasks.spawn(process, faults::restart(world.clone()));
    let deciders = world.form.deciders as u32;
    let workers = match world.form.trouble_us {
        0 => world.form.machines as u32 - deciders,
        _ => world.within(0, world.form.machines as u64 - u64::from(deciders) + 1) as u32,
    };
    for (role, uses, first) in [
        (NodeRole::ControlPlane, deciders - 1, 1),
        (NodeRole::Worker, workers, world.form.deciders),
    ] {
        let desk = world.machines.borrow()[0].desk.clone();
        let Some(desk) = desk.filter(|_| uses > 0) else { continue };
        people::add_token(world, 0, &desk, Some((role, uses))).await;
        // Twins would be refused.
        let is_of_role = |n: &usize| {
            let machine = &world.machines.borrow()[*n];
            machine.role == role && machine.name == format!("n{n}")
        };
        let joiners: Vec<usize> =
            (first..world.form.machines).filter(is_of_role).take(uses as usize).collect();
        joiners.iter().for_each(|number| people::type_join(world, *number));
        let are_in = || {
            let machines = world.machines.borrow();
            joiners.iter().all(|n| matches!(machines[*n].stand(), Stand::Member(_)))
        };
        let mut seconds_left = 900;
        while !are_in() && seconds_left > 0 {
            world.time.sleep(1_000_000).await;
            seconds_left -= 1;
        }
        if seconds_left == 0 {
            world.ledger().promises.broke("joins-end-in-time", "before any harm".into());
        }
        world.handed.borrow_mut().clear();
    }
}

fn make_machines(world: &World) {
    let mut deciders = 0;
    for number in 0..world.form.machines {
        let is_quiet = world.form.trouble_us == 0;
        let more = !is_quiet && deciders < 6 && world.happens(120);
        let decides = number < world.form.deciders || more;
        deciders += u32::from(decides);
        let role = if decides { NodeRole::ControlPlane } else { NodeRole::Worker };
        // Some want what another one wants.
        let twin = number > world.form.deciders && !is_quiet && world.happens(100);
        let name = format!("n{}", if twin { number - 1 } else { number });
        let address = world.fresh_address();
        let machine = Machine::new(name, role, address);
        machine.set_clock(world.within(0, 20_000_000) as i64 - 10_000_000);
        world.machines.borrow_mut().push(machine);
    }
}

/// As `src/node/cluster/found.rs` does it.
async fn found(world: &Rc<World>) {
    let number = world.new_key(0, Purpose::Node);
    let own = key(number);
    let settings = ClusterSettings {
        cluster: ClusterId("sea".into()),
        pod_cidrs: vec!["10.1.0.0/16".parse().expect("a range")],
        service_cidrs: vec!["10.152.183.0/24".parse().expect("a range")],
        dns_domain: "cluster.local".into(),
        dns_address: [10, 152, 183, 10].into(),
        api_names: vec![],
        api_port: API_PORT_DEFAULT,
        authorities: vec![authority().fingerprint],
        datastore: None,
        shared: SharedSettings::default(),
        rotation: RotationRecord::default(),
        rest: Rest::default(),
    };
    let founder = Founder {
        name: "n0".parse().expect("a name"),
        addresses: vec![world.machines.borrow()[0].address],
        public_key: own.public_key.clone(),
        release: RELEASE,
        kubernetes: KUBERNETES,
        failure_domain: String::new(),
    };
    let decided = decide_found(&settings, &founder, BEGINNING).expect("a cluster can be founded");
    let member = decided.changes.into_iter().find_map(|change| match change {
        Change::PutMember { member, .. } => Some(*member),
        _ => None,
    });
    let member = member.expect("a founder is a member");
    let request = own.request(Purpose::Node).request;
    let request = data_encoding::BASE64.decode(request.as_bytes()).expect("base64");
    let proven = read_request(&request).expect("a request of ours");
    let order = order_leaf(Purpose::Node, &member, &proven, BEGINNING);
    let issued = world.signer.sign(&order, &settings).expect("it can be signed");
    let membership = Membership {
        name: member.name.clone(),
        id: member.id,
        role: member.role,
        stage: Stage::Member,
        members: vec![member.view()],
        endpoints: vec![],
    };
    {
        let disk = &mut world.machines.borrow_mut()[0].disk;
        disk.membership = Some(membership);
        disk.leaves = files(&[issued], &[(Purpose::Node, number)]).into_iter().collect();
    }
    world.open_desk((0, world.tasks.process()));
    let desk = world.machines.borrow()[0].desk.clone().expect("it decides");
    desk.found(&settings, &founder).await.expect("nothing is wrong yet");
    world.machines.borrow_mut()[0].desk = None;
    world.start_daemon(0);
}

/// Nodes that know nobody of the control plane any more: all of it was replaced while they were cut
/// off. Somebody resets them.
fn reset_stranded(world: &World) {
    let mut machines = world.machines.borrow_mut();
    let decides = |machine: &&Machine| machine.desk.is_some();
    let out = world.ledger().out.clone();
    let there = machines.iter().enumerate().filter(|(number, _)| !out.contains(number));
    let there: Vec<_> =
        there.map(|(_, machine)| machine).filter(decides).map(|m| m.address).collect();
    for machine in machines.iter_mut().filter(|machine| machine.desk.is_none()) {
        let knows = machine.addresses();
        let Some(own) = &machine.disk.membership else { continue };
        if !knows.iter().any(|address| there.contains(address)) {
            machine.untold.push(own.id);
            machine.disk = Disk::default();
            world.count("stranded");
        }
    }
}

/// After the repair every machine has ended what it had begun, and every node is believed.
fn check_machines(world: &World, repaired_us: u64) {
    let mut wrong = Vec::new();
    for number in 0..world.form.machines {
        let now = world.clock(number);
        let machine = &world.machines.borrow()[number];
        match machine.stand() {
            Stand::Free => {}
            Stand::CutOff(_) => wrong.push(("joins-end-in-time", format!("{number} is cut off"))),
            Stand::Settled => wrong.push(("joins-end-in-time", format!("{number} joins still"))),
            Stand::Member(_) if machine.heard_us < repaired_us => {
                wrong.push(("nobody-is-locked-out", format!("{number} was told nothing")));
            }
            Stand::Member(_) => {
                let leaf = machine.disk.leaves.get(&Purpose::Node);
                if leaf.is_none_or(|leaf| now < leaf.not_before || now > leaf.not_after) {
                    wrong.push(("nobody-is-locked-out", format!("{number} has no valid leaf")));
                }
            }
        }
    }
    for (name, what) in wrong {
        world.ledger().promises.broke(name, what);
    }
}

/// What is told of a member, but for the time.
fn facts(member: &MemberView) -> impl PartialEq + use<> {
    let state = std::mem::discriminant(&member.state);
    (member.name.clone(), member.id, member.role, state, member.addresses.clone())
}

/// The record and every node say the same.
fn check_agreement(world: &World) {
    let now_us = world.now_us();
    let record = world.ledger().now(now_us).cloned();
    let Some(record) = record else { return };
    let views: Vec<MemberView> = record.living().map(MemberRecord::view).collect();
    let truth: Vec<_> = views.iter().map(facts).collect();
    let mut wrong = Vec::new();
    let mut members = 0;
    for (number, machine) in world.machines.borrow().iter().enumerate() {
        let Some(own) = &machine.disk.membership else { continue };
        members += 1;
        let there = record.member(own.id);
        if there.is_none_or(|there| !matches!(there.value.state, MemberState::Member)) {
            wrong.push(("done-or-undone", format!("{number} is a member only by itself")));
            continue;
        }
        let told: Vec<_> = own.members.iter().map(facts).collect();
        if told != truth {
            let what = format!("{number} knows of {} and there are {}", told.len(), truth.len());
            wrong.push(("lists-converge", what));
        }
    }
    let joins = |member: &&MemberRecord| matches!(member.state, MemberState::Joining { .. });
    let there = record.living().filter(|member| !joins(member)).count();
    if there != members {
        wrong.push(("done-or-undone", format!("{there} members in the record, {members} nodes")));
    }
    for (name, what) in wrong {
        world.ledger().promises.broke(name, what);
    }
}

/// Joins that nobody finished are forgotten, and what is kept is what was read all the time.
fn check_record(world: &World) {
    let now_us = world.now_us();
    let mut ledger = world.ledger();
    let Some(record) = ledger.now(now_us).cloned() else { return };
    for member in record.living() {
        if matches!(member.state, MemberState::Joining { .. }) {
            let what = format!("{} joins for ever", member.name);
            ledger.promises.broke("joins-end-in-time", what);
        }
    }
    match ledger.assembled() {
        Ok(kept) if kept == record => {}
        Ok(_) => ledger.promises.broke("record-makes-sense", "it is not what is kept".into()),
        Err(error) => ledger.promises.broke("record-makes-sense", error.to_string()),
    }
}
