//! Writers that note what they were told, and a watcher that notes what it saw.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use skiff_datastore::proto::kv_client::KvClient;
use skiff_datastore::proto::watch_client::WatchClient;
use skiff_datastore::proto::watch_request::RequestUnion;
use skiff_datastore::proto::{RangeRequest, WatchCreateRequest, WatchRequest};
use tokio::task::JoinHandle;
use tonic::transport::Channel;

use super::cluster::{PATIENCE, put};

/// What writers were told.
#[derive(Debug, Default)]
pub struct Told {
    /// Keys that were acknowledged, and their revisions.
    pub acknowledged: BTreeMap<String, i64>,
    /// Keys whose put failed, and how: they may be there or not.
    pub failed: BTreeMap<String, String>,
    /// The longest time between two acknowledgements of one writer.
    pub longest_pause: Duration,
}

/// Writers that run until they are stopped.
pub struct Load {
    stop: Arc<AtomicBool>,
    written: Arc<AtomicU64>,
    writers: Vec<JoinHandle<Told>>,
}

impl Load {
    /// One writer a channel, each writing keys of its own.
    pub fn start(name: &str, channels: Vec<Channel>) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let written = Arc::new(AtomicU64::new(0));
        let writers = channels.into_iter().enumerate().map(|(number, channel)| {
            let name = format!("{name}-{number}");
            tokio::spawn(write(name, channel, stop.clone(), written.clone()))
        });
        let writers = writers.collect();
        Load { stop, written, writers }
    }

    /// Writes that were acknowledged until now.
    pub fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// Ends the writers; what they were told.
    pub async fn stop(self) -> Told {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Told::default();
        for writer in self.writers {
            let told = writer.await.unwrap();
            all.acknowledged.extend(told.acknowledged);
            all.failed.extend(told.failed);
            all.longest_pause = all.longest_pause.max(told.longest_pause);
        }
        all
    }
}

async fn write(
    name: String,
    channel: Channel,
    stop: Arc<AtomicBool>,
    written: Arc<AtomicU64>,
) -> Told {
    let mut client = KvClient::new(channel);
    let mut told = Told::default();
    let mut last = Instant::now();
    for number in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let key = format!("{name}-{number}");
        match client.put(put(&key)).await {
            Ok(answer) => {
                let revision = answer.into_inner().header.unwrap().revision;
                told.acknowledged.insert(key, revision);
                written.fetch_add(1, Ordering::Relaxed);
                told.longest_pause = told.longest_pause.max(last.elapsed());
                last = Instant::now();
            }
            Err(status) => {
                told.failed.insert(key, status.to_string());
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    }
    told
}

impl Told {
    /// Every acknowledged write is there as it was acknowledged, and no two
    /// have one revision.
    pub async fn check(&self, channel: Channel) {
        let mut client = KvClient::new(channel).max_decoding_message_size(usize::MAX);
        let everything =
            RangeRequest { key: "\0".into(), range_end: "\0".into(), ..Default::default() };
        let answer = client.range(everything).await.unwrap().into_inner();
        let found: BTreeMap<_, _> =
            answer.kvs.iter().map(|kv| (kv.key.as_ref(), kv.mod_revision)).collect();
        for (key, revision) in &self.acknowledged {
            assert_eq!(found.get(key.as_bytes()), Some(revision), "{key} is lost");
        }
        let distinct: std::collections::BTreeSet<_> = found.values().collect();
        assert_eq!(distinct.len(), found.len(), "two writes have one revision");
    }
}

/// Watches everything on one member from revision 2 on, on one stream, until
/// it has seen `last`. Panics on a gap, a repetition, or the stream's end.
pub fn watch_all(channel: Channel, last: &str) -> JoinHandle<Vec<(i64, String)>> {
    let last = last.to_owned();
    tokio::spawn(async move {
        let create = WatchCreateRequest {
            key: "\0".into(),
            range_end: "\0".into(),
            start_revision: 2,
            ..Default::default()
        };
        let request = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
        // The stream of requests stays open: its end would be the watch's.
        let requests = futures::StreamExt::chain(
            futures::stream::once(async move { request }),
            futures::stream::pending(),
        );
        let mut client = WatchClient::new(channel).max_decoding_message_size(usize::MAX);
        let mut answers = client.watch(requests).await.unwrap().into_inner();
        let mut seen = Vec::new();
        loop {
            let next = tokio::time::timeout(PATIENCE, answers.message()).await;
            let answer = next.expect("the watch is silent").unwrap().expect("the watch ended");
            assert!(!answer.canceled, "{}", answer.cancel_reason);
            for event in answer.events {
                let kv = event.kv.unwrap();
                let key = String::from_utf8(kv.key.to_vec()).unwrap();
                let is_last = key == last;
                seen.push((kv.mod_revision, key));
                if is_last {
                    return seen;
                }
            }
        }
    })
}

/// That a watch saw every revision once, in order, and what was acknowledged
/// before its end.
pub fn check_events(seen: &[(i64, String)], told: &Told) {
    for (position, (revision, key)) in seen.iter().enumerate() {
        assert_eq!(*revision, position as i64 + 2, "{key} is out of order");
    }
    let keys: BTreeMap<_, _> = seen.iter().map(|(revision, key)| (key, revision)).collect();
    let end = seen.last().map_or(0, |(revision, _)| *revision);
    for (key, revision) in told.acknowledged.iter().filter(|(_, revision)| **revision <= end) {
        assert_eq!(keys.get(key), Some(&revision), "{key} was not seen");
    }
}
