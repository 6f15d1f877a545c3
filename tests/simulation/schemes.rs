//! Orders of events that chance alone brings about too seldom, each of which a
//! guard in the code is there for.

use std::time::Duration;

use tokio::time::sleep;

use super::boat::Boat;
use datastore_history::chance::Chance;

/// How often leadership is called back.
const CALLS_MAX: u32 = 50;

/// What is brought about again and again in a history, beside what else goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// Nothing in particular.
    None,
    /// A leader that only reads are asked of is cut off: it does not know, and
    /// the next one answers writes.
    Quiet,
    /// Two members that do not hear each other ask for the same votes at once.
    Quarrel,
    /// A leader's process hears nothing of its node while leadership goes away, others
    /// write, and it comes back; reads have been under way all the time.
    Absent,
}

impl Scheme {
    /// For a history of so many members.
    pub fn choose(chance: &mut Chance, members: u64) -> Scheme {
        if members < 3 {
            return Scheme::None;
        }
        match chance.within(0, 100) {
            0..15 => Scheme::Quiet,
            15..45 => Scheme::Quarrel,
            45..60 => Scheme::Absent,
            _ => Scheme::None,
        }
    }

    /// Pauses of the only writer and of readers, where a leader is to be asked
    /// for little but reads.
    pub fn pauses_us(self) -> Option<[(u64, u64); 2]> {
        match self {
            Scheme::None | Scheme::Quarrel => None,
            Scheme::Quiet | Scheme::Absent => Some([(10_000, 40_000), (2_000, 10_000)]),
        }
    }

    /// How long the only writer waits for an answer, where it is to have one.
    pub fn patience(self) -> Option<Duration> {
        (self == Scheme::Absent).then_some(Duration::from_secs(1))
    }

    /// Brings it about once.
    pub async fn play(self, boat: &Boat, chance: &mut Chance) {
        boat.trace.note(format!("scheme: {self:?}"));
        match self {
            Scheme::None => {}
            Scheme::Quiet => quiet(boat, chance).await,
            Scheme::Quarrel => quarrel(boat, chance).await,
            Scheme::Absent => absent(boat, chance).await,
        }
    }
}

async fn pause(chance: &mut Chance, low_ms: u64, high_ms: u64) {
    sleep(Duration::from_millis(chance.within(low_ms, high_ms))).await;
}

/// Cuts a member off from all others.
pub fn isolate(boat: &Boat, id: u64) {
    boat.trace.note(format!("{id} is isolated"));
    boat.ids.iter().filter(|other| **other != id).for_each(|other| cut(boat, *other, id));
}

fn cut(boat: &Boat, one: u64, other: u64) {
    boat.network.links.cut(one, other);
    boat.network.links.cut(other, one);
}

async fn quiet(boat: &Boat, chance: &mut Chance) {
    let Some(leader) = boat.leader() else { return };
    isolate(boat, leader);
    pause(chance, 700, 1_200).await;
    boat.network.links.heal();
    pause(chance, 300, 900).await;
}

/// The others have just started when both ask, and so do not ask themselves.
async fn quarrel(boat: &Boat, chance: &mut Chance) {
    let one = *chance.pick(&boat.ids);
    let others: Vec<u64> = boat.ids.iter().copied().filter(|id| *id != one).collect();
    let other = *chance.pick(&others);
    let up = boat.up().into_iter().map(|up| up.id);
    let asked: Vec<u64> = up.filter(|id| *id != one && *id != other).collect();
    asked.iter().for_each(|id| boat.kill(*id));
    boat.trace.note(format!("{one} and {other} do not hear each other"));
    cut(boat, one, other);
    // A leader of before does not know at once.
    pause(chance, 700, 1_000).await;
    boat.network.links.worsen(0, (5_000, 80_000));
    asked.iter().for_each(|id| boat.start(*id));
    pause(chance, 900, 1_500).await;
    boat.network.links.heal();
    pause(chance, 300, 900).await;
}

/// The barrier that is under way has an unknown outcome in the end, so the connection
/// that knows of the former leadership is gone, and the writer of before asks on a new one.
async fn absent(boat: &Boat, chance: &mut Chance) {
    let Some(leader) = boat.leader() else { return };
    isolate(boat, leader);
    pause(chance, 5, 40).await;
    boat.trace.note(format!("the process of {leader} is absent"));
    boat.cluster.set_awake(leader, false);
    pause(chance, 900, 1_500).await;
    boat.network.links.heal();
    for _ in 0..CALLS_MAX {
        sleep(Duration::from_millis(20)).await;
        match boat.leader() {
            Some(now) if now == leader => break,
            Some(now) => drop(boat.cluster.transfer(now, leader)),
            None => {}
        }
    }
    boat.trace.note(format!("the process of {leader} is back"));
    boat.cluster.set_awake(leader, true);
    pause(chance, 300, 900).await;
}
