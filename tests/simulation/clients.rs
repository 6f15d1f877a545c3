//! Clients that write, swap and read, and note what they were told.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use datastore_history::chance::Chance;
use datastore_history::promises::KEYS;
use datastore_history::record::{Came, Record, Request, Wish};
use datastore_history::register::Held;
use datastore_history::wishes::{Answer, Call, choose, learn};
use skiff_datastore::Engine;
use skiff_datastore::error::RequestError;
use tokio::sync::watch;
use tokio::time::Instant;

use super::boat::Boat;
use super::plant::Plant;

/// Of a thousand requests so many go where the one before went.
const STAYS: u64 = 950;

/// Sends requests until told to stop.
pub struct Client {
    pub number: usize,
    pub boat: Arc<Boat>,
    pub record: Arc<Record>,
    pub chance: Chance,
    pub values: Arc<AtomicU64>,
    pub plant: Option<Plant>,
    pub began: Instant,
    pub pause_us: (u64, u64),
    /// How long it waits for an answer.
    pub patience: Duration,
    /// The member that it asks while that is there.
    pub home: u64,
    /// Whether it does nothing else, and so is seldom in want of a majority.
    pub only_reads: bool,
    /// Whether it asks a member that believes that it leads, as long as there is one.
    pub at_leader: bool,
    /// Whether it asks none that does.
    pub not_at_leader: bool,
}

impl Client {
    /// See above.
    pub async fn run(mut self, stop: watch::Receiver<bool>) {
        let mut known: Vec<Held> = vec![None; KEYS];
        while !*stop.borrow() {
            let pause = self.chance.time_us(self.pause_us.0, self.pause_us.1);
            tokio::time::sleep(pause).await;
            let wish = self.choose(&known);
            self.send(wish, &mut known).await;
        }
    }

    fn choose(&mut self, known: &[Held]) -> Wish {
        if self.only_reads {
            return Wish::ReadAll;
        }
        let value = self.values.fetch_add(1, Ordering::Relaxed);
        choose(&mut self.chance, known, value)
    }

    async fn send(&mut self, wish: Wish, known: &mut [Held]) {
        let mut up = self.boat.up();
        if self.not_at_leader {
            up.retain(|one| self.boat.cluster.leads(one.id).is_none());
        }
        if up.is_empty() {
            return;
        }
        if self.at_leader && self.boat.cluster.leads(self.home).is_none() {
            self.home = self.boat.leader().unwrap_or(self.home);
        }
        let at_home = up.iter().find(|one| one.id == self.home);
        let at_home = at_home.filter(|_| self.at_leader || self.chance.happens(STAYS));
        let mut up = at_home.unwrap_or_else(|| self.chance.pick(&up)).clone();
        self.home = up.id;
        let begin = self.now();
        let serializable = self.plant == Some(Plant::ReadWithoutBarrier);
        let result = tokio::select! {
            biased;
            // A process that died says nothing.
            _ = up.killed.wait_for(|killed| *killed) => Err(RequestError::TimedOut),
            result = ask(&up.engine, &wish, serializable) => result,
            // A client that gives up: nobody tells it what became of that.
            () = tokio::time::sleep(self.patience) => Err(RequestError::TimedOut),
        };
        let came = match result {
            Ok(came) => came,
            Err(RequestError::TimedOut | RequestError::Stopped) => Came::Unknown,
            Err(_) => Came::Refused,
        };
        learn(known, &wish, &came);
        let (client, member, end) = (self.number, up.id, self.now());
        self.boat.trace.note(format!("client {client} at {member}: {wish:?} {came:?}"));
        let request = Request { begin, end, wish, came };
        self.record.requests.lock().unwrap().push(request);
    }

    fn now(&self) -> u64 {
        self.began.elapsed().as_micros() as u64
    }
}

/// Asks a member for what is wished.
pub async fn ask(engine: &Engine, wish: &Wish, serializable: bool) -> Result<Came, RequestError> {
    Ok(match wish.call() {
        Call::Put(put) => engine.put(put).await?.came(),
        Call::Delete(delete) => engine.delete_range(delete).await?.came(),
        Call::Txn(txn) => engine.txn(txn).await?.came(),
        Call::Range(range) => {
            engine.settle(serializable).await?;
            engine.range(&range)?.came()
        }
    })
}

/// How long a client waits before it gives up that a member serves again.
pub const HEAL_TIMEOUT: Duration = Duration::from_secs(30);
