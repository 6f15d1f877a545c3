//! Watchers that go from member to member, and resume where they were.

use std::sync::Arc;
use std::time::Duration;

use skiff_datastore::Engine;
use skiff_datastore::proto::{EventType, WatchCreateRequest, WatchResponse};
use skiff_datastore::server::watch_stream::WatchStream;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{Instant, sleep, timeout_at};

use super::boat::{Boat, Up};
use super::plant::Plant;
use datastore_history::chance::Chance;
use datastore_history::promises::number;
use datastore_history::record::{Record, Told, Watched};

/// Answers that wait for a watcher, as in the server.
const ANSWERS_MAX: usize = 8;
/// How often a watcher asks how far it has come.
const PROGRESS: Duration = Duration::from_millis(700);

/// Watches all keys until the revision that it is told to end at.
pub struct Watcher {
    pub number: usize,
    pub boat: Arc<Boat>,
    pub record: Arc<Record>,
    pub chance: Chance,
    pub plant: Option<Plant>,
    /// The last revision, when that is known; 0 before.
    pub last: watch::Receiver<i64>,
    pub deadline: Instant,
}

/// Where a watcher is.
struct Progress {
    next: i64,
    watched: Watched,
}

impl Watcher {
    /// See above.
    pub async fn run(mut self) {
        let mut progress =
            Progress { next: 2, watched: Watched { start: 2, ..Watched::default() } };
        let mut resumed = false;
        while Instant::now() < self.deadline && !self.is_over(&progress) {
            let up = self.boat.up();
            if up.is_empty() {
                sleep(Duration::from_millis(50)).await;
                continue;
            }
            let up = self.chance.pick(&up).clone();
            let stays = self.chance.time_us(200_000, 3_000_000);
            let next = match self.plant {
                Some(Plant::ResumeLate) if resumed => progress.next + 1,
                Some(Plant::ResumeEarly) if resumed => progress.next - 1,
                _ => progress.next,
            };
            self.boat.trace.note(format!("watcher {} at {} from {next}", self.number, up.id));
            resumed |= self.watch(up, next, Instant::now() + stays, &mut progress).await;
            sleep(Duration::from_millis(20)).await;
        }
        progress.watched.ended = self.is_over(&progress);
        self.record.watched.lock().unwrap().push(progress.watched);
    }

    fn is_over(&self, progress: &Progress) -> bool {
        let last = *self.last.borrow();
        last > 0 && progress.next > last
    }

    /// Watches one member for a while; whether it told anything.
    async fn watch(&mut self, up: Up, next: i64, until: Instant, progress: &mut Progress) -> bool {
        let (answers, mut receiver) = mpsc::channel(ANSWERS_MAX);
        let serving = tokio::spawn(serve(up.engine.clone(), next, answers));
        let mut killed = up.killed.clone();
        let mut told = false;
        loop {
            let answer = tokio::select! {
                biased;
                _ = killed.wait_for(|killed| *killed) => break,
                answer = timeout_at(until.min(self.deadline), receiver.recv()) => answer,
            };
            let Ok(Some(Ok(answer))) = answer else { break };
            self.boat.trace.note(format!("watcher {} is told {}", self.number, line(&answer)));
            told |= !answer.created;
            if take(answer, progress) || self.is_over(progress) {
                break;
            }
        }
        serving.abort();
        told
    }
}

fn line(answer: &WatchResponse) -> String {
    let header = answer.header.as_ref().map_or(0, |header| header.revision);
    format!("{header} with {} events", answer.events.len())
}

/// Notes an answer; whether the watch has ended with it.
fn take(answer: WatchResponse, progress: &mut Progress) -> bool {
    if answer.canceled {
        if answer.compact_revision > progress.next {
            progress.watched.gaps.push((progress.next, answer.compact_revision));
            progress.next = answer.compact_revision;
        }
        return true;
    }
    for event in &answer.events {
        let kv = event.kv.as_ref().expect("events have a key");
        let value = (event.r#type == EventType::Put as i32).then(|| number(&kv.value));
        let key = String::from_utf8_lossy(&kv.key).into_owned();
        progress.watched.events.push(Told { revision: kv.mod_revision, key, value });
    }
    let revision = answer.header.map_or(0, |header| header.revision);
    // An answer promises that everything up to its revision was told; the one
    // that says that the watch is there does not.
    if !answer.created {
        progress.next = progress.next.max(revision + 1);
    }
    false
}

/// What the server does for a stream with one watcher.
async fn serve(
    engine: Engine,
    next: i64,
    answers: mpsc::Sender<Result<WatchResponse, tonic::Status>>,
) {
    let wake = Arc::new(Notify::new());
    let mut stream = WatchStream::new(engine, wake.clone(), answers);
    let request = WatchCreateRequest {
        key: "key-".into(),
        range_end: "key.".into(),
        start_revision: next,
        ..WatchCreateRequest::default()
    };
    let mut going_on = stream.create(request).await;
    while going_on.is_ok() {
        going_on = tokio::select! {
            biased;
            () = wake.notified() => stream.send_due().await,
            () = sleep(PROGRESS) => stream.answer_progress().await,
        };
    }
}
