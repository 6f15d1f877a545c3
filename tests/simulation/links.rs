//! The links between members: one table for raft's messages and our streams.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::time::Duration;

use datastore_history::chance::Chance;

/// What the network does at the moment.
pub struct Links(Mutex<State>);

struct State {
    chance: Chance,
    /// Directions in which nothing passes.
    cut: BTreeSet<(u64, u64)>,
    /// Of a thousand messages so many are lost.
    loss: u64,
    delay_us: (u64, u64),
}

impl Links {
    /// A good network.
    pub fn new(chance: Chance) -> Links {
        Links(Mutex::new(State { chance, cut: BTreeSet::new(), loss: 0, delay_us: (100, 2_000) }))
    }

    /// Nothing passes from one to the other any more.
    pub fn cut(&self, from: u64, to: u64) {
        self.0.lock().unwrap().cut.insert((from, to));
    }

    /// Everything is well again.
    pub fn heal(&self) {
        let mut state = self.0.lock().unwrap();
        state.cut.clear();
        state.loss = 0;
        state.delay_us = (100, 2_000);
    }

    /// Makes it lose and delay messages.
    pub fn worsen(&self, loss: u64, delay_us: (u64, u64)) {
        let mut state = self.0.lock().unwrap();
        state.loss = loss;
        state.delay_us = delay_us;
    }

    /// Whether nothing passes.
    pub fn is_cut(&self, from: u64, to: u64) -> bool {
        self.0.lock().unwrap().cut.contains(&(from, to))
    }

    /// How long a datagram takes; nothing when it is lost. Delays differ, so
    /// that one overtakes the other.
    pub fn datagram(&self, from: u64, to: u64) -> Option<Duration> {
        let mut state = self.0.lock().unwrap();
        let loss = state.loss;
        let lost = state.chance.happens(loss);
        let (low, high) = state.delay_us;
        let delay = state.chance.time_us(low, high);
        (!lost && !state.cut.contains(&(from, to))).then_some(delay)
    }

    /// How long a piece of a stream takes: what is lost is repeated.
    pub fn segment(&self) -> Duration {
        let mut state = self.0.lock().unwrap();
        let (low, high) = state.delay_us;
        let mut delay = state.chance.time_us(low, high);
        let (mut repeat, loss) = (Duration::from_millis(200), state.loss);
        while state.chance.happens(loss) && repeat < Duration::from_secs(2) {
            delay += repeat;
            repeat *= 2;
        }
        delay
    }
}
