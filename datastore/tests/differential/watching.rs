//! A stream of watchers on each side, and what came of it.
//!
//! How events are cut into answers is a matter of timing. So what is compared
//! is, by watcher, the events in order and the words about the watcher
//! itself; how the answers follow each other is checked by rules.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures::channel::mpsc;
use skiff_datastore::proto::watch_request::RequestUnion;
use skiff_datastore::proto::*;
use tokio::task::JoinHandle;

use crate::compare::Normal;
use crate::lies::Lie;
use crate::side::Side;

const PATIENCE: Duration = Duration::from_secs(3);
/// etcd brings watchers up to date every 100 ms.
pub const SETTLE: Duration = Duration::from_millis(150);

/// What one side said, by watcher: words about it, and its events.
type Told = BTreeMap<i64, (Vec<WatchResponse>, Vec<Event>)>;

struct Stream {
    requests: mpsc::UnboundedSender<WatchRequest>,
    answers: Arc<Mutex<Vec<WatchResponse>>>,
    reader: JoinHandle<()>,
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl Stream {
    fn open(side: &Side, lie: Option<Lie>) -> Stream {
        let (requests, receiver) = mpsc::unbounded();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let kept = seen.clone();
        let mut client = side.watch();
        let reader = tokio::spawn(async move {
            // etcd lets wait for this until it has something to say.
            let mut answers = client.watch(receiver).await.unwrap().into_inner();
            while let Ok(Some(mut answer)) = answers.message().await {
                answer.normalise();
                lie.inspect(|lie| lie.of_watch(&mut answer));
                kept.lock().unwrap().push(answer);
            }
        });
        Stream { requests, answers: seen, reader }
    }

    fn send(&self, request: RequestUnion) {
        let request = WatchRequest { request_union: Some(request) };
        self.requests.unbounded_send(request).unwrap();
    }

    fn count(&self, wanted: impl Fn(&WatchResponse) -> bool) -> usize {
        self.answers.lock().unwrap().iter().filter(|answer| wanted(answer)).count()
    }

    fn told(&self) -> Told {
        let mut told = Told::new();
        for answer in self.answers.lock().unwrap().iter() {
            let (words, events) = told.entry(answer.watch_id).or_default();
            events.extend(answer.events.iter().cloned());
            if answer.created || answer.canceled {
                words.push(WatchResponse { events: Vec::new(), ..answer.clone() });
            }
        }
        told.retain(|_, (words, events)| !words.is_empty() || !events.is_empty());
        told
    }

    /// What must hold however events are cut into answers.
    fn check_rules(&self) -> Result<(), String> {
        // By watcher: up to where it was told that nothing is missing.
        let mut told: BTreeMap<i64, i64> = BTreeMap::new();
        let mut fragment_of = None;
        for answer in self.answers.lock().unwrap().iter() {
            let id = answer.watch_id;
            if answer.canceled {
                told.remove(&id);
                continue;
            }
            if answer.created {
                told.insert(id, 0);
                continue;
            }
            let revision = answer.header.as_ref().map_or(0, |header| header.revision);
            if fragment_of.is_some_and(|last| last != id) {
                return Err(format!("something came between fragments: {answer:?}"));
            }
            fragment_of = answer.fragment.then_some(id);
            let before = if id == -1 { told.values().max() } else { told.get(&id) };
            let before = *before.unwrap_or(&0);
            if revision < before {
                return Err(format!("went back from revision {before}: {answer:?}"));
            }
            let modified = |event: &Event| event.kv.as_ref().map_or(0, |kv| kv.mod_revision);
            if answer.events.iter().any(|event| modified(event) > revision) {
                return Err(format!("an event is ahead of its answer: {answer:?}"));
            }
            if answer.events.iter().any(|event| modified(event) <= before) {
                return Err(format!("progress {before} was told before: {answer:?}"));
            }
            if answer.events.is_empty() {
                let covered = told.iter_mut().filter(|(one, _)| id == -1 || **one == id);
                covered.for_each(|(_, told)| *told = revision);
            }
        }
        Ok(())
    }
}

/// One stream, opened on both sides.
pub struct Pair {
    ours: Stream,
    peer: Stream,
    /// Whether some watcher starts in the future: etcd tells no progress then.
    waits: bool,
    /// Whether some watcher starts in the past: etcd may not have looked at
    /// it yet, which does not show when there is nothing to tell it.
    lags: bool,
}

impl Pair {
    pub fn open(ours: &Side, peer: &Side, lie: Option<Lie>) -> Pair {
        let (ours, peer) = (Stream::open(ours, lie), Stream::open(peer, None));
        Pair { ours, peer, waits: false, lags: false }
    }

    /// Creates a watcher on both and waits until both have said so.
    pub async fn create(&mut self, request: WatchCreateRequest, newest: i64) -> Result<(), String> {
        self.waits |= request.start_revision > newest;
        self.lags |= (1..=newest).contains(&request.start_revision);
        let created = |answer: &WatchResponse| answer.created;
        let wanted = self.peer.count(created) + 1;
        self.send(RequestUnion::CreateRequest(request));
        self.wait("a watcher to be created", |pair| {
            pair.ours.count(created) >= wanted && pair.peer.count(created) >= wanted
        })
        .await
    }

    pub fn cancel(&mut self, request: WatchCancelRequest) {
        self.send(RequestUnion::CancelRequest(request));
    }

    fn send(&self, request: RequestUnion) {
        self.ours.send(request.clone());
        self.peer.send(request);
    }

    /// Asks both for progress. etcd answers when it has nothing left to tell,
    /// and must be asked again until then.
    pub async fn progress(&mut self, newest: i64) -> Result<(), String> {
        self.settle().await?;
        let told = |answer: &WatchResponse| {
            answer.watch_id == -1
                && !answer.created
                && answer.header.as_ref().is_some_and(|header| header.revision == newest)
        };
        if self.waits || self.peer.told().is_empty() {
            return Ok(());
        }
        let wanted = (self.ours.count(told) + 1, self.peer.count(told) + 1);
        self.ours.send(RequestUnion::ProgressRequest(WatchProgressRequest {}));
        let deadline = Instant::now() + 4 * SETTLE;
        while self.peer.count(told) < wanted.1 {
            if Instant::now() > deadline {
                // Its watchers are all gone, or wait for what was compacted.
                return Ok(());
            }
            self.peer.send(RequestUnion::ProgressRequest(WatchProgressRequest {}));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.wait("progress", |pair| pair.ours.count(told) >= wanted.0).await
    }

    /// Waits until both have looked at every watcher.
    pub async fn catch_up(&mut self, newest: i64) -> Result<(), String> {
        self.settle().await?;
        match (std::mem::take(&mut self.lags), self.waits) {
            (false, _) => Ok(()),
            (true, false) => self.progress(newest).await,
            (true, true) => {
                tokio::time::sleep(2 * SETTLE).await;
                self.settle().await
            }
        }
    }

    /// Waits until both have told the same.
    pub async fn settle(&mut self) -> Result<(), String> {
        let result =
            self.wait("the same events", |pair| pair.ours.told() == pair.peer.told()).await;
        self.ours.check_rules().map_err(|error| format!("ours: {error}"))?;
        self.peer.check_rules().map_err(|error| format!("etcd: {error}"))?;
        result
    }

    async fn wait(&mut self, what: &str, done: impl Fn(&Pair) -> bool) -> Result<(), String> {
        let deadline = Instant::now() + PATIENCE;
        while !done(self) {
            if Instant::now() > deadline {
                let (ours, peer) = (self.ours.told(), self.peer.told());
                return Err(format!("waited for {what}\nours: {ours:#?}\netcd: {peer:#?}"));
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        Ok(())
    }
}
