//! The watchers of one stream, and what each has to be told.
//!
//! One task owns a stream, so its answers are in order by construction: a
//! progress notification with revision R leaves only after every event up to
//! R has left.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use prost::Message;
use tokio::sync::{Notify, mpsc};
use tonic::Status;

use crate::engine::Engine;
use crate::index::Index;
use crate::key_range::{End, KeyRange};
use crate::proto::watch_create_request::FilterType;
use crate::proto::{Event, EventType, WatchCreateRequest, WatchResponse};
use crate::range::to_wire;
use crate::record::{Record, Revision};
use crate::watch_hub::{StreamId, WatchId};

/// The id of an answer that concerns no watcher, or all.
const NO_WATCHER: WatchId = -1;
/// Bytes of events after which an answer is sent, once a revision is whole.
const ANSWER_BYTES_MAX: usize = 256 << 10;
/// Revisions looked through before others get their turn.
const REVISIONS_MAX: i64 = 1024;

/// Nobody takes the answers any more.
#[derive(Debug)]
pub struct Gone;

struct Watcher {
    range: KeyRange,
    /// Where the client asked to begin; 0 means with what comes.
    start: Revision,
    prev_kv: bool,
    fragment: bool,
    progress_notify: bool,
    wants_puts: bool,
    wants_deletes: bool,
    /// Whether it was sent something since the last tick of progress.
    told: bool,
}

/// One stream. See the module's words.
pub struct WatchStream {
    engine: Engine,
    id: StreamId,
    watchers: BTreeMap<WatchId, Watcher>,
    /// Ids of watchers that a compaction ended: as with etcd they stay taken
    /// until the client cancels them.
    ended: BTreeSet<WatchId>,
    next_id: WatchId,
    answers: mpsc::Sender<Result<WatchResponse, Status>>,
}

/// Events of whole revisions, and where to go on.
struct Page {
    events: Vec<Event>,
    next: Revision,
    /// The watcher wants something that is gone.
    compacted: Option<Revision>,
}

impl Drop for WatchStream {
    fn drop(&mut self) {
        self.engine.shared().hub().close_stream(self.id);
    }
}

impl WatchStream {
    /// A stream without watchers; `wake` is rung when it has to send.
    pub fn new(
        engine: Engine,
        wake: Arc<Notify>,
        answers: mpsc::Sender<Result<WatchResponse, Status>>,
    ) -> WatchStream {
        let id = engine.shared().hub().open_stream(wake);
        let (watchers, ended) = (BTreeMap::new(), BTreeSet::new());
        WatchStream { engine, id, watchers, ended, next_id: 0, answers }
    }

    /// Whether some watcher asked to hear of progress.
    pub fn wants_progress(&self) -> bool {
        self.watchers.values().any(|watcher| watcher.progress_notify)
    }

    /// Adds a watcher and tells the client its id.
    pub async fn create(&mut self, request: WatchCreateRequest) -> Result<(), Gone> {
        let (id, watcher) = match self.accept(&request) {
            Ok(accepted) => accepted,
            Err(reason) => {
                let published = self.engine.shared().hub().published();
                let mut answer = self.answer(NO_WATCHER, published);
                answer.created = true;
                answer.canceled = true;
                answer.cancel_reason = reason.to_owned();
                return self.send(answer).await;
            }
        };
        let start = (request.start_revision > 0).then_some(Revision(request.start_revision));
        let published = {
            // In one go: what the answer says must be where the watcher begins.
            let mut hub = self.engine.shared().hub();
            hub.add(self.id, id, watcher.range.clone(), start);
            hub.published()
        };
        self.watchers.insert(id, watcher);
        let mut answer = self.answer(id, published);
        answer.created = true;
        self.send(answer).await?;
        self.send_due().await
    }

    fn accept(&mut self, request: &WatchCreateRequest) -> Result<(WatchId, Watcher), &'static str> {
        if request.start_revision < 0 {
            return Err("etcdserver: mvcc: required revision has been compacted");
        }
        // An empty key means the smallest one.
        let key = if request.key.is_empty() { "\0".into() } else { request.key.clone() };
        let range = KeyRange::from_wire(key, request.range_end.clone());
        if range.end != End::Single && range.is_empty() {
            return Err("mvcc: watcher range is empty");
        }
        let id = if request.watch_id == 0 { self.free_id() } else { request.watch_id };
        if self.is_taken(id) {
            return Err("mvcc: duplicate watch ID provided on the WatchStream");
        }
        let unwanted = |filter| request.filters().any(|found| found == filter);
        let watcher = Watcher {
            range,
            start: Revision(request.start_revision),
            prev_kv: request.prev_kv,
            fragment: request.fragment,
            progress_notify: request.progress_notify,
            wants_puts: !unwanted(FilterType::Noput),
            wants_deletes: !unwanted(FilterType::Nodelete),
            told: true,
        };
        Ok((id, watcher))
    }

    fn free_id(&mut self) -> WatchId {
        while self.is_taken(self.next_id) {
            self.next_id += 1;
        }
        self.next_id += 1;
        self.next_id - 1
    }

    fn is_taken(&self, id: WatchId) -> bool {
        self.watchers.contains_key(&id) || self.ended.contains(&id)
    }

    /// Removes a watcher and says so; an unknown one is not worth a word.
    pub async fn cancel(&mut self, id: WatchId) -> Result<(), Gone> {
        if self.watchers.remove(&id).is_none() && !self.ended.remove(&id) {
            return Ok(());
        }
        let published = {
            let mut hub = self.engine.shared().hub();
            hub.remove(self.id, id);
            hub.published()
        };
        let mut answer = self.answer(id, published);
        answer.canceled = true;
        self.send(answer).await
    }

    /// Sends whatever was committed and not sent yet.
    pub async fn send_due(&mut self) -> Result<(), Gone> {
        self.catch_up().await.map(drop)
    }

    /// Tells watchers that wish it how far they have come, unless events
    /// told them since the last time.
    pub async fn send_progress(&mut self) -> Result<(), Gone> {
        let published = self.catch_up().await?;
        let mut silent = Vec::new();
        for (id, watcher) in &mut self.watchers {
            let is_due = watcher.progress_notify && watcher.start <= published;
            if is_due && !std::mem::replace(&mut watcher.told, false) {
                silent.push(*id);
            }
        }
        for id in silent {
            self.send(self.answer(id, published)).await?;
        }
        Ok(())
    }

    /// Answers a request for progress, for all watchers at once. As with etcd
    /// there is no answer without a watcher, and none while one of them
    /// begins in the future: it would go back behind its beginning.
    pub async fn answer_progress(&mut self) -> Result<(), Gone> {
        let published = self.catch_up().await?;
        let mut watchers = self.watchers.values();
        if self.watchers.is_empty() || watchers.any(|watcher| watcher.start > published) {
            return Ok(());
        }
        self.send(self.answer(NO_WATCHER, published)).await
    }

    /// Ends the stream with an error.
    pub async fn fail(&mut self, status: Status) -> Result<(), Gone> {
        self.answers.send(Err(status)).await.map_err(|_| Gone)
    }

    /// Brings every watcher up to the revision that is returned.
    async fn catch_up(&mut self) -> Result<Revision, Gone> {
        let due = self.engine.shared().hub().take(self.id);
        for (id, from) in due.watchers {
            self.catch_up_one(id, from, due.published).await?;
        }
        Ok(due.published)
    }

    async fn catch_up_one(
        &mut self,
        id: WatchId,
        from: Revision,
        upto: Revision,
    ) -> Result<(), Gone> {
        let mut next = from;
        while next <= upto {
            let Some(watcher) = self.watchers.get_mut(&id) else { return Ok(()) };
            let page = page(&self.engine.shared().read().index, watcher, next, upto);
            if let Some(compacted) = page.compacted {
                return self.cancel_compacted(id, compacted).await;
            }
            next = page.next;
            if page.events.is_empty() {
                tokio::task::yield_now().await;
                continue;
            }
            watcher.told = true;
            let fragment = watcher.fragment;
            let mut answer = self.answer(id, next.previous());
            answer.events = page.events;
            self.send_events(answer, fragment).await?;
        }
        Ok(())
    }

    /// Says which revision is the oldest that can be had. The answer has no
    /// revision of its own and no reason, as with etcd.
    async fn cancel_compacted(&mut self, id: WatchId, compacted: Revision) -> Result<(), Gone> {
        self.watchers.remove(&id);
        self.ended.insert(id);
        self.engine.shared().hub().remove(self.id, id);
        let mut answer = self.answer(id, Revision(0));
        answer.canceled = true;
        answer.compact_revision = compacted.0;
        self.send(answer).await
    }

    /// Sends events, in pieces if the watcher takes them and they are large.
    async fn send_events(&self, mut answer: WatchResponse, fragment: bool) -> Result<(), Gone> {
        self.engine.shared().metrics.events.inc_by(answer.events.len() as u64);
        let bytes_max = self.engine.shared().limits.request_bytes_max;
        if !fragment || answer.encoded_len() <= bytes_max {
            return self.send(answer).await;
        }
        let mut pieces: Vec<Vec<Event>> = Vec::new();
        let mut bytes = usize::MAX;
        for event in std::mem::take(&mut answer.events) {
            let length = event.encoded_len();
            if bytes.saturating_add(length) > bytes_max {
                pieces.push(Vec::new());
                bytes = 0;
            }
            bytes += length;
            pieces.last_mut().expect("a piece was begun").push(event);
        }
        let last = pieces.len() - 1;
        for (position, events) in pieces.into_iter().enumerate() {
            let fragment = position < last;
            self.send(WatchResponse { events, fragment, ..answer.clone() }).await?;
        }
        Ok(())
    }

    fn answer(&self, id: WatchId, revision: Revision) -> WatchResponse {
        let header = self.engine.identity().header(revision);
        WatchResponse { header, watch_id: id, ..Default::default() }
    }

    async fn send(&self, answer: WatchResponse) -> Result<(), Gone> {
        self.answers.send(Ok(answer)).await.map_err(|_| Gone)
    }
}

/// The next events of a watcher between two revisions. Those of one revision
/// are never divided.
fn page(index: &Index, watcher: &Watcher, from: Revision, upto: Revision) -> Page {
    let mut events = Vec::new();
    let mut bytes = 0;
    let mut next = from;
    let compacted = (from < index.compacted()).then_some(index.compacted());
    let stop = Revision(from.0.saturating_add(REVISIONS_MAX)).min(upto.next());
    while compacted.is_none() && next < stop && bytes < ANSWER_BYTES_MAX {
        for record in index.changes(next).into_iter().flatten() {
            if let Some(event) = event_for(index, watcher, &record) {
                bytes += event.encoded_len();
                events.push(event);
            }
        }
        next = next.next();
    }
    Page { events, next, compacted }
}

fn event_for(index: &Index, watcher: &Watcher, record: &Record) -> Option<Event> {
    let deleted = record.is_tombstone();
    let wanted = if deleted { watcher.wants_deletes } else { watcher.wants_puts };
    if !wanted || !watcher.range.contains(&record.key) {
        return None;
    }
    let created = !deleted && record.created == record.modified;
    let prev_kv = if watcher.prev_kv && !created {
        index.get(&record.key, record.modified.previous()).map(|former| to_wire(&former))
    } else {
        None
    };
    let r#type = if deleted { EventType::Delete } else { EventType::Put } as i32;
    Some(Event { r#type, kv: Some(to_wire(record)), prev_kv })
}
