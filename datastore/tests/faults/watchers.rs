//! Watchers of the members' gRPC surface that resume where they were, on
//! whichever member answers.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use datastore_history::chance::Chance;
use datastore_history::promises::{Truth, number};
use datastore_history::record::{Record, Told, Watched};
use skiff_datastore::Listen;
use skiff_datastore::proto::watch_client::WatchClient;
use skiff_datastore::proto::watch_request::RequestUnion;
use skiff_datastore::proto::{EventType, WatchCreateRequest, WatchRequest, WatchResponse};
use tokio::sync::watch;

/// How long a member may take until it answers a new watch.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Watches everything until the revision that it is told to end at.
pub struct Watcher {
    pub sockets: Vec<PathBuf>,
    pub record: Arc<Record>,
    pub chance: Chance,
    /// The last revision, when that is known; 0 before.
    pub last: watch::Receiver<i64>,
    pub deadline: Instant,
}

/// Where a watcher is.
struct Progress {
    next: i64,
    watched: Watched,
}

impl Progress {
    fn new() -> Progress {
        Progress { next: 2, watched: Watched { start: 2, ..Watched::default() } }
    }

    /// Notes an answer; whether the watch has ended with it.
    fn take(&mut self, answer: WatchResponse) -> bool {
        if answer.canceled {
            return true;
        }
        for event in &answer.events {
            let kv = event.kv.as_ref().expect("events have a key");
            let value = (event.r#type == EventType::Put as i32).then(|| number(&kv.value));
            let key = String::from_utf8_lossy(&kv.key).into_owned();
            self.watched.events.push(Told { revision: kv.mod_revision, key, value });
        }
        let revision = answer.header.map_or(0, |header| header.revision);
        // The answer that says that the watch is there promises nothing.
        if !answer.created {
            self.next = self.next.max(revision + 1);
        }
        false
    }
}

impl Watcher {
    /// See above.
    pub async fn run(mut self) {
        let mut progress = Progress::new();
        while Instant::now() < self.deadline && !is_over(&self.last, &progress) {
            let socket = self.chance.pick(&self.sockets).clone();
            let stays = Duration::from_millis(self.chance.within(500, 6_000));
            let watching = watch_member(&socket, &mut progress, &self.last);
            let _ = tokio::time::timeout(stays, watching).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        progress.watched.ended = is_over(&self.last, &progress);
        self.record.watched.lock().unwrap().push(progress.watched);
    }
}

fn is_over(last: &watch::Receiver<i64>, progress: &Progress) -> bool {
    let last = *last.borrow();
    last > 0 && progress.next > last
}

/// Watches one member until it ends the watch, or there is nothing more.
async fn watch_member(socket: &Path, progress: &mut Progress, last: &watch::Receiver<i64>) {
    let create = WatchCreateRequest {
        key: "\0".into(),
        range_end: "\0".into(),
        start_revision: progress.next,
        ..Default::default()
    };
    let request = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
    // The stream of requests stays open: its end would be the watch's.
    let requests = futures::StreamExt::chain(
        futures::stream::once(async move { request }),
        futures::stream::pending(),
    );
    let opening = async {
        let listen = Listen::Unix(socket.to_owned());
        let channel = skiff_datastore::probe::connect(&listen).await.ok()?;
        let mut client = WatchClient::new(channel).max_decoding_message_size(usize::MAX);
        Some(client.watch(requests).await.ok()?.into_inner())
    };
    let opened = tokio::time::timeout(CONNECT_TIMEOUT, opening).await;
    let Ok(Some(mut answers)) = opened else { return };
    while let Ok(Some(answer)) = answers.message().await {
        if progress.take(answer) || is_over(last, progress) {
            return;
        }
    }
}

/// Everything that one member has, from the first revision to `head`.
pub async fn read_truth(socket: &Path, head: i64) -> Option<Truth> {
    let (_last, last) = watch::channel(head);
    let mut progress = Progress::new();
    let watching = watch_member(socket, &mut progress, &last);
    tokio::time::timeout(super::cluster::PATIENCE, watching).await.ok()?;
    let mut truth = Truth { events: Default::default(), head };
    for Told { revision, key, value } in progress.watched.events {
        truth.events.entry(revision).or_default().push((key, value));
    }
    Some(truth)
}
