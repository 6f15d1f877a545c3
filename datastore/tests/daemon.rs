//! The daemon as a process: killed, stopped, lied to.
#![allow(clippy::unwrap_used)] // a test that panics says where

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use skiff_datastore::proto::kv_client::KvClient;
use skiff_datastore::proto::watch_client::WatchClient;
use skiff_datastore::proto::watch_request::RequestUnion;
use skiff_datastore::proto::{PutRequest, RangeRequest, WatchCreateRequest, WatchRequest};
use skiff_datastore::{Listen, probe, probe_at};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tonic::transport::Channel;

const START_TIMEOUT: Duration = Duration::from_secs(30);

/// A running datastore in a directory of its own.
struct Daemon {
    child: Child,
    socket: PathBuf,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn command(home: &Path) -> Command {
    let tests = std::env::current_exe().unwrap();
    let program = tests.parent().unwrap().parent().unwrap().join("examples/standalone");
    let mut command = Command::new(program);
    command
        .arg("--dir")
        .arg(home.join("data"))
        .arg("--listen")
        .arg(format!("unix:{}", home.join("socket").display()))
        .stderr(Stdio::piped());
    command
}

async fn start(home: &Path) -> Daemon {
    let child = command(home).stderr(Stdio::null()).spawn().unwrap();
    let daemon = Daemon { child, socket: home.join("socket") };
    let deadline = Instant::now() + START_TIMEOUT;
    while probe(&daemon.socket).await.is_err() {
        assert!(Instant::now() < deadline, "the datastore does not serve");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    daemon
}

impl Daemon {
    async fn channel(&self) -> Channel {
        skiff_datastore::probe::connect(&Listen::Unix(self.socket.clone())).await.unwrap()
    }

    fn signal(&self, signal: nix::sys::signal::Signal) {
        let pid = nix::unistd::Pid::from_raw(self.child.id() as i32);
        nix::sys::signal::kill(pid, signal).unwrap();
    }
}

fn put(key: String) -> PutRequest {
    PutRequest { value: key.clone().into(), key: key.into(), ..Default::default() }
}

/// Writes until the datastore is gone; what was acknowledged, with revisions.
async fn write_until_gone(channel: Channel, writer: usize, round: usize) -> Vec<(String, i64)> {
    let mut client = KvClient::new(channel);
    let mut acknowledged = Vec::new();
    for number in 0.. {
        let key = format!("key-{round}-{writer}-{number}");
        match client.put(put(key.clone())).await {
            Ok(answer) => {
                let header = answer.into_inner().header.unwrap();
                acknowledged.push((key, header.revision));
            }
            Err(_) => break,
        }
    }
    acknowledged
}

#[tokio::test]
async fn what_was_acknowledged_survives_kill_9() {
    let home = TempDir::new().unwrap();
    let mut acknowledged = Vec::new();
    for round in 0..6 {
        let mut daemon = start(home.path()).await;
        check_all(&daemon, &acknowledged).await;
        let channel = daemon.channel().await;
        let writers: Vec<_> = (0..8)
            .map(|writer| tokio::spawn(write_until_gone(channel.clone(), writer, round)))
            .collect();
        tokio::time::sleep(Duration::from_millis(100 + 37 * round as u64)).await;
        daemon.child.kill().unwrap();
        daemon.child.wait().unwrap();
        for writer in writers {
            acknowledged.extend(writer.await.unwrap());
        }
    }
    assert!(acknowledged.len() > 100, "only {} writes were made", acknowledged.len());
    let daemon = start(home.path()).await;
    check_all(&daemon, &acknowledged).await;
    check_watch_from_the_beginning(&daemon, acknowledged.len()).await;
}

async fn check_all(daemon: &Daemon, acknowledged: &[(String, i64)]) {
    let mut client = KvClient::new(daemon.channel().await).max_decoding_message_size(usize::MAX);
    let request = RangeRequest { key: "\0".into(), range_end: "\0".into(), ..Default::default() };
    let answer = client.range(request).await.unwrap().into_inner();
    let found: std::collections::HashMap<_, _> =
        answer.kvs.iter().map(|kv| (kv.key.as_ref(), kv.mod_revision)).collect();
    for (key, revision) in acknowledged {
        assert_eq!(found.get(key.as_bytes()), Some(revision), "{key} is lost");
    }
    let newest = acknowledged.iter().map(|(_, revision)| *revision).max().unwrap_or(1);
    assert!(answer.header.unwrap().revision >= newest, "revisions went backwards");
}

/// Every revision comes once and in order, also those not acknowledged.
async fn check_watch_from_the_beginning(daemon: &Daemon, count_min: usize) {
    let mut client = WatchClient::new(daemon.channel().await).max_decoding_message_size(usize::MAX);
    let create = WatchCreateRequest {
        key: "\0".into(),
        range_end: "\0".into(),
        start_revision: 2,
        ..Default::default()
    };
    let request = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
    let requests = futures::stream::iter([request]);
    let requests = futures::StreamExt::chain(requests, futures::stream::pending());
    let mut answers = client.watch(requests).await.unwrap().into_inner();
    let mut expected = 2;
    while expected < 2 + count_min as i64 {
        let answer = answers.message().await.unwrap().expect("the stream goes on");
        for event in answer.events {
            assert_eq!(event.kv.unwrap().mod_revision, expected);
            expected += 1;
        }
    }
}

#[tokio::test]
async fn sigterm_ends_orderly_although_clients_watch() {
    let home = TempDir::new().unwrap();
    let mut daemon = start(home.path()).await;
    let mut client = WatchClient::new(daemon.channel().await);
    let requests = futures::stream::pending::<WatchRequest>();
    let mut answers = client.watch(requests).await.unwrap().into_inner();
    KvClient::new(daemon.channel().await).put(put("a".into())).await.unwrap();
    let began = Instant::now();
    daemon.signal(nix::sys::signal::Signal::SIGTERM);
    let status = answers.message().await.expect_err("the stream is ended");
    assert_eq!(status.code(), tonic::Code::Unavailable);
    let exit = daemon.child.wait().unwrap();
    assert!(exit.success(), "{exit}");
    assert!(began.elapsed() < Duration::from_secs(10));
    assert!(!daemon.socket.exists(), "the socket is removed");
}

#[tokio::test]
async fn garbage_on_the_socket_harms_nobody() {
    let home = TempDir::new().unwrap();
    let daemon = start(home.path()).await;
    for garbage in
        [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0xff; 4096], b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0"]
    {
        let mut stream = tokio::net::UnixStream::connect(&daemon.socket).await.unwrap();
        stream.write_all(garbage).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = Vec::new();
        let _ = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut answer)).await;
    }
    let listen = Listen::Unix(daemon.socket.clone());
    assert_eq!(probe_at(&listen).await.unwrap().revision, 1);
}

#[tokio::test]
async fn a_second_datastore_on_the_same_directory_is_refused() {
    let home = TempDir::new().unwrap();
    let _daemon = start(home.path()).await;
    let mut second = command(home.path());
    second.arg("--listen").arg("127.0.0.1:0");
    let output = second.output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(text.contains(&home.path().join("data").display().to_string()), "{text}");
}

#[tokio::test]
async fn a_damaged_directory_is_named_with_what_to_do() {
    let home = TempDir::new().unwrap();
    {
        let daemon = start(home.path()).await;
        let mut client = KvClient::new(daemon.channel().await);
        for number in 0..200 {
            client.put(put(format!("key-{number}"))).await.unwrap();
        }
    }
    for file in std::fs::read_dir(home.path().join("data")).unwrap().flatten() {
        if file.file_name().to_string_lossy().starts_with("metadata") {
            std::fs::write(file.path(), [0x55; 32]).unwrap();
        }
    }
    let output = command(home.path()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{text}");
    assert!(text.contains(&home.path().join("data").display().to_string()), "{text}");
    assert!(text.contains("backup"), "{text}");
}
