//! Clients that write, swap and read, and note what they were told.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use skiff_datastore::Engine;
use skiff_datastore::error::RequestError;
use skiff_datastore::proto::compare::{CompareResult, CompareTarget, TargetUnion};
use skiff_datastore::proto::request_op::Request as Op;
use skiff_datastore::proto::{
    Compare, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, ResponseHeader, TxnRequest,
};
use tokio::sync::watch;
use tokio::time::Instant;

use super::boat::Boat;
use super::chance::Chance;
use super::plant::Plant;
use super::promises::{KEYS, key_name, number};
use super::record::{Came, Record, Request, Wish};
use super::register::Held;

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
        let key = self.chance.within(0, KEYS as u64) as usize;
        let other = self.chance.within(0, KEYS as u64) as usize;
        let value = self.values.fetch_add(1, Ordering::Relaxed);
        match self.chance.within(0, 100) {
            0..30 => Wish::Put { keys: vec![key], value },
            30..40 if other != key => Wish::Put { keys: vec![key, other], value },
            40..60 => Wish::Swap { key, from: known[key], to: value },
            60..67 => Wish::Delete { key },
            _ => Wish::ReadAll,
        }
    }

    async fn send(&mut self, wish: Wish, known: &mut [Held]) {
        let up = self.boat.up();
        if up.is_empty() {
            return;
        }
        let at_home = up.iter().find(|one| one.id == self.home);
        let at_home = at_home.filter(|_| self.chance.happens(STAYS));
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
        note(&wish, &came, known);
        let (client, member, end) = (self.number, up.id, self.now());
        self.boat.trace.note(format!("client {client} at {member}: {wish:?} {came:?}"));
        let request = Request { begin, end, wish, came };
        self.record.requests.lock().unwrap().push(request);
    }

    fn now(&self) -> u64 {
        self.began.elapsed().as_micros() as u64
    }
}

fn note(wish: &Wish, came: &Came, known: &mut [Held]) {
    let Came::Done { swapped, read, .. } = came else { return };
    match wish {
        Wish::Put { keys, value } => keys.iter().for_each(|key| known[*key] = Some(*value)),
        Wish::Swap { key, to, .. } if *swapped => known[*key] = Some(*to),
        Wish::Delete { key } => known[*key] = None,
        Wish::ReadAll => known.copy_from_slice(read),
        Wish::Swap { .. } => {}
    }
}

/// Asks a member for what is wished.
pub async fn ask(engine: &Engine, wish: &Wish, serializable: bool) -> Result<Came, RequestError> {
    let done = |header: Option<ResponseHeader>, swapped, read| {
        let revision = header.expect("answers have headers").revision;
        Came::Done { revision, swapped, read }
    };
    match wish {
        Wish::Put { keys, value } if keys.len() == 1 => {
            let answer = engine.put(put(keys[0], *value)).await?;
            Ok(done(answer.header, true, Vec::new()))
        }
        Wish::Put { keys, value } => {
            let success = keys.iter().map(|key| write(*key, *value)).collect();
            let answer = engine.txn(TxnRequest { success, ..TxnRequest::default() }).await?;
            Ok(done(answer.header, true, Vec::new()))
        }
        Wish::Delete { key } => {
            let request =
                DeleteRangeRequest { key: key_name(*key).into(), ..DeleteRangeRequest::default() };
            Ok(done(engine.delete_range(request).await?.header, true, Vec::new()))
        }
        Wish::Swap { key, from, to } => {
            let answer = engine.txn(swap(*key, *from, *to)).await?;
            Ok(done(answer.header, answer.succeeded, Vec::new()))
        }
        Wish::ReadAll => {
            engine.settle(serializable).await?;
            let request = RangeRequest {
                key: "key-".into(),
                range_end: "key.".into(),
                ..RangeRequest::default()
            };
            let answer = engine.range(&request)?;
            let held = |key| {
                let name = key_name(key);
                let found = answer.kvs.iter().find(|kv| kv.key == name.as_bytes());
                found.map(|kv| number(&kv.value))
            };
            Ok(done(answer.header, true, (0..KEYS).map(held).collect()))
        }
    }
}

fn put(key: usize, value: u64) -> PutRequest {
    let (key, value) = (key_name(key).into(), value.to_string().into());
    PutRequest { key, value, ..PutRequest::default() }
}

fn write(key: usize, value: u64) -> RequestOp {
    RequestOp { request: Some(Op::RequestPut(put(key, value))) }
}

fn swap(key: usize, from: Held, to: u64) -> TxnRequest {
    let (target, target_union) = match from {
        Some(value) => (CompareTarget::Value, TargetUnion::Value(value.to_string().into())),
        None => (CompareTarget::Create, TargetUnion::CreateRevision(0)),
    };
    let compare = Compare {
        result: CompareResult::Equal as i32,
        target: target as i32,
        key: key_name(key).into(),
        target_union: Some(target_union),
        ..Compare::default()
    };
    TxnRequest { compare: vec![compare], success: vec![write(key, to)], failure: Vec::new() }
}

/// How long a client waits before it gives up that a member serves again.
pub const HEAL_TIMEOUT: Duration = Duration::from_secs(30);
