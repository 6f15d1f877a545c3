//! A lost quorum: what one survivor holds comes back as a store of its own.
#![allow(clippy::unwrap_used)] // a test that panics says where

#[allow(dead_code)] // what members that come and go need
#[path = "members/cluster.rs"]
mod cluster;
#[allow(dead_code)] // what only a bad network is measured by
#[path = "members/load.rs"]
mod load;

use std::path::{Path, PathBuf};
use std::time::Duration;

use cluster::{Cluster, PATIENCE, free_port, put};
use load::{Load, Told};
use skiff_datastore::backup::ExtractError;
use skiff_datastore::backup::place::PlaceError;
use skiff_datastore::proto::peer::{MemberView, Role};
use skiff_datastore::recovery::{Options, Other, Recovery, RecoveryError, State, Verdict};

/// They want the machine: one after the other.
static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

const BUMP: i64 = 1000;

fn options(cluster: &Cluster, position: usize) -> Options {
    Options {
        dir: cluster.members[position].dir().to_owned(),
        pki: Some(cluster.home.path().join("pki")),
        also: Vec::new(),
        ways: Vec::new(),
        stamp: "now".to_owned(),
    }
}

/// Writes through every member, until all of them have acknowledged some.
async fn write(cluster: &Cluster, name: &str) -> Told {
    let mut channels = Vec::new();
    for member in &cluster.members {
        channels.push(member.channel().await.unwrap());
    }
    let load = Load::start(name, channels);
    while load.written() < 200 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    load.stop().await
}

/// Every acknowledged key is there; their revisions are as the store had them.
async fn check(cluster: &Cluster, position: usize, told: &Told) {
    told.check(cluster.members[position].channel().await.unwrap()).await;
}

/// Every file with its length and a checksum of its bytes.
fn content(dir: &Path) -> Vec<(PathBuf, usize, u64)> {
    let sum = |bytes: &[u8]| {
        // FNV-1a, 64 bits
        bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| {
            (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        })
    };
    let mut files: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_file() && !path.ends_with("dqlite-lock"))
        .map(|path| {
            let bytes = std::fs::read(&path).unwrap();
            (path, bytes.len(), sum(&bytes))
        })
        .collect();
    files.sort();
    files
}

#[tokio::test]
async fn a_survivor_brings_everything_back_and_grows_again() {
    let _turn = TURN.lock().await;
    let mut cluster = Cluster::start(3).await;
    let told = write(&cluster, "before").await;
    assert!(told.failed.is_empty(), "{:?}", told.failed);
    let survivor = cluster.follower().await;
    for position in 0..3 {
        cluster.members[position].kill();
    }
    let recovery = Recovery::look(options(&cluster, survivor)).await.unwrap();
    let found = recovery.found();
    assert_eq!(found.others.len(), 2);
    assert!(found.others.iter().all(|one| matches!(one.state, State::Silent { .. })), "{found:?}");
    assert!(matches!(found.verdict(), Verdict::Best { unasked } if unasked.len() == 2));
    let newest = found.revision;
    let restored = recovery.finish(BUMP).await.unwrap();
    assert_eq!(restored.contents.revision.0, newest + BUMP);
    assert!(restored.former.unwrap().join("metadata1").exists());

    // It goes on alone, with what was acknowledged.
    cluster.members[survivor].set_join(Vec::new());
    cluster.members[survivor].start();
    cluster.settle_some(&[survivor], 1).await;
    check(&cluster, survivor, &told).await;
    let answer = cluster.members[survivor].kv().await.put(put("after")).await.unwrap();
    assert!(answer.into_inner().header.unwrap().revision > newest + BUMP);

    // One that comes back as it was is not let in, does no harm, and says so.
    let straggler = (survivor + 1) % 3;
    let through = cluster.members[survivor].peer;
    cluster.members[straggler].set_join(vec![through]);
    cluster.members[straggler].start();
    let status = cluster.members[straggler].wait_for_end().await;
    let log = std::fs::read_to_string(cluster.members[straggler].log()).unwrap();
    let said = "the datastore was recovered without this member";
    assert!(!status.success() && log.matches(said).count() == 1, "{status} {log}");
    assert!(log.contains(&format!("--join 127.0.0.1:{through}")), "{log}");
    let list = cluster.members[survivor].list().await.unwrap();
    assert_eq!(list.members.len(), 1, "an old member came in: {list:?}");

    // With empty directories they join.
    for position in (0..3).filter(|position| *position != survivor) {
        std::fs::remove_dir_all(cluster.members[position].dir()).unwrap();
        cluster.members[position].set_join(vec![through]);
        cluster.members[position].start();
    }
    cluster.settle(3).await;
    for position in 0..3 {
        check(&cluster, position, &told).await;
    }
}

/// Of two members one votes. The other one has what raft had sent it, which is all but the newest.
#[tokio::test]
async fn a_stand_by_goes_on_when_the_only_voter_of_two_is_lost() {
    let _turn = TURN.lock().await;
    let mut cluster = Cluster::new(2);
    cluster.members.iter_mut().for_each(|member| member.start());
    let deadline = std::time::Instant::now() + PATIENCE;
    let is_standby = |one: &MemberView| one.role == i32::from(Role::Standby);
    while !matches!(cluster.members[0].list().await, Ok(list) if list.members.iter().any(is_standby))
    {
        assert!(std::time::Instant::now() < deadline, "no stand-by");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut told = write(&cluster, "before").await;
    for member in &mut cluster.members {
        member.kill();
    }
    let recovery = Recovery::look(options(&cluster, 1)).await.unwrap();
    let held = recovery.found().revision;
    let all = told.acknowledged.len();
    told.acknowledged.retain(|_, revision| *revision <= held);
    println!("of {all} acknowledged writes the stand-by has {}", told.acknowledged.len());
    assert!(told.acknowledged.len() * 2 > all, "it was sent next to nothing");
    recovery.finish(BUMP).await.unwrap();

    cluster.members[1].set_join(Vec::new());
    cluster.members[1].start();
    cluster.settle_some(&[1], 1).await;
    check(&cluster, 1, &told).await;
    cluster.members[1].kv().await.put(put("after")).await.unwrap();
}

#[tokio::test]
async fn a_survivor_that_is_behind_is_told_so() {
    let _turn = TURN.lock().await;
    let mut cluster = Cluster::start(3).await;
    write(&cluster, "early").await;
    let behind = cluster.follower().await;
    cluster.members[behind].kill();
    let other = cluster.follower().await;
    let leader = cluster.leader().await;
    let mut client = cluster.members[other].kv().await;
    for number in 0..50 {
        client.put(put(&format!("late-{number}"))).await.unwrap();
    }
    // While the others have a quorum, there is nothing to recover.
    let led = Recovery::look(options(&cluster, behind)).await.unwrap();
    assert!(matches!(led.found().verdict(), Verdict::Led(_)), "{:?}", led.found());
    drop(led);
    cluster.members[leader].kill();
    // The other one runs without quorum, and says how far it is.
    let deadline = std::time::Instant::now() + PATIENCE;
    loop {
        let asked = Recovery::look(options(&cluster, behind)).await.unwrap();
        match asked.found().verdict() {
            Verdict::Behind(ahead) => break assert_eq!(ahead.len(), 1),
            verdict => assert!(std::time::Instant::now() < deadline, "{verdict:?}"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    cluster.members[other].kill();
    // So does its directory.
    let also = vec![cluster.members[other].dir().to_owned()];
    let before = content(&also[0]);
    let looked = Recovery::look(Options { also, ..options(&cluster, behind) }).await.unwrap();
    assert!(matches!(looked.found().verdict(), Verdict::Behind(ahead) if ahead.len() == 1));
    assert_eq!(content(cluster.members[other].dir()), before, "looking changed the directory");
    drop(looked);
    let best = Recovery::look(options(&cluster, other)).await.unwrap();
    assert!(matches!(best.found().verdict(), Verdict::Best { .. }), "{:?}", best.found());
}

#[tokio::test]
async fn looking_changes_nothing_and_what_is_no_survivor_is_refused() {
    let _turn = TURN.lock().await;
    let mut cluster = Cluster::start(3).await;
    write(&cluster, "key").await;
    let running = Recovery::look(options(&cluster, 1)).await.err().unwrap();
    assert!(
        matches!(running, RecoveryError::Place(PlaceError::Runs { .. })),
        "of a member that runs: {running}"
    );
    for member in &mut cluster.members {
        member.kill();
    }
    let dir = cluster.members[1].dir().to_owned();
    let before = content(&dir);
    drop(Recovery::look(options(&cluster, 1)).await.unwrap());
    assert_eq!(content(&dir), before);
    let beside: Vec<_> = std::fs::read_dir(cluster.home.path()).unwrap().flatten().collect();
    let left = beside.iter().filter(|entry| entry.file_name().to_string_lossy().starts_with('.'));
    assert_eq!(left.count(), 0, "a copy was left: {beside:?}");

    let nothing = Options { dir: cluster.home.path().join("none"), ..options(&cluster, 1) };
    let refused = Recovery::look(nothing).await.err().unwrap();
    assert!(matches!(refused, RecoveryError::NoMember { .. }), "{refused}");

    // A member whose files are damaged says so; nothing is lost or left.
    for (path, length, _) in content(&dir) {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if name.starts_with("metadata") {
            std::fs::write(&path, vec![0xa5; length]).unwrap();
        }
    }
    let damaged = content(&dir);
    let refused = Recovery::look(options(&cluster, 1)).await.err().unwrap();
    assert!(matches!(refused, RecoveryError::Extract(ExtractError::Log { .. })), "{refused}");
    assert_eq!(content(&dir), damaged);
}

/// Two of three have moved while all were off, and one of them is looked for from the third.
#[tokio::test]
async fn members_that_have_moved_are_asked_where_somebody_says_that_they_are() {
    let _turn = TURN.lock().await;
    let mut cluster = Cluster::start(3).await;
    write(&cluster, "before").await;
    cluster.members.iter_mut().for_each(cluster::Member::kill);
    let (survivor, moved, stayed) = (0, 1, 2);
    let was = cluster.members[moved].peer;
    cluster.members[moved].peer = free_port();
    cluster.members[moved].start();
    let place = format!("127.0.0.1:{}", cluster.members[moved].peer);
    let named = || Options { ways: vec![place.clone()], ..options(&cluster, survivor) };
    look_until(named, |others| runs_at(others, &place) && others.iter().any(is_silent)).await;
    // Nobody has named it, and nobody is there who knows.
    let found = Recovery::look(options(&cluster, survivor)).await.unwrap().found().clone();
    assert!(found.others.iter().all(is_silent), "{found:?}");
    assert!(found.others.iter().any(|one| one.address.ends_with(&format!(":{was}"))), "{found:?}");

    // One that is where it was has met it.
    cluster.members[stayed].start();
    let unnamed = || options(&cluster, survivor);
    look_until(unnamed, |others| runs_at(others, &place) && !others.iter().any(is_silent)).await;
}

fn is_silent(other: &Other) -> bool {
    matches!(other.state, State::Silent { .. })
}

fn runs_at(others: &[Other], place: &str) -> bool {
    others.iter().any(|one| one.address == place && matches!(one.state, State::Running { .. }))
}

async fn look_until(options: impl Fn() -> Options, holds: impl Fn(&[Other]) -> bool) {
    let deadline = std::time::Instant::now() + PATIENCE;
    loop {
        let others = Recovery::look(options()).await.unwrap().found().others.clone();
        if holds(&others) {
            return;
        }
        assert!(std::time::Instant::now() < deadline, "{others:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
