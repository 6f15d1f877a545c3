//! One history, from a seed to a judgement.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dqlite::Role;
use skiff_datastore::Revision;
use skiff_datastore::fingerprint::{Mark, of_record};
use skiff_datastore::key_range::KeyRange;
use skiff_datastore::member::roles::voters_wanted;
use skiff_datastore::shared::Integrity;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::boat::{Boat, Up};
use super::clients::{Client, HEAL_TIMEOUT, ask};
use super::cluster::Cluster;
use super::faults::harm;
use super::links::Links;
use super::network::Network;
use super::plant::Plant;
use super::raft::Members;
use super::schemes::Scheme;
use super::trace::Trace;
use super::truth::read_truth;
use super::watchers::Watcher;
use datastore_history::chance::Chance;
use datastore_history::promises::{KEYS, check};
use datastore_history::record::{Came, Record, Wish};

/// A history that takes longer than this does not end.
const HISTORY_TIMEOUT: Duration = Duration::from_secs(180);

/// What came out.
pub struct Judgement {
    pub broken: Vec<String>,
    pub digest: u64,
    pub requests: usize,
    pub answered: usize,
    pub revisions: i64,
    pub events: usize,
    pub trace: String,
}

/// Runs the history of a seed. The process must be new, and `chance::begin`
/// have been called: see `main.rs`.
pub fn run(seed: u64, plant: Option<Plant>) -> Judgement {
    let panics: Arc<Mutex<Vec<String>>> = Arc::default();
    let noted = panics.clone();
    std::panic::set_hook(Box::new(move |panic| {
        eprintln!("{panic}");
        noted.lock().unwrap().push(format!("nothing-panics: {panic}"));
    }));
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let mut judgement = runtime.expect("a runtime").block_on(live(seed, plant));
    judgement.broken.append(&mut panics.lock().unwrap());
    judgement
}

async fn live(seed: u64, plant: Option<Plant>) -> Judgement {
    let mut chance = Chance::new(seed, 1);
    let trace = Trace::begin();
    let members = *chance.pick(&[3, 3, 3, 5, 1]);
    let ids: Vec<u64> = (1..=members).collect();
    let links = Arc::new(Links::new(Chance::new(seed, 2)));
    let roles = choose_roles(&mut chance, &ids);
    let cluster = Cluster::start(roles, links.clone(), Chance::new(seed, 3), plant, trace.clone());
    let memory = std::path::Path::new("/dev/shm");
    let dir = if memory.is_dir() {
        tempfile::tempdir_in(memory).unwrap()
    } else {
        tempfile::tempdir().unwrap()
    };
    let place = (dir.path(), trace.clone());
    let chance_of_nodes = Chance::new(seed, 4);
    let boat = Boat::new(ids, cluster.clone(), Network::new(links), chance_of_nodes, plant, place);
    let record = Arc::new(Record::default());
    let mut broken = Vec::new();
    let lived = voyage(&boat, &record, seed, plant, chance, &mut broken);
    if timeout(HISTORY_TIMEOUT, lived).await.is_err() {
        broken.push("heals: the history does not end".to_owned());
    }
    let requests = record.requests.lock().unwrap().clone();
    let truth = read_truth(&cluster.rows(), &mut broken);
    broken.extend(cluster.violations());
    let watched = record.watched.lock().unwrap().clone();
    broken.extend(check(&requests, &watched, &truth));
    Judgement {
        broken,
        digest: trace.digest(),
        requests: requests.len(),
        answered: requests.iter().filter(|one| matches!(one.came, Came::Done { .. })).count(),
        revisions: truth.head,
        events: watched.iter().map(|one| one.events.len()).sum(),
        trace: trace.text(),
    }
}

/// In some histories only the first member votes at the beginning, and the
/// keeper has to make voters of the others.
fn choose_roles(chance: &mut Chance, ids: &[u64]) -> Members {
    let grows = chance.happens(250);
    let role = |id: &u64| if grows && *id > 1 { Role::Spare } else { Role::Voter };
    Arc::new(ids.iter().map(|id| (*id, role(id))).collect())
}

/// First everything may go wrong; then nothing does, and all must be well.
async fn voyage(
    boat: &Arc<Boat>,
    record: &Arc<Record>,
    seed: u64,
    plant: Option<Plant>,
    mut chance: Chance,
    broken: &mut Vec<String>,
) {
    let began = Instant::now();
    boat.ids.iter().for_each(|id| boat.start(*id));
    let (stop, stopped) = watch::channel(false);
    let (last, last_seen) = watch::channel(0);
    let values = Arc::new(AtomicU64::new(1));
    let mut tasks = Vec::new();
    let scheme = Scheme::choose(&mut chance, boat.ids.len() as u64);
    let is_quiet = scheme.pauses_us().is_some();
    let pause_us = *chance.pick(&[(1_000, 20_000), (5_000, 60_000), (20_000, 200_000)]);
    let (mut writers, mut readers) = (chance.within(1, 5) as usize, chance.within(0, 4) as usize);
    let mut pauses_us = [pause_us; 2];
    if let Some(pauses) = scheme.pauses_us() {
        (writers, readers, pauses_us) = (1, 4, pauses);
    }
    for number in 0..writers + readers {
        let patience = Duration::from_millis(*chance.pick(&[60, 200, 1_000, 10_000]));
        let client = Client {
            patience: scheme.patience().filter(|_| number < writers).unwrap_or(patience),
            home: *chance.pick(&boat.ids),
            only_reads: number >= writers,
            at_leader: is_quiet && number >= writers,
            not_at_leader: is_quiet && number < writers,
            number,
            boat: boat.clone(),
            record: record.clone(),
            chance: Chance::new(seed, 100 + number as u64),
            values: values.clone(),
            plant,
            began,
            pause_us: pauses_us[usize::from(number >= writers)],
        };
        tasks.push(tokio::spawn(client.run(stopped.clone())));
    }
    let ends = began + Duration::from_millis(chance.within(2_000, 6_000));
    let mut watchers = Vec::new();
    for number in 0..2 {
        let watcher = Watcher {
            number,
            boat: boat.clone(),
            record: record.clone(),
            chance: Chance::new(seed, 200 + number as u64),
            plant,
            last: last_seen.clone(),
            deadline: ends + HEAL_TIMEOUT * 2,
        };
        watchers.push(tokio::spawn(watcher.run()));
    }
    if chance.happens(500) {
        tasks.push(tokio::spawn(compact(boat.clone(), Chance::new(seed, 6), stopped.clone())));
    }
    harm(boat.clone(), Chance::new(seed, 5), ends, scheme).await;
    // A request that waits for a leader waits as long as etcd's.
    sleep(Duration::from_millis(chance.within(0, 500))).await;
    stop.send_replace(true);
    for task in tasks {
        let _ = task.await;
    }
    let head = heal(boat, broken).await;
    last.send_replace(head);
    for watcher in watchers {
        let _ = watcher.await;
    }
    agree(&boat.up(), broken).await;
    rest(boat, broken).await;
}

/// `roles-come-to-rest`: in the end as many members vote as should.
async fn rest(boat: &Boat, broken: &mut Vec<String>) {
    let wanted = voters_wanted(boat.ids.len());
    let deadline = Instant::now() + HEAL_TIMEOUT;
    loop {
        let members = boat.leader().map(|id| boat.cluster.members(id));
        let voters = members
            .as_ref()
            .map_or(0, |all| all.values().filter(|role| **role == Role::Voter).count());
        if voters == wanted {
            return;
        }
        if Instant::now() >= deadline {
            broken.push(format!("roles-come-to-rest: {wanted} should vote, in {members:?}"));
            return;
        }
        sleep(Duration::from_millis(100)).await;
    }
}

/// Compacts now and then, as an API server does.
async fn compact(boat: Arc<Boat>, mut chance: Chance, stop: watch::Receiver<bool>) {
    while !*stop.borrow() {
        sleep(Duration::from_millis(chance.within(200, 1_500))).await;
        let up = boat.up();
        if up.is_empty() {
            continue;
        }
        let mut up = chance.pick(&up).clone();
        let revision = Revision(up.engine.revision().0 - chance.within(0, 40) as i64);
        let result = tokio::select! {
            biased;
            _ = up.killed.wait_for(|killed| *killed) => continue,
            result = up.engine.compact(revision) => result,
        };
        boat.trace.note(format!("compaction up to {revision} at {}: {result:?}", up.id));
    }
}

/// `heals`: every member takes a write and a read; the last revision.
async fn heal(boat: &Boat, broken: &mut Vec<String>) -> i64 {
    let deadline = Instant::now() + HEAL_TIMEOUT;
    let mut head = 0;
    // Values that no client writes; each once, for what came of a former one may be unknown.
    let mut values = 1_000_000..;
    for up in boat.up() {
        loop {
            let value = values.next().expect("there are plenty");
            let wish = Wish::Put { keys: vec![0], value };
            let came = ask(&up.engine, &wish, false).await;
            boat.trace.note(format!("member {} answers {came:?}", up.id));
            if let Ok(Came::Done { revision, .. }) = came {
                head = head.max(revision);
                break;
            }
            if Instant::now() >= deadline {
                broken.push(format!("heals: member {} answers {came:?}", up.id));
                break;
            }
            sleep(Duration::from_millis(50)).await;
        }
    }
    head
}

/// `members-agree`: in the end all have the same.
async fn agree(up: &[Up], broken: &mut Vec<String>) {
    let mut first = None;
    for up in up {
        let came = ask(&up.engine, &Wish::ReadAll, false).await;
        let Ok(Came::Done { read, .. }) = came else {
            broken.push(format!("heals: member {} reads {came:?}", up.id));
            continue;
        };
        let first = first.get_or_insert_with(|| read.clone());
        if read.len() != KEYS || read != *first {
            broken.push(format!("members-agree: {} has {read:?}, the first {first:?}", up.id));
        }
    }
    up.iter().for_each(|one| compare(one, up, broken));
}

/// `comparing`: a member's running sum is that of what it holds, it finds the
/// others to hold the same, and none was ever called damaged.
fn compare(one: &Up, all: &[Up], broken: &mut Vec<String>) {
    let shared = one.engine.shared();
    if shared.integrity() != Integrity::Sound || shared.metrics.renewals.get() > 0 {
        broken.push(format!("comparing: {} is {:?}", one.id, shared.integrity()));
    }
    let newest: Vec<Mark> =
        all.iter().filter_map(|other| other.engine.shared().read().marks.newest()).collect();
    let state = shared.read();
    let living = state.index.range(&KeyRange::all(), state.index.head());
    let walked = living.fold(0_u64, |sum, record| sum.wrapping_add(of_record(&record)));
    if state.index.sum() != walked {
        broken.push(format!("comparing: the sum of {} is not that of what it holds", one.id));
    }
    if newest.iter().any(|mark| state.marks.difference(*mark).is_some_and(|differs| differs != 0)) {
        broken.push(format!("comparing: {} differs from another: {newest:?}", one.id));
    }
}
