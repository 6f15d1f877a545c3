//! The daemon as a process: killed, stopped, lied to.
#![allow(clippy::unwrap_used)] // a test that panics says where

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use dqlite::{DatabaseName, MemberId, Node};
use skiff_datastore::proto::kv_client::KvClient;
use skiff_datastore::proto::watch_client::WatchClient;
use skiff_datastore::proto::watch_request::RequestUnion;
use skiff_datastore::proto::{PutRequest, RangeRequest, WatchCreateRequest, WatchRequest};
use skiff_datastore::store::sole::MEMBER_ADDRESS;
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
    start_as(home, command(home)).await
}

async fn start_as(home: &Path, mut command: Command) -> Daemon {
    let child = command.stderr(Stdio::null()).spawn().unwrap();
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

/// The most files that this process may have, now that it may have them.
fn files_max() -> u64 {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    hard
}

#[tokio::test]
async fn ten_thousand_connections_hold_up_nobody() {
    const CONNECTIONS: usize = 10_000;
    if files_max() < CONNECTIONS as u64 + 1000 {
        println!("skipped: this process may not open {CONNECTIONS} connections");
        return;
    }
    let home = TempDir::new().unwrap();
    let daemon = start(home.path()).await;
    let before = resident_kib(&daemon);
    let mut connections = Vec::new();
    for number in 0..CONNECTIONS {
        let mut stream = connect_patiently(&daemon.socket).await;
        // Half of them are clients that never ask anything.
        if number % 2 == 0 {
            stream
                .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")
                .await
                .unwrap();
        }
        connections.push(stream);
    }
    let began = Instant::now();
    KvClient::new(daemon.channel().await).put(put("a".into())).await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    let each_kib = (resident_kib(&daemon) - before) as f64 / CONNECTIONS as f64;
    println!("{each_kib:.1} KiB a connection");
    assert!(each_kib < 32.0, "{each_kib} KiB a connection");
    drop(connections);
    KvClient::new(daemon.channel().await).put(put("b".into())).await.unwrap();
}

/// The queue of a socket is short, and a full one refuses at once.
async fn connect_patiently(socket: &Path) -> tokio::net::UnixStream {
    let deadline = Instant::now() + START_TIMEOUT;
    loop {
        match tokio::net::UnixStream::connect(socket).await {
            Ok(stream) => return stream,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                assert!(Instant::now() < deadline, "connections are not taken in");
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            Err(error) => panic!("{error}"),
        }
    }
}

fn resident_kib(daemon: &Daemon) -> i64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.child.id())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[tokio::test]
async fn connections_beyond_the_limit_of_files_wait() {
    let home = TempDir::new().unwrap();
    // 300 files, of which 256 are kept back.
    let own = command(home.path());
    let mut limited = Command::new("sh");
    limited.args(["-c", "ulimit -n 300 && exec \"$0\" \"$@\""]).arg(own.get_program());
    limited.args(own.get_args());
    let daemon = start_as(home.path(), limited).await;
    let channel = daemon.channel().await;
    let mut connections = Vec::new();
    for _ in 0..100 {
        connections.push(tokio::net::UnixStream::connect(&daemon.socket).await.unwrap());
    }
    // Who has a place is served, also when dqlite needs files of its own.
    for number in 0..300 {
        let request = PutRequest { value: vec![b'x'; 100_000].into(), ..put(number.to_string()) };
        KvClient::new(channel.clone()).put(request).await.unwrap();
    }
    let late = probe(&daemon.socket).await;
    assert!(late.is_err(), "there was a place for everyone: {late:?}");
    drop(connections);
    probe(&daemon.socket).await.expect("a place is free again");
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
async fn the_largest_request_that_may_be_allowed_is_kept() {
    const BYTES: usize = 64 << 20;
    let home = TempDir::new().unwrap();
    let limited = |bytes: usize| {
        let mut command = command(home.path());
        command.arg(format!("--max-request-bytes={bytes}"));
        command
    };
    // What can't be compressed, from a generator of little words (xorshift).
    let mut word = 0x9e37_79b9_7f4a_7c15_u64;
    let mut value = Vec::with_capacity(BYTES);
    while value.len() < BYTES - 1024 {
        word ^= word << 13;
        word ^= word >> 7;
        word ^= word << 17;
        value.extend_from_slice(&word.to_le_bytes());
    }
    let value = bytes::Bytes::from(value);
    let mut daemon = start_as(home.path(), limited(BYTES)).await;
    let large = |key: &str| PutRequest { value: value.clone(), ..put(key.into()) };
    for key in ["a", "b", "a"] {
        KvClient::new(daemon.channel().await).put(large(key)).await.unwrap();
    }
    daemon.child.kill().unwrap();
    daemon.child.wait().unwrap();
    let daemon = start_as(home.path(), limited(BYTES)).await;
    for key in ["a", "b"] {
        let request = RangeRequest { key: key.into(), ..Default::default() };
        let client = KvClient::new(daemon.channel().await);
        let mut client = client.max_decoding_message_size(usize::MAX);
        let answer = client.range(request).await.unwrap().into_inner();
        assert!(answer.kvs[0].value == value, "{key} is another one");
    }
    let output = limited(BYTES + 1).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "more than was tried is refused");
}

/// Says of the tables that they have this form.
async fn set_format(dir: &Path, format: i64) {
    let node = Node::builder(MemberId::FIRST, MEMBER_ADDRESS, dir).start().unwrap();
    let name = DatabaseName::new("kube").unwrap();
    let mut connection = node.open_when_leader(&name, START_TIMEOUT).await.unwrap();
    let changed = connection.exec("UPDATE meta SET format = ?", &[format.into()]).await.unwrap();
    assert_eq!(changed.rows_affected, 1);
    drop(connection);
    node.stop().unwrap();
}

#[tokio::test]
async fn a_database_of_a_newer_version_is_refused_and_left_as_it_is() {
    let home = TempDir::new().unwrap();
    let dir = home.path().join("data");
    {
        let daemon = start(home.path()).await;
        KvClient::new(daemon.channel().await).put(put("a".into())).await.unwrap();
    }
    set_format(&dir, 2).await;
    let output = command(home.path()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{text}");
    assert!(text.contains(&dir.display().to_string()), "{text}");
    assert!(text.contains("form 2") && text.contains("newer Skiff"), "{text}");
    assert!(!text.contains("damaged"), "what is sound is not to be replaced: {text}");
    set_format(&dir, 1).await;
    check_all(&start(home.path()).await, &[("a".into(), 2)]).await;
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
