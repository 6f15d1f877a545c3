//! A disk that failed for a while: whoever stands on it is back when it is well.

use std::time::{Duration, Instant};

use lossy_disk::Faults;
use skiff_datastore::proto::PutRequest;

use super::clients::connect;
use super::cluster::PATIENCE;
use super::harm::{Harm, look_after_all};
use super::world::{MEMBERS, World};
use super::{TURN, missing};

/// A sync of a slow disk.
const SLOW: Duration = Duration::from_millis(400);
/// Such a disk is in the midst of shortening a log then: a vote and the term are synced before.
const MIDST: Duration = Duration::from_millis(1_500);
/// How long a member is looked at that might end.
const LOOK_TIME: Duration = Duration::from_secs(3);
/// Long enough for new segments of the log to be wanted.
const WRITES: usize = 80;
const VALUE_BYTES: usize = 256 << 10;

/// Writes through a member, or not.
async fn put(world: &World, host: usize, key: &str) -> bool {
    let request = PutRequest {
        key: key.to_owned().into(),
        value: vec![b'v'; VALUE_BYTES].into(),
        ..PutRequest::default()
    };
    let socket = world.network.socket(host);
    let putting = async { connect(&socket).await?.put(request).await.ok() };
    matches!(tokio::time::timeout(Duration::from_secs(5), putting).await, Ok(Some(_)))
}

/// What happens to a disk, and what that is called.
type Fault = (&'static str, fn(&World, usize));

#[tokio::test]
async fn a_member_whose_disk_failed_for_a_while_comes_back_by_itself() {
    let _turn = TURN.lock().await;
    if let Some(reason) = missing() {
        eprintln!("skipped: {reason}");
        return;
    }
    let mut world = World::start().await;
    let mut harm = Harm::default();
    let fails: Fault = ("fails", |world, host| {
        world.set_disk(host, Faults { fail_writes: true, ..Faults::default() });
    });
    let is_full: Fault = ("is full", |world, host| world.fill(host, 0));
    for (name, fault) in [fails, is_full] {
        for leads in [false, true] {
            let leader = world.network.leader(&[0, 1, 2]).await;
            let victim = if leads { leader } else { (leader + 1) % MEMBERS };
            fault(&world, victim);
            let (other, began) = ((victim + 1) % MEMBERS, Instant::now());
            for number in 0..WRITES {
                while !put(&world, other, &format!("key-{number}")).await {
                    assert!(began.elapsed() < PATIENCE, "the others don't write: disk {name}");
                    look_after_all(&mut world, &mut harm);
                }
            }
            println!("{WRITES} writes took {:?} with a disk that {name}", began.elapsed());
            world.repair(victim);
            let well = Instant::now();
            while !put(&world, victim, "well").await {
                assert!(well.elapsed() < PATIENCE, "it does not come back: disk {name}");
                look_after_all(&mut world, &mut harm);
            }
            println!("leads {leads}, disk {name}: back {:?} after the disk", well.elapsed());
            world.network.settle(MEMBERS).await;
        }
    }
    println!("ended: {:?}", harm.ended);
    assert!(world.network.logs().contains("dqlite gave up"), "no disk was missed");
    assert!(!harm.ended.iter().any(|how| how.contains("signal")), "{:?}", harm.ended);
}

/// libdqlite failed an assertion when it could not shorten a segment of its log.
#[tokio::test]
async fn a_member_whose_disk_fails_while_it_takes_entries_back_does_not_die() {
    let _turn = TURN.lock().await;
    if let Some(reason) = missing() {
        eprintln!("skipped: {reason}");
        return;
    }
    let mut world = World::start().await;
    let mut harm = Harm::default();
    let victim = world.network.leader(&[0, 1, 2]).await;
    assert!(put(&world, victim, "shared").await, "nothing is written");
    // In its log alone, behind what all have, so that the others' next entries contradict it.
    world.network.wire.set_link(victim, false);
    assert!(!put(&world, victim, "alone").await, "it wrote without a majority");
    let (other, began) = ((victim + 1) % MEMBERS, Instant::now());
    while !put(&world, other, "others").await {
        assert!(began.elapsed() < PATIENCE, "the others don't write");
    }
    // Without an open segment, which would have to be closed first.
    world.kill(victim);
    world.start_member(victim);
    tokio::time::sleep(Duration::from_millis(1_000)).await;
    world.set_disk(victim, Faults { sync_delay: SLOW, ..Faults::default() });
    world.network.wire.set_link(victim, true);
    tokio::time::sleep(MIDST).await;
    world.set_disk(victim, Faults { fail_writes: true, ..Faults::default() });
    let looking = Instant::now();
    while looking.elapsed() < LOOK_TIME {
        look_after_all(&mut world, &mut harm);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    world.repair(victim);
    let well = Instant::now();
    while !put(&world, victim, "well").await {
        assert!(well.elapsed() < PATIENCE, "it does not come back");
        look_after_all(&mut world, &mut harm);
    }
    println!("back {:?} after the disk; ended: {:?}", well.elapsed(), harm.ended);
    assert!(!harm.ended.iter().any(|how| how.contains("signal")), "{:?}", harm.ended);
}
