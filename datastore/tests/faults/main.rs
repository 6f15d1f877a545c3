//! Real members under real faults, whose history is checked: kill -9, SIGSTOP,
//! partitions of namespaces, slow, full, failing and power-cut disks, clocks
//! that jump. Needs root, namespaces, TUN devices and /dev/fuse.
//!
//! `SKIFF_TEST_FAULTS=full` runs the long form; `SKIFF_TEST_SEED=7` repeats the
//! faults of seed 7, though not the order in which processes are scheduled.
#![allow(clippy::unwrap_used)] // a test that panics says where

mod clients;
mod clock;
#[allow(dead_code)] // what members without a namespace need
#[path = "../members/cluster.rs"]
mod cluster;
mod disks;
mod harm;
#[allow(dead_code)] // what only members that keep running need
#[path = "../members/network.rs"]
mod network;
mod watchers;
#[path = "../members/wire.rs"]
mod wire;
mod world;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant, SystemTime};

use datastore_history::chance::Chance;
use datastore_history::promises::{Truth, check};
use datastore_history::record::{Came, Record, Request, Watched, Wish};
use skiff_datastore::Listen;
use skiff_datastore::proto::HashKvRequest;
use skiff_datastore::proto::maintenance_client::MaintenanceClient;
use tokio::sync::watch;

use clients::{Client, ask, connect};
use cluster::PATIENCE;
use harm::{Harm, harm, look_after_all};
use watchers::{Watcher, read_truth};
use world::{MEMBERS, World};

/// Histories, and how long harm is done in each: in every test run, and in the
/// long form.
const SHORT: (u64, Duration) = (2, Duration::from_secs(20));
const FULL: (u64, Duration) = (30, Duration::from_secs(60));
const CLIENTS: u64 = 12;
const WATCHERS: u64 = 2;

/// What was seen of one history.
struct History {
    requests: Vec<Request>,
    watched: Vec<Watched>,
    truth: Truth,
    harm: Harm,
    broken: Vec<String>,
}

/// They want the machine: one after the other.
static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// Why these tests can't run here, if so.
fn missing() -> Option<&'static str> {
    let fuse = std::fs::metadata("/dev/fuse").is_err().then_some("there is no /dev/fuse");
    network::missing().or(fuse)
}

#[tokio::test]
async fn what_clients_see_of_members_under_faults_is_what_was_promised() {
    let _turn = TURN.lock().await;
    if let Some(reason) = missing() {
        eprintln!("skipped: {reason}");
        return;
    }
    let is_full = std::env::var("SKIFF_TEST_FAULTS").is_ok_and(|form| form == "full");
    let (count, time) = if is_full { FULL } else { SHORT };
    let seed = std::env::var("SKIFF_TEST_SEED").ok().and_then(|text| text.parse().ok());
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let seeds = seed.map_or(now..now + count, |seed| seed..seed + 1);
    for seed in seeds {
        println!("seed {seed}");
        let mut world = World::start().await;
        let history = live(&mut world, seed, time).await;
        println!("{}", line(&history));
        assert!(history.broken.is_empty(), "seed {seed}: {:#?}", history.broken);
        assert_liars_are_found(&history);
    }
}

/// First everything may go wrong; then nothing does, and all must be well.
async fn live(world: &mut World, seed: u64, time: Duration) -> History {
    let began = Instant::now();
    let record = Arc::new(Record::default());
    let sockets: Vec<PathBuf> = (0..MEMBERS).map(|host| world.network.socket(host)).collect();
    let (stop, stopped) = watch::channel(false);
    let (last, last_seen) = watch::channel(0);
    let values = Arc::new(AtomicU64::new(1));
    let client = |number: u64| {
        let mut chance = Chance::new(seed, 100 + number);
        let patience = Duration::from_millis(*chance.pick(&[300, 1_000, 10_000]));
        let (sockets, record, values) = (sockets.clone(), record.clone(), values.clone());
        let pause = (1, 40);
        let client = Client { sockets, record, chance, values, began, patience, pause };
        tokio::spawn(client.run(stopped.clone()))
    };
    let clients: Vec<_> = (0..CLIENTS).map(client).collect();
    let watcher = |number: u64| {
        let (sockets, record, last) = (sockets.clone(), record.clone(), last_seen.clone());
        let chance = Chance::new(seed, 200 + number);
        let deadline = began + time + PATIENCE * 2;
        tokio::spawn(Watcher { sockets, record, chance, last, deadline }.run())
    };
    let watching: Vec<_> = (0..WATCHERS).map(watcher).collect();
    let mut harm = harm(world, Chance::new(seed, 5), began + time).await;
    stop.send_replace(true);
    for client in clients {
        client.await.unwrap();
    }
    let mut broken = Vec::new();
    let head = heal(world, &mut harm, &sockets, &mut broken).await;
    last.send_replace(head);
    for watcher in watching {
        watcher.await.unwrap();
    }
    let truth = agree(&sockets, head, &mut broken).await;
    let requests = record.requests.lock().unwrap().clone();
    let watched = record.watched.lock().unwrap().clone();
    broken.extend(check(&requests, &watched, &truth));
    let logs = world.network.logs();
    broken.extend(logs.lines().filter(|line| line.contains("panicked")).map(str::to_owned));
    // Only what we kill ourselves ends by a signal.
    broken.extend(harm.ended.iter().filter(|how| how.contains("signal")).cloned());
    History { requests, watched, truth, harm, broken }
}

/// `heals`: every member takes a write; the last revision.
async fn heal(
    world: &mut World,
    harm: &mut Harm,
    sockets: &[PathBuf],
    broken: &mut Vec<String>,
) -> i64 {
    let began = Instant::now();
    let mut head = 0;
    // Values that no client writes; each once, for what came of a former one may be unknown.
    let mut values = (0..u64::MAX).rev();
    for (host, socket) in sockets.iter().enumerate() {
        loop {
            look_after_all(world, harm);
            let value = values.next().expect("there are plenty");
            let wish = Wish::Put { keys: vec![0], value };
            let asking = async { Some(ask(&mut connect(socket).await?, &wish).await) };
            let came = tokio::time::timeout(Duration::from_secs(2), asking).await;
            if let Ok(Some(Came::Done { revision, .. })) = came {
                head = head.max(revision);
                break;
            }
            if began.elapsed() > PATIENCE {
                broken.push(format!("heals: member {host} answers {came:?}"));
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    println!("all members take writes {:?} after the last fault", began.elapsed());
    head
}

/// `members-agree`: all have the same history, which is the truth.
async fn agree(sockets: &[PathBuf], head: i64, broken: &mut Vec<String>) -> Truth {
    let mut all = Vec::new();
    for (host, socket) in sockets.iter().enumerate() {
        let truth = read_truth(socket, head).await;
        let channel = skiff_datastore::probe::connect(&Listen::Unix(socket.clone())).await;
        let hash = match channel {
            Ok(channel) => {
                let request = HashKvRequest { revision: head };
                let hash = MaintenanceClient::new(channel).hash_kv(request).await;
                hash.map(|answer| answer.into_inner().hash).map_err(|status| status.to_string())
            }
            Err(error) => Err(error.to_string()),
        };
        match (truth, hash) {
            (Some(truth), Ok(hash)) => all.push((truth, hash)),
            (truth, hash) => broken.push(format!(
                "members-agree: member {host} tells {:?}, hash {hash:?}",
                truth.map(|truth| truth.events.len())
            )),
        }
    }
    if all.iter().any(|one| *one != all[0]) {
        let seen: Vec<_> = all.iter().map(|(truth, hash)| (truth.events.len(), hash)).collect();
        broken.push(format!("members-agree: they differ: {seen:?}"));
    }
    all.into_iter().next().map_or(Truth { events: Default::default(), head }, |(truth, _)| truth)
}

fn line(history: &History) -> String {
    let count =
        |came: fn(&Came) -> bool| history.requests.iter().filter(|one| came(&one.came)).count();
    format!(
        "{} requests: {} done, {} refused, {} unknown; {} revisions; {:?}; ended {:?}",
        history.requests.len(),
        count(|came| matches!(came, Came::Done { .. })),
        count(|came| matches!(came, Came::Refused)),
        count(|came| matches!(came, Came::Unknown)),
        history.truth.head,
        history.harm.done,
        history.harm.ended,
    )
}

/// The same history, told with a lie, is found to break what was promised.
fn assert_liars_are_found(history: &History) {
    let judge = |requests: &[Request], watched: &[Watched], truth: &Truth| {
        check(requests, watched, truth).into_iter().collect::<String>()
    };
    let is_written =
        |one: &Request| matches!((&one.wish, &one.came), (Wish::Put { .. }, Came::Done { .. }));
    let written = history.requests.iter().position(is_written).expect("something was written");
    let mut requests = history.requests.clone();
    if let Came::Done { revision, .. } = &mut requests[written].came {
        *revision += 1;
    }
    let broken = judge(&requests, &history.watched, &history.truth);
    assert!(broken.contains("acknowledged-writes-stay"), "{broken}");
    let mut requests = history.requests.clone();
    requests[written].came = Came::Refused;
    let broken = judge(&requests, &history.watched, &history.truth);
    assert!(broken.contains("refused-writes-leave-nothing"), "{broken}");
    let mut requests = history.requests.clone();
    let read = requests.iter_mut().rev().find(|one| {
        matches!((&one.wish, &one.came), (Wish::ReadAll, Came::Done { read, .. }) if read[0].is_some())
    });
    if let Came::Done { read, .. } = &mut read.expect("something was read").came {
        read[0] = None;
    }
    let broken = judge(&requests, &history.watched, &history.truth);
    assert!(broken.contains("reads-show-one-revision"), "{broken}");
    let mut watched = history.watched.clone();
    watched[0].events.retain(|told| told.revision != history.truth.head);
    let broken = judge(&history.requests, &watched, &history.truth);
    assert!(broken.contains("watch-complete"), "{broken}");
}
