//! From a write to the last of many watchers of one prefix.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use skiff_datastore::proto::kv_client::KvClient;
use skiff_datastore::proto::watch_client::WatchClient;
use skiff_datastore::proto::watch_request::RequestUnion;
use skiff_datastore::proto::{PutRequest, WatchCreateRequest, WatchRequest};
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

use crate::Scale;
use crate::load::percentile_ms;
use crate::object::{self, PREFIX, PREFIX_END};
use crate::report::Report;
use crate::store::Store;

/// Connections that share the watchers; each watcher has a stream of its own.
const CHANNELS: usize = 10;
/// Between two writes: 100 a second.
const PAUSE: Duration = Duration::from_millis(10);
/// Keys that are written in turns.
const KEYS: u64 = 100;
/// How long an event may be on its way.
const BOUND: Duration = Duration::from_secs(30);

pub async fn fan(store: &mut Store, scale: &Scale, report: &mut Report) -> Result<()> {
    let channels = store.channels(CHANNELS).await?;
    let (seen, mut arrivals) = mpsc::unbounded_channel();
    let mut watchers = tokio::task::JoinSet::new();
    for number in 0..scale.watchers {
        let events = subscribe(channels[number % CHANNELS].clone()).await?;
        let seen = seen.clone();
        watchers.spawn(async move {
            let mut events = events;
            while let Some(Ok(answer)) = events.next().await {
                for event in answer.events {
                    let revision = event.kv.map_or(0, |kv| kv.mod_revision);
                    if seen.send((revision, Instant::now())).is_err() {
                        return;
                    }
                }
            }
        });
    }
    let mut kv = KvClient::new(store.channels(1).await?.remove(0));
    let writer = tokio::spawn(write(kv.clone(), scale.span));
    // The last to see each revision, and how many have.
    let mut last: HashMap<i64, (usize, Instant)> = HashMap::new();
    let mut written = None;
    let mut writer = writer;
    loop {
        tokio::select! {
            arrival = arrivals.recv() => {
                let (revision, at) = arrival.context("no watcher is left")?;
                let entry = last.entry(revision).or_insert((0, at));
                entry.0 += 1;
                entry.1 = entry.1.max(at);
            }
            outcome = &mut writer, if written.is_none() => written = Some(outcome??),
            () = tokio::time::sleep(BOUND) => bail!("events are missing"),
        }
        let Some(written) = &written else { continue };
        if written.iter().all(|(revision, _)| {
            last.get(revision).is_some_and(|(count, _)| *count == scale.watchers)
        }) {
            break;
        }
    }
    let written = written.unwrap_or_default();
    let mut latencies: Vec<_> = written
        .iter()
        .filter_map(|(revision, begun)| Some(last.get(revision)?.1.duration_since(*begun)))
        .collect();
    latencies.sort_unstable();
    let name = format!("{} watchers, write to last", scale.watchers);
    report.note(store.kind, format!("{name}, p50"), "ms", "", percentile_ms(&latencies, 50));
    report.note(store.kind, format!("{name}, p99"), "ms", "≤ 1", percentile_ms(&latencies, 99));
    kv.put(PutRequest { key: "end".into(), ..Default::default() }).await?;
    Ok(())
}

/// One watcher that is told of what comes from now on.
async fn subscribe(
    channel: Channel,
) -> Result<tonic::Streaming<skiff_datastore::proto::WatchResponse>> {
    let (ask, asked) = mpsc::channel(1);
    let create = WatchCreateRequest {
        key: PREFIX.into(),
        range_end: PREFIX_END.into(),
        ..Default::default()
    };
    let request = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
    ask.send(request).await?;
    // The stream of questions stays open as long as the task that waits here.
    let questions = ReceiverStream::new(asked).chain(tokio_stream::pending());
    let mut events = WatchClient::new(channel).watch(questions).await?.into_inner();
    let created = events.message().await?.context("a watch ended at once")?;
    anyhow::ensure!(created.created, "a watch was not created");
    Ok(events)
}

/// Writes at a steady pace; when each write began, by its revision.
async fn write(mut kv: KvClient<Channel>, span: Duration) -> Result<Vec<(i64, Instant)>> {
    let mut ticks = tokio::time::interval(PAUSE);
    let begun = Instant::now();
    let mut written = Vec::new();
    for number in 0.. {
        if begun.elapsed() > span {
            break;
        }
        ticks.tick().await;
        let key = object::key(number % KEYS);
        let value = object::value(number);
        let now = Instant::now();
        let put = PutRequest { key, value, ..Default::default() };
        let answer = kv.put(put).await?.into_inner();
        written.push((answer.header.context("an answer has no header")?.revision, now));
    }
    Ok(written)
}
