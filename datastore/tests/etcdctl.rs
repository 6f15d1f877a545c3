//! `etcdctl` in everyday use: every command prints for our datastore what it
//! prints for a real etcd.
#![allow(clippy::unwrap_used)] // a test that panics says where

#[path = "differential/peer.rs"]
mod peer;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use peer::Peer;
use skiff_datastore::serve::router;
use skiff_datastore::server::Server;
use skiff_datastore::shared::Limits;
use skiff_datastore::snapshot;
use skiff_datastore::store::sql::SqlStore;
use skiff_datastore::{Engine, Listen};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::Command;
use tokio::sync::watch as signal;

const REQUEST_BYTES_MAX: usize = 1_572_864;
const PATIENCE: Duration = Duration::from_secs(20);

/// One of the two, as `etcdctl` reaches it.
struct Endpoint {
    address: String,
    etcdctl: PathBuf,
    /// Numbers that are its own, and the words to compare instead.
    own: Vec<(String, &'static str)>,
}

impl Endpoint {
    async fn new(address: String) -> Endpoint {
        let etcdctl = peer::program("etcdctl").unwrap();
        let mut endpoint = Endpoint { address, etcdctl, own: Vec::new() };
        let status = endpoint.json("get nothing").await;
        for (name, word) in [("cluster_id", "CLUSTER"), ("member_id", "MEMBER")] {
            let number = status["header"][name].as_u64().unwrap();
            endpoint.own.push((number.to_string(), word));
            endpoint.own.push((format!("{number:x}"), word));
        }
        let term = &status["header"]["raft_term"];
        endpoint.own.push((format!("\"raft_term\":{term}"), "TERM"));
        endpoint.own.push((format!("\"RaftTerm\" : {term}"), "TERM"));
        endpoint.own.push((endpoint.address.clone(), "ADDRESS"));
        endpoint
    }

    fn command(&self, words: &str) -> Command {
        let mut command = Command::new(&self.etcdctl);
        command.arg(format!("--endpoints={}", self.address));
        command.args(words.split(' ').map(|word| word.replace('~', " ")));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.kill_on_drop(true);
        command
    }

    async fn run(&self, words: &str) -> Printed {
        let output = self.command(words).output();
        let output = tokio::time::timeout(PATIENCE, output).await.expect(words).unwrap();
        self.printed(output)
    }

    async fn run_with(&self, words: &str, input: &str) -> Printed {
        let mut child = self.command(words).stdin(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).await.unwrap();
        let output = tokio::time::timeout(PATIENCE, child.wait_with_output());
        self.printed(output.await.expect(words).unwrap())
    }

    /// What a command says in JSON, its own numbers and all.
    async fn json(&self, words: &str) -> serde_json::Value {
        let output = self.command(&format!("{words} -w json")).output();
        let output = tokio::time::timeout(PATIENCE, output).await.expect(words).unwrap();
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// The first lines of a command that does not end by itself.
    async fn first_lines(&self, words: &str, count: usize) -> Vec<String> {
        let mut child = self.command(words).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut first = Vec::new();
        while first.len() < count {
            let line = tokio::time::timeout(PATIENCE, lines.next_line()).await.expect(words);
            first.push(line.unwrap().expect("it does not end by itself"));
        }
        child.kill().await.unwrap();
        first
    }

    fn printed(&self, output: std::process::Output) -> Printed {
        let text = |bytes| {
            let mut text = String::from_utf8_lossy(bytes).into_owned();
            for (own, word) in &self.own {
                text = text.replace(own, word);
            }
            text
        };
        let stderr = text(&output.stderr);
        // Most errors come as a line of a log, with its time: the words are what counts.
        let words = |line: &'_ str| {
            let logged = line.split_once("\"error\":").map(|(_, words)| words.to_owned());
            logged.or_else(|| line.strip_prefix("Error: ").map(str::to_owned))
        };
        let errors = stderr.lines().filter_map(words);
        let error = errors.collect::<Vec<_>>().join("\n");
        Printed { success: output.status.success(), stdout: text(&output.stdout), error }
    }
}

#[derive(Clone, Debug, PartialEq)]
struct Printed {
    success: bool,
    stdout: String,
    error: String,
}

/// Our datastore on TCP, in this process.
async fn serve() -> (TempDir, signal::Sender<bool>, SocketAddr) {
    let dir = TempDir::new().unwrap();
    let store = SqlStore::open_dir(dir.path()).await.unwrap();
    let running = Engine::start(store, Limits::default(), Instant::now).await.unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stopping, stopped) = signal::channel(false);
    let server = Server {
        engine: running.engine,
        progress_interval: Duration::from_secs(5),
        slow_after: Duration::from_secs(3600),
        stopping: stopped,
    };
    let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
    tokio::spawn(router(server, REQUEST_BYTES_MAX).serve_with_incoming(incoming));
    (dir, stopping, address)
}

struct Both {
    ours: Endpoint,
    etcd: Endpoint,
    _peer: Peer,
    dir: TempDir,
    _stopping: signal::Sender<bool>,
}

impl Both {
    async fn start() -> Option<Both> {
        if peer::program("etcd").is_none() || peer::program("etcdctl").is_none() {
            println!("skipped: etcd is not built: cargo xtask components --test");
            return None;
        }
        let (dir, stopping, address) = serve().await;
        let peer = Peer::start(REQUEST_BYTES_MAX).await;
        let ours = Endpoint::new(address.to_string()).await;
        let etcd = Endpoint::new(peer.listen().to_string()).await;
        Some(Both { ours, etcd, _peer: peer, dir, _stopping: stopping })
    }

    /// Runs a command on both and compares all that it prints.
    async fn same(&self, words: &str) -> Printed {
        let (ours, etcd) = (self.ours.run(words).await, self.etcd.run(words).await);
        assert_eq!(ours, etcd, "etcdctl {words}");
        ours
    }

    async fn all_same(&self, commands: &[&str]) {
        for words in commands {
            let printed = self.same(words).await;
            assert!(printed.success, "etcdctl {words}: {printed:?}");
        }
    }
}

#[tokio::test]
async fn keys_are_written_and_read_as_in_etcd() {
    let Some(both) = Both::start().await else { return };
    both.all_same(&[
        "put a 1",
        "put b 2 --prev-kv",
        "put b 3 --prev-kv",
        "put c/1 x",
        "put c/2 w",
        "put c/3 v",
        "get a",
        "get nothing",
        "get a -w json",
        "get a -w fields",
        "get --prefix c/",
        "get --prefix c/ --keys-only",
        "get --prefix c/ --count-only -w fields",
        "get --prefix c/ --limit 2",
        "get --prefix c/ --limit 2 -w json",
        "get --prefix c/ --sort-by value",
        "get --prefix c/ --sort-by modify --order descend",
        "get --prefix c/ --sort-by key --order descend --limit 1 -w fields",
        "get --from-key b --print-value-only",
        "get a c",
        "get --prefix c/ --stream",
        "get --prefix c/ --stream --keys-only --limit 2 -w json",
        "get --prefix c/ --stream --count-only -w fields",
        "get b --rev 3",
        "get --prefix c/ --consistency s",
        "put a --ignore-lease 4",
        "del a --prev-kv",
        "del a",
        "del --prefix c/ --prev-kv -w json",
        "get --prefix ~ -w json",
    ])
    .await;
    let compares = "mod(\"b\") > \"0\"\nvalue(\"b\") = \"3\"\n\nput t 1\nget b\n\nput t 2\n\n";
    for words in ["txn", "txn -w json", "txn -w fields"] {
        let ours = both.ours.run_with(words, compares).await;
        assert!(ours.success, "{ours:?}");
        assert_eq!(ours, both.etcd.run_with(words, compares).await, "{words}");
    }
    both.all_same(&["get t -w json", "compaction 5", "get b"]).await;
    for refused in [
        "get b --rev 2",
        "get b --rev 1000",
        "get b --stream --rev 2",
        "get --prefix c/ --stream --order descend",
        "get --prefix c/ --stream --min-mod-rev 3",
        "compaction 5",
        "put z --ignore-value",
    ] {
        let printed = both.same(refused).await;
        assert!(!printed.success && !printed.error.is_empty(), "{refused}: {printed:?}");
    }
}

#[tokio::test]
async fn watches_print_what_they_print_with_etcd() {
    let Some(both) = Both::start().await else { return };
    both.all_same(&["put w/1 a", "put w/1 b", "put other x", "put w/2 c", "del w/1"]).await;
    for (words, count) in [
        ("watch --prefix w/ --rev 2", 12),
        ("watch --prefix w/ --rev 2 --prev-kv", 15),
        ("watch w/1 --rev 3 -w json", 2),
    ] {
        let ours = both.ours.first_lines(words, count - 1).await;
        let etcd = both.etcd.first_lines(words, count - 1).await;
        if words.ends_with("json") {
            // The header's revision depends on how events are cut into answers.
            let events = |lines: &[String]| {
                lines
                    .iter()
                    .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
                    .map(|answer| answer["Events"].clone())
                    .collect::<Vec<_>>()
            };
            assert_eq!(events(&ours)[0][0], events(&etcd)[0][0], "{words}");
        } else {
            assert_eq!(ours, etcd, "{words}");
        }
    }
}

#[tokio::test]
async fn leases_live_and_end_as_in_etcd() {
    let Some(both) = Both::start().await else { return };
    for endpoint in [&both.ours, &both.etcd] {
        let granted = endpoint.run("lease grant 600").await.stdout;
        let lease = granted.split(' ').nth(1).unwrap().to_owned();
        assert_eq!(granted.replace(&lease, "ID"), "lease ID granted with TTL(600s)\n");
        let run = async |words: &str| {
            let printed = endpoint.run(&words.replace("ID", &lease)).await;
            assert!(printed.success, "{words}: {printed:?}");
            printed.stdout.replace(&lease, "ID")
        };
        run("put l/1 a --lease=ID").await;
        run("put l/2 b --lease=ID").await;
        let kept = run("lease keep-alive --once ID").await;
        assert_eq!(kept, "lease ID keepalived with TTL(600)\n");
        let alive = run("lease timetolive ID --keys").await;
        assert!(alive.starts_with("lease ID granted with TTL(600s), remaining("), "{alive}");
        assert!(alive.contains("l/1") && alive.contains("l/2"), "{alive}");
        assert_eq!(run("lease list").await, "found 1 leases\nID\n");
        assert_eq!(run("lease revoke ID").await, "lease ID revoked\n");
        assert_eq!(run("lease timetolive ID").await, "lease ID already expired\n");
        assert_eq!(run("get --prefix l/").await, "");
        let locked = run("lock a-lock echo held").await;
        assert_eq!(locked, "held\n");
    }
    // Both keys ended in one revision.
    both.same("get nothing -w json").await;
}

#[tokio::test]
async fn the_cluster_is_looked_after_as_with_etcd() {
    let Some(both) = Both::start().await else { return };
    both.all_same(&["put a 1", "alarm list", "alarm disarm"]).await;
    for endpoint in [&both.ours, &both.etcd] {
        let health = endpoint.run("endpoint health").await;
        assert!(health.success && health.stdout.starts_with("ADDRESS is healthy"), "{health:?}");
        let defrag = endpoint.run("defrag").await;
        assert!(defrag.success, "{defrag:?}");
        assert!(defrag.stdout.starts_with("Finished defragmenting etcd member[ADDRESS]"));
        let status = endpoint.json("endpoint status").await;
        let status = &status[0]["Status"];
        assert_eq!(status["header"]["revision"], 2);
        assert_eq!(status["leader"], status["header"]["member_id"]);
        assert!(status["dbSize"].as_i64().unwrap() > 0);
        let hash = endpoint.json("endpoint hashkv").await;
        assert_eq!(hash[0]["HashKV"]["hash_revision"], 2);
        let members = endpoint.run("member list").await;
        assert!(members.stdout.starts_with("MEMBER, started, "), "{members:?}");
    }
    let refused = both.ours.run("member add other --peer-urls=http://127.0.0.1:1").await;
    assert!(!refused.success && refused.error.contains("Unimplemented"), "{refused:?}");
    let refused = both.ours.run("auth enable").await;
    assert!(!refused.success && refused.error.contains("Unimplemented"), "{refused:?}");
}

#[tokio::test]
async fn a_saved_snapshot_can_be_verified() {
    let Some(both) = Both::start().await else { return };
    for number in 0..50 {
        let value = number.to_string().repeat(20_000);
        assert!(both.ours.run(&format!("put key{number:02} {value}")).await.success);
    }
    let path = both.dir.path().join("snapshot");
    let saved = both.ours.run(&format!("snapshot save {}", path.display())).await;
    assert!(saved.success, "{saved:?}");
    assert!(saved.stdout.contains("Snapshot saved at"), "{saved:?}");
    let summary = snapshot::verify(std::fs::File::open(&path).unwrap()).unwrap();
    assert_eq!((summary.keys, summary.revision.0), (50, 51));
    let listen: Listen = both.ours.address.parse().unwrap();
    assert_eq!(skiff_datastore::probe_at(&listen).await.unwrap().revision, 51);
}
