//! What a quiet cluster costs: the figures of `docs/explanation/scale.md`.

use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use microcluster::desk::{Clock, Desk};
use microcluster::message::{Answer, Message, Request};
use microcluster::protocol::{Caller, RemoveRequest};
use microcluster::record::{ClusterRecord, NodeId, NodeRole};
use microcluster::store::{Change, MemoryStore, Store};
use time::OffsetDateTime;

use super::form::Form;
use super::history;
use super::keys::SimSigner;
use super::links::Links;
use super::people;
use super::trace::Trace;
use super::world::{BEGINNING, MINUTE_US, RELEASE, World};

const MINUTES: u64 = 60;
/// Changes that one decision may have.
const AT_ONCE: usize = 50;

/// Of one size, for a worker and minute and for the record and minute.
struct Figures {
    messages: f64,
    kib: f64,
    reads: f64,
    read_mib: f64,
    writes: f64,
    record_kib: f64,
    gone_s: f64,
    come_s: f64,
}

#[test]
fn a_quiet_cluster_costs_what_the_page_on_scale_says() {
    println!("nodes | messages, KiB a worker and minute | reads, MiB read, writes a minute |");
    println!("      | record KiB | s until all know of a removal, of a join");
    for nodes in [3, 10, 100] {
        let figures = measure(nodes);
        let Figures { messages, kib, reads, read_mib, writes, record_kib, gone_s, come_s } =
            figures;
        println!(
            "{nodes:>5} | {messages:.1}, {kib:.1} | {reads:.0}, {read_mib:.2}, {writes:.2} | \
             {record_kib:.1} | {gone_s:.1}, {come_s:.1}"
        );
        // Four questions and answers. Who decides itself asks nobody.
        let expected = if nodes > 3 { 8.0 } else { 0.0 };
        assert!((messages - expected).abs() < 0.5, "{messages} messages");
        assert!(gone_s < 20.0 && come_s < 20.0, "{gone_s} s, {come_s} s until all know");
    }
    println!(
        "members | record KiB | answer KiB | ms for one question at a desk, without the datastore"
    );
    for members in [3, 10, 100, 1000, 5000] {
        let (record_kib, answer_kib, ms) = one_question(members);
        println!("{members:>7} | {record_kib:.1} | {answer_kib:.1} | {ms:.3}");
    }
}

fn measure(nodes: usize) -> Figures {
    let (mut executor, world) = history::begin(1, Form::quiet(nodes + 1), None, Trace::new(false));
    let found: Rc<Mutex<Option<Figures>>> = Rc::default();
    let (told, inner) = (found.clone(), world.clone());
    executor.run(async move {
        let figures = live(&inner, nodes).await;
        *told.lock().unwrap() = Some(figures);
    });
    assert_eq!(world.ledger().promises.broken, Vec::<String>::new());
    let figures = found.lock().unwrap().take();
    figures.expect("it was measured")
}

async fn live(world: &Rc<World>, nodes: usize) -> Figures {
    history::grow(world).await;
    // The last machine goes, comes again when the others have been looked at, and is not counted.
    let last = nodes;
    let gone_s = until_all_know(world, last, false).await;
    world.power_off(last);
    let (messages, bytes) = sent(&world.links.borrow());
    let before = world.ledger().load;
    world.time.sleep(MINUTES * MINUTE_US).await;
    let (messages_after, bytes_after) = sent(&world.links.borrow());
    let (load, record_bytes) = {
        let ledger = world.ledger();
        (ledger.load, ledger.bytes())
    };
    let a_minute = |count: u64| count as f64 / MINUTES as f64;
    let workers = (nodes - nodes.min(3)).max(1) as f64;
    let figures = Figures {
        messages: a_minute(messages_after - messages) / workers,
        kib: a_minute(bytes_after - bytes) / workers / 1024.0,
        reads: a_minute(load.reads - before.reads),
        read_mib: a_minute(load.read_bytes - before.read_bytes) / f64::from(1 << 20),
        writes: a_minute(load.writes - before.writes),
        record_kib: record_bytes as f64 / 1024.0,
        gone_s,
        come_s: 0.0,
    };
    world.power_on(last);
    Figures { come_s: until_all_know(world, last, true).await, ..figures }
}

fn sent(links: &Links) -> (u64, u64) {
    (links.messages, links.bytes)
}

/// Removes the last machine, or has it join again; how long until every other one knows.
async fn until_all_know(world: &Rc<World>, last: usize, comes: bool) -> f64 {
    let own = || world.machines.borrow()[last].disk.membership.as_ref().map(|own| own.id);
    let (seat, desk) = people::a_desk(world).expect("somebody decides");
    let id: Option<NodeId> = match comes {
        true => {
            people::add_token(world, seat.0, &desk, Some((NodeRole::Worker, 1))).await;
            world.machines.borrow_mut()[last].disk = Default::default();
            world.kill_daemon(last);
            people::type_join(world, last);
            while own().is_none() {
                world.time.sleep(10_000).await;
            }
            own()
        }
        false => {
            let id = own();
            let name = world.machines.borrow()[last].name.parse().expect("a name");
            let here = world.machines.borrow()[seat.0].name.parse().expect("a name");
            world.ledger().promises.ordered_away(&name);
            let request = RemoveRequest { name, force: true, is_reachable: true, here };
            desk.remove(&request).await.expect("it can be removed");
            id
        }
    };
    let id = id.expect("it has been a member");
    let began_us = world.now_us();
    let all_know = || {
        let machines = world.machines.borrow();
        let knows = |machine: &super::machine::Machine| {
            let members = machine.disk.membership.as_ref().map(|own| &own.members);
            members.is_some_and(|all| all.iter().any(|member| member.id == id) == comes)
        };
        machines.iter().take(last).all(knows)
    };
    while !all_know() {
        world.time.sleep(10_000).await;
    }
    (world.now_us() - began_us) as f64 / 1e6
}

/// What one *members* costs a desk in a cluster of so many: the record is decoded from its bytes,
/// checked, and answered; the datastore's own part is not in it.
fn one_question(members: usize) -> (f64, f64, f64) {
    let (mut executor, world) = history::begin(1, Form::quiet(3), None, Trace::new(false));
    let grown = world.clone();
    executor.run(async move { history::grow(&grown).await });
    let record = world.ledger().assembled().expect("a record");
    let shown = world.machines.borrow()[1].shown();
    let store = filled(&record, members);
    let bytes = |entry: &Change| entry.to_write().value.map_or(0, |value| value.len());
    let kept = executor_free(store.read()).expect("it can be read");
    let record_bytes: usize = kept
        .members
        .values()
        .map(|member| bytes(&Change::member(member.value.clone(), member)))
        .sum();
    let signer = SimSigner { plant: None, last: Arc::default() };
    let desk = Desk::new(store, signer, Beginning, RELEASE);
    let caller = Caller::of(shown.as_deref()).expect("an identity");
    let message = Message { release: RELEASE, sent: BEGINNING, request: Request::Members {} };
    let asked = message.to_bytes();
    let rounds = (20_000 / members).clamp(3, 200);
    let (began, mut answer_bytes) = (Instant::now(), 0);
    for _ in 0..rounds {
        let answer = executor_free(desk.answer(&asked, &caller));
        assert!(matches!(answer, Answer::Members { .. }), "{answer:?}");
        answer_bytes = answer.to_bytes().len();
    }
    let ms = began.elapsed().as_secs_f64() * 1000.0 / rounds as f64;
    (record_bytes as f64 / 1024.0, answer_bytes as f64 / 1024.0, ms)
}

/// A clock that stands still.
struct Beginning;

impl Clock for Beginning {
    fn now(&self) -> OffsetDateTime {
        BEGINNING
    }
}

/// Work that waits for nobody.
fn executor_free<T>(work: impl Future<Output = T>) -> T {
    futures::FutureExt::now_or_never(work).expect("it waits for nobody")
}

/// A record with so many members, each like one that joined.
fn filled(record: &ClusterRecord, members: usize) -> MemoryStore {
    let store = MemoryStore::default();
    let first = vec![
        Change::PutSettings { settings: Box::new(record.settings.value.clone()), was: None },
        Change::PutMembership { membership: record.membership.value, was: None },
    ];
    let of_record = record.living().cloned();
    let model = record.living().last().expect("somebody is there").clone();
    let more = (record.members.len()..members).map(|number| {
        let mut member = model.clone();
        member.name = format!("node-{number}").parse().expect("a name");
        member.id = NodeId::of_key(&number.to_be_bytes());
        let [high, low] = (number as u16).to_be_bytes();
        member.addresses = vec![[172, 17, high, low].into()];
        member
    });
    let all = of_record.chain(more).take(members);
    let puts = all.map(|member| Change::PutMember { member: Box::new(member), was: None });
    let changes: Vec<Change> = first.into_iter().chain(puts).collect();
    for changes in changes.chunks(AT_ONCE) {
        store.apply_now(changes).expect("nobody is in between");
    }
    store
}
