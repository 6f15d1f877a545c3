//! The API as a client sees it over gRPC, on the store in memory.
#![allow(dead_code)] // each test uses its part

use std::time::{Duration, Instant};

use futures::channel::mpsc;
use skiff_datastore::proto::kv_client::KvClient;
use skiff_datastore::proto::watch_client::WatchClient;
use skiff_datastore::proto::watch_request::RequestUnion;
use skiff_datastore::proto::*;
use skiff_datastore::serve::router;
use skiff_datastore::server::Server;
use skiff_datastore::shared::Limits;
use skiff_datastore::store::memory::MemoryStore;
use skiff_datastore::{Engine, Listen};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch as signal;
use tonic::transport::Channel;
use tonic::{Status, Streaming};

pub const PATIENCE: Duration = Duration::from_secs(20);

/// A server in this process and a connection to it.
pub struct Home {
    dir: TempDir,
    _stopping: signal::Sender<bool>,
    pub channel: Channel,
    pub engine: Engine,
}

impl Home {
    pub async fn start(limits: Limits, progress_interval: Duration) -> Home {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("socket");
        let listener = tokio::net::UnixListener::bind(&path).unwrap();
        let running = Engine::start(MemoryStore::default(), limits, Instant::now).await.unwrap();
        let (stopping, stopped) = signal::channel(false);
        let engine = running.engine.clone();
        let slow_after = Duration::from_secs(3600);
        let server =
            Server { engine: running.engine, progress_interval, slow_after, stopping: stopped };
        let incoming = tokio_stream::wrappers::UnixListenerStream::new(listener);
        let served = router(server, limits.request_bytes_max).serve_with_incoming(incoming);
        tokio::spawn(served);
        let channel = skiff_datastore::probe::connect(&Listen::Unix(path)).await.unwrap();
        Home { dir, _stopping: stopping, channel, engine }
    }

    pub async fn new() -> Home {
        Home::start(Limits::default(), Duration::from_secs(3600)).await
    }

    /// The answer to a plain HTTP request, head and body.
    pub async fn get(&self, path: &str) -> String {
        let socket = self.dir.path().join("socket");
        let mut stream = tokio::net::UnixStream::connect(socket).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    pub fn kv(&self) -> KvClient<Channel> {
        KvClient::new(self.channel.clone()).max_decoding_message_size(usize::MAX)
    }

    /// A client on a connection of its own.
    pub async fn other_connection(&self) -> KvClient<Channel> {
        let listen = Listen::Unix(self.dir.path().join("socket"));
        let channel = skiff_datastore::probe::connect(&listen).await.unwrap();
        KvClient::new(channel).max_decoding_message_size(usize::MAX)
    }

    pub async fn put(&self, key: &str, value: &str) -> i64 {
        let request = PutRequest {
            key: key.to_owned().into(),
            value: value.to_owned().into(),
            ..Default::default()
        };
        self.kv().put(request).await.unwrap().into_inner().header.unwrap().revision
    }

    pub async fn put_refused(&self, key: &str) -> Status {
        let request = PutRequest { key: key.to_owned().into(), ..Default::default() };
        self.kv().put(request).await.unwrap_err()
    }

    pub async fn delete(&self, key: &str) -> i64 {
        let request = DeleteRangeRequest { key: key.to_owned().into(), ..Default::default() };
        self.kv().delete_range(request).await.unwrap().into_inner().deleted
    }

    pub async fn compact(&self, revision: i64) -> Result<(), Status> {
        let request = CompactionRequest { revision, physical: true };
        self.kv().compact(request).await.map(drop)
    }

    pub async fn watch(&self) -> Watching {
        let (requests, receiver) = mpsc::unbounded();
        let mut client =
            WatchClient::new(self.channel.clone()).max_decoding_message_size(usize::MAX);
        let answers = client.watch(receiver).await.unwrap().into_inner();
        Watching { requests, answers }
    }
}

/// A stream of watchers.
pub struct Watching {
    pub requests: mpsc::UnboundedSender<WatchRequest>,
    pub answers: Streaming<WatchResponse>,
}

impl Watching {
    pub fn send(&self, request: RequestUnion) {
        let request = WatchRequest { request_union: Some(request) };
        self.requests.unbounded_send(request).unwrap();
    }

    pub async fn next(&mut self) -> WatchResponse {
        tokio::time::timeout(PATIENCE, self.answers.message())
            .await
            .expect("an answer comes in time")
            .unwrap()
            .expect("the stream goes on")
    }

    pub async fn create(&mut self, request: WatchCreateRequest) -> WatchResponse {
        self.send(RequestUnion::CreateRequest(request));
        let created = self.next().await;
        assert!(created.created);
        created
    }

    /// The next `count` events as words, with the revision each answer bore.
    pub async fn events(&mut self, count: usize) -> Vec<String> {
        let mut words = Vec::new();
        while words.len() < count {
            let answer = self.next().await;
            assert!(!answer.canceled, "{answer:?}");
            words.extend(answer.events.iter().map(word));
        }
        words
    }
}

pub fn word(event: &Event) -> String {
    let kv = event.kv.as_ref().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let former = event.prev_kv.as_ref().map(|kv| format!(" was {}", text(&kv.value)));
    let what = if event.r#type() == EventType::Put { "put" } else { "delete" };
    format!(
        "{} {what} {}={}{}",
        kv.mod_revision,
        text(&kv.key),
        text(&kv.value),
        former.unwrap_or_default()
    )
}

pub fn watch_all() -> WatchCreateRequest {
    WatchCreateRequest { key: "\0".into(), range_end: "\0".into(), ..Default::default() }
}
