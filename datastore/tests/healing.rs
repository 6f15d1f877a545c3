//! Damage on one of several members, or on the only one: it is noticed, said, and healed from the others.
#![allow(clippy::unwrap_used)] // a test that panics says where

#[allow(dead_code)] // what members that come and go need
#[path = "members/cluster.rs"]
mod cluster;
#[allow(dead_code)] // what only a bad network is measured by
#[path = "members/load.rs"]
mod load;
#[path = "members/memory.rs"]
mod memory;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use cluster::{Cluster, Member, PATIENCE, is_voter, put};
use load::Load;
use memory::{Header, change_headers, no_database, too_long};
use nix::sys::signal::Signal;
use skiff_datastore::proto::maintenance_client::MaintenanceClient;
use skiff_datastore::proto::{AlarmRequest, AlarmType};
use skiff_datastore::recovery::{Options, Recovery};
use tonic::Code;

/// They want the machine: one after the other.
static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// What a member's log says when it has begun anew.
const ANEW: &str = "this member begins anew";
const SOUND: &str = "this member is sound again";

fn log_of(member: &Member) -> String {
    fs::read_to_string(member.log()).unwrap_or_default()
}

async fn wait_for(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what} does not come");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn is_closed(name: &str) -> bool {
    name.len() == 33 && name.as_bytes()[16] == b'-'
}

fn is_snapshot(name: &str) -> bool {
    name.starts_with("snapshot-") && !name.ends_with(".meta")
}

fn newest(dir: &Path, is_such: impl Fn(&str) -> bool) -> Option<PathBuf> {
    let entries = fs::read_dir(dir).ok()?.flatten();
    let found = entries.filter(|entry| is_such(&entry.file_name().to_string_lossy()));
    // Names carry numbers of any length: snapshot-TERM-INDEX-TIME.
    let numbers = |path: &PathBuf| -> Vec<u64> {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        name.split('-').filter_map(|part| part.parse().ok()).collect()
    };
    found.map(|entry| entry.path()).max_by_key(numbers)
}

/// Changes some bytes in the middle of a file.
fn damage(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    for byte in &mut bytes[middle..middle + 3] {
        *byte ^= 0x55;
    }
    fs::write(path, bytes).unwrap();
}

fn damage_metadata(dir: &Path) {
    for name in ["metadata1", "metadata2"] {
        fs::write(dir.join(name), [0xff; 32]).unwrap();
    }
}

fn aside(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).unwrap().flatten();
    let found = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("damaged-"));
    found.map(|entry| entry.path()).collect()
}

async fn id_of(member: &Member) -> u64 {
    member.list().await.unwrap().answered_by
}

/// Waits until the member has another number, votes, and its former number
/// is gone, in the words of another member.
async fn wait_for_another(cluster: &Cluster, healed: usize, former: u64, voters: usize) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let seen = cluster.members[healed].list().await;
        if let Ok(list) = &seen {
            let is_gone = list.members.iter().all(|one| one.id != former);
            let votes = list.members.iter().filter(|one| is_voter(one)).count();
            if list.answered_by != former && is_gone && list.leader != 0 && votes == voters {
                return;
            }
        }
        assert!(Instant::now() < deadline, "it does not heal: {seen:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn load_on(name: &str, cluster: &Cluster, positions: &[usize]) -> Load {
    let mut channels = Vec::new();
    for position in positions {
        let member = &cluster.members[*position];
        channels.extend([member.channel().await.unwrap(), member.channel().await.unwrap()]);
    }
    Load::start(name, channels)
}

#[tokio::test]
async fn a_member_whose_files_are_damaged_heals_from_the_others_and_nothing_is_lost() {
    let _turn = TURN.lock().await;
    let mut cluster = Cluster::start(3).await;
    let victim = cluster.follower().await;
    let others: Vec<usize> = (0..3).filter(|position| *position != victim).collect();
    let load = load_on("key", &cluster, &others).await;
    for (round, what) in ["a closed segment", "a snapshot", "the metadata"].into_iter().enumerate()
    {
        let dir = cluster.members[victim].dir().to_owned();
        wait_for("a snapshot", || newest(&dir, is_snapshot).is_some()).await;
        let former = id_of(&cluster.members[victim]).await;
        cluster.members[victim].stop().await;
        match what {
            "a closed segment" => damage(&newest(&dir, is_closed).unwrap()),
            "a snapshot" => damage(&newest(&dir, is_snapshot).unwrap()),
            _ => damage_metadata(&dir),
        }
        cluster.members[victim].start();
        wait_for_another(&cluster, victim, former, 3).await;
        let log = log_of(&cluster.members[victim]);
        assert_eq!(log.matches(ANEW).count(), round + 1, "{what}: {log}");
        assert_eq!(aside(&dir).len(), 1, "{what}");
        println!("{what}: {}", log.lines().rfind(|line| line.contains("is damaged")).unwrap());
    }
    let told = load.stop().await;
    cluster.check_failed(&told.failed);
    assert!(told.acknowledged.len() > 1000, "{}", told.acknowledged.len());
    for member in &cluster.members {
        told.check(member.channel().await.unwrap()).await;
    }
    // What healed can carry the others: it votes, and holds the log.
    let sound = cluster.leader().await;
    let other = (0..3).find(|position| *position != sound && *position != victim);
    cluster.members[other.unwrap_or(sound)].kill();
    let mut client = cluster.members[victim].kv().await;
    let deadline = Instant::now() + PATIENCE;
    while let Err(status) = client.put(put("end")).await {
        assert!(Instant::now() < deadline, "{status}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn healing_that_is_killed_again_and_again_ends_sound() {
    let _turn = TURN.lock().await;
    let mut cluster = Cluster::start(3).await;
    let victim = cluster.follower().await;
    let others: Vec<usize> = (0..3).filter(|position| *position != victim).collect();
    let load = load_on("key", &cluster, &others).await;
    let former = id_of(&cluster.members[victim]).await;
    cluster.members[victim].kill();
    let dir = cluster.members[victim].dir().to_owned();
    damage_metadata(&dir);
    for pause_ms in [30, 60, 90, 120, 150, 200, 250, 300, 400, 500, 700, 1000] {
        cluster.members[victim].start();
        tokio::time::sleep(Duration::from_millis(pause_ms)).await;
        cluster.members[victim].kill();
    }
    cluster.members[victim].start();
    wait_for_another(&cluster, victim, former, 3).await;
    let told = load.stop().await;
    cluster.check_failed(&told.failed);
    for member in &cluster.members {
        told.check(member.channel().await.unwrap()).await;
    }
    let list = cluster.members[others[0]].list().await.unwrap();
    assert_eq!(list.members.len(), 3, "{list:?}");
    assert_eq!(aside(&dir).len(), 1);
    let log = log_of(&cluster.members[victim]);
    // It says so once it is done: a kill in between leaves no line.
    assert!(log.matches(ANEW).count() <= 1, "{log}");
}

#[tokio::test]
async fn of_two_members_the_one_without_a_vote_heals_and_the_voter_says_what_to_do() {
    let _turn = TURN.lock().await;
    let mut cluster = Cluster::new(2);
    cluster.members.iter_mut().for_each(Member::start);
    cluster.settle(1).await;
    let voter = cluster.leader().await;
    let other = 1 - voter;
    let load = load_on("key", &cluster, &[voter]).await;
    wait_for("some writes", || load.written() > 300).await;
    let former = id_of(&cluster.members[other]).await;
    cluster.members[other].stop().await;
    damage_metadata(cluster.members[other].dir());
    cluster.members[other].start();
    wait_for_another(&cluster, other, former, 1).await;
    let told = load.stop().await;
    cluster.check_failed(&told.failed);
    told.check(cluster.members[other].channel().await.unwrap()).await;

    let voter = cluster.leader().await;
    cluster.members[voter].kill();
    let dir = cluster.members[voter].dir().to_owned();
    damage_metadata(&dir);
    let roster = fs::read(dir.join("member.json")).unwrap();
    cluster.members[voter].start();
    assert!(!cluster.members[voter].wait_for_end().await.success());
    let log = log_of(&cluster.members[voter]);
    assert!(
        log.contains("no other member leads") && log.contains("skiff datastore recover"),
        "{log}"
    );
    assert!(aside(&dir).is_empty(), "nothing is put aside that nobody else has");
    assert_eq!(fs::read(dir.join("member.json")).unwrap().len(), roster.len());
}

#[tokio::test]
async fn a_member_whose_number_is_damaged_has_it_from_the_copy() {
    let _turn = TURN.lock().await;
    let mut cluster = Cluster::start(3).await;
    let victim = cluster.follower().await;
    let former = id_of(&cluster.members[victim]).await;
    let dir = cluster.members[victim].dir().to_owned();
    let [first, copy] = ["member.json", "member.json.copy"].map(|name| dir.join(name));
    for harmed in [&first, &copy] {
        cluster.members[victim].kill();
        damage(harmed);
        cluster.members[victim].start();
        cluster.settle(3).await;
        assert_eq!(id_of(&cluster.members[victim]).await, former);
        assert!(aside(&dir).is_empty(), "its data is its own");
    }
    cluster.members[victim].kill();
    damage(&first);
    damage(&copy);
    cluster.members[victim].start();
    assert!(!cluster.members[victim].wait_for_end().await.success());
    let log = log_of(&cluster.members[victim]);
    assert!(log.contains("and its copy are damaged: remove this member"), "{log}");
}

#[tokio::test]
async fn a_sole_member_whose_files_are_damaged_names_the_restore() {
    let _turn = TURN.lock().await;
    let mut cluster = Cluster::start(1).await;
    let load = load_on("key", &cluster, &[0]).await;
    wait_for("some writes", || load.written() > 100).await;
    load.stop().await;
    cluster.members[0].stop().await;
    let dir = cluster.members[0].dir().to_owned();
    damage(&newest(&dir, is_closed).unwrap());
    cluster.members[0].start();
    assert!(!cluster.members[0].wait_for_end().await.success());
    let log = log_of(&cluster.members[0]);
    assert!(log.contains("skiff datastore restore FILE --dir"), "{log}");
    assert!(!log.contains(ANEW) && !log.contains(SOUND));
    assert!(aside(&dir).is_empty());
}

#[tokio::test]
async fn a_damaged_member_of_a_cluster_that_was_recovered_without_it_says_so() {
    let _turn = TURN.lock().await;
    let mut cluster = Cluster::start(3).await;
    cluster.members.iter_mut().for_each(Member::kill);
    let pki = cluster.home.path().join("pki");
    let dir = cluster.members[0].dir().to_owned();
    let (also, ways, stamp) = (Vec::new(), Vec::new(), "now".to_owned());
    let options = Options { dir, pki: Some(pki), also, ways, stamp };
    Recovery::look(options).await.unwrap().finish(1000).await.unwrap();
    cluster.members[0].start();
    cluster.settle_some(&[0], 1).await;
    let damaged = cluster.members[1].dir().to_owned();
    damage_metadata(&damaged);
    cluster.members[1].start();
    assert!(!cluster.members[1].wait_for_end().await.success());
    let log = log_of(&cluster.members[1]);
    assert!(log.contains("the datastore was recovered without this member"), "{log}");
    assert!(!log.contains(ANEW) && aside(&damaged).is_empty(), "{log}");
}

/// What happens to every copy of a database that a process holds, and what SQLite says of it.
type Harm = (&'static str, fn(&mut Header));

const HARMS: [Harm; 2] = [("sql error 26", no_database), ("sql error 11", too_long)];
/// A leader that a busy machine replaces before it meets its damage proves nothing.
const ATTEMPTS: usize = 8;

fn harm(member: &Member, change: fn(&mut Header)) {
    member.signal(Signal::SIGSTOP);
    let changed = change_headers(member.child.as_ref().unwrap().id(), change);
    member.signal(Signal::SIGCONT);
    assert!(changed > 0, "no database is found in its memory");
}

/// Damages the database of the leader under load until one that leads meets that;
/// its position and its former number.
async fn harm_leader(cluster: &mut Cluster, change: fn(&mut Header)) -> (usize, u64) {
    for _ in 0..ATTEMPTS {
        let victim = cluster.leader().await;
        let former = id_of(&cluster.members[victim]).await;
        let before = log_of(&cluster.members[victim]).len();
        harm(&cluster.members[victim], change);
        let since = || log_of(&cluster.members[victim])[before..].to_owned();
        let is_void = || since().contains("this member follows") || since().contains("gave up");
        wait_for("damage", || since().contains("database is damaged") || is_void()).await;
        if since().contains("database is damaged") {
            return (victim, former);
        }
        println!("{victim} was replaced before it met its damage");
        cluster.members[victim].kill();
        cluster.members[victim].start();
        cluster.settle(3).await;
    }
    panic!("no leader meets its damage");
}

#[tokio::test]
async fn a_leader_whose_database_is_damaged_while_it_leads_gives_way_and_heals() {
    let _turn = TURN.lock().await;
    let mut cluster = Cluster::start(3).await;
    for (says, change) in HARMS {
        let load = load_on(says, &cluster, &[0, 1, 2]).await;
        wait_for("some writes", || load.written() > 100).await;
        let (victim, former) = harm_leader(&mut cluster, change).await;
        let (began, written) = (Instant::now(), load.written());
        wait_for_another(&cluster, victim, former, 3).await;
        println!("{says}: healed after {:?}", began.elapsed());
        wait_for("more writes", || load.written() > written + 100).await;
        let told = load.stop().await;
        let log = log_of(&cluster.members[victim]);
        assert!(log.contains(says) && log.contains(ANEW), "{log}");
        for member in &cluster.members {
            told.check(member.channel().await.unwrap()).await;
        }
    }
}

#[tokio::test]
async fn a_sole_member_whose_database_is_damaged_while_it_runs_says_so_and_shows_everything() {
    let _turn = TURN.lock().await;
    for (says, change) in HARMS {
        let cluster = Cluster::start(1).await;
        let member = &cluster.members[0];
        let load = load_on("key", &cluster, &[0]).await;
        wait_for("some writes", || load.written() > 100).await;
        let told = load.stop().await;
        harm(member, change);
        let mut client = member.kv().await;
        let refused = client.put(put("refused")).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unavailable, "{refused}");
        let log = log_of(member);
        assert!(log.contains("take a backup while this runs") && log.contains(says), "{log}");
        let mut maintenance = MaintenanceClient::new(member.channel().await.unwrap());
        let alarms = maintenance.alarm(AlarmRequest::default()).await.unwrap().into_inner().alarms;
        assert!(alarms.iter().any(|one| one.alarm() == AlarmType::Corrupt), "{alarms:?}");
        // From memory.
        told.check(member.channel().await.unwrap()).await;
    }
}
