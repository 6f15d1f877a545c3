//! Two databases on one node: `kube` and `cluster`.
#![allow(clippy::unwrap_used)] // a test that panics says where

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use dqlite::{MemberId, Node};
use skiff_datastore::backup::restore::{Carried, RestoreOptions};
use skiff_datastore::backup::take::TakeOptions;
use skiff_datastore::backup::{Opening, Restored, Sealing, restore, take};
use skiff_datastore::options::{CLUSTER_QUOTA_BYTES, CLUSTER_REVISIONS_KEPT};
use skiff_datastore::proto::kv_client::KvClient;
use skiff_datastore::proto::{CompactionRequest, DeleteRangeRequest, PutRequest, RangeRequest};
use skiff_datastore::store::sole::MEMBER_ADDRESS;
use skiff_datastore::{Database, Listen, probe};
use tempfile::TempDir;
use tonic::transport::Channel;
use tonic::{Code, Status};

const START_TIMEOUT: Duration = Duration::from_secs(30);
/// Larger values would not fit in one request.
const LARGE: usize = 1_400_000;

/// A directory and its sockets; a process while it runs.
struct Home {
    dir: TempDir,
    child: Option<Child>,
}

impl Drop for Home {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Home {
    fn new() -> Home {
        Home { dir: TempDir::new().unwrap(), child: None }
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn socket(&self, database: Database) -> PathBuf {
        self.dir.path().join(format!("{database:?}.socket"))
    }

    /// The command for `kube` alone.
    fn command(&self) -> Command {
        let tests = std::env::current_exe().unwrap();
        let program = tests.parent().unwrap().parent().unwrap().join("examples/standalone");
        let mut command = Command::new(program);
        command.arg("--dir").arg(self.data());
        command.arg("--listen").arg(address(&self.socket(Database::Kube)));
        command
    }

    fn command_for_both(&self) -> Command {
        let mut command = self.command();
        command.arg("--cluster-listen").arg(address(&self.socket(Database::Cluster)));
        command
    }

    async fn start_as(&mut self, mut command: Command, databases: &[Database]) {
        assert!(self.child.is_none());
        self.child = Some(command.stderr(Stdio::null()).spawn().unwrap());
        for database in databases {
            let deadline = Instant::now() + START_TIMEOUT;
            while probe(self.socket(*database)).await.is_err() {
                assert!(Instant::now() < deadline, "{database:?} is not served");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }

    async fn start(&mut self) {
        self.start_as(self.command_for_both(), &[Database::Kube, Database::Cluster]).await;
    }

    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    fn stop(&mut self) {
        let mut child = self.child.take().unwrap();
        let pid = nix::unistd::Pid::from_raw(child.id() as i32);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
        assert!(child.wait().unwrap().success());
    }

    async fn kv(&self, database: Database) -> KvClient<Channel> {
        let channel = skiff_datastore::probe::connect(&Listen::Unix(self.socket(database))).await;
        KvClient::new(channel.unwrap()).max_decoding_message_size(usize::MAX)
    }

    async fn put(&self, database: Database, key: &str, value: &str) -> Result<i64, Status> {
        put(&mut self.kv(database).await, key, value.to_owned()).await
    }

    /// Keys with their values, and the revision.
    async fn all(&self, database: Database) -> (BTreeMap<String, String>, i64) {
        let request =
            RangeRequest { key: "\0".into(), range_end: "\0".into(), ..Default::default() };
        let answer = self.kv(database).await.range(request).await.unwrap().into_inner();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let kvs = answer.kvs.iter().map(|kv| (text(&kv.key), text(&kv.value))).collect();
        (kvs, answer.header.unwrap().revision)
    }
}

fn address(socket: &Path) -> String {
    format!("unix:{}", socket.display())
}

async fn put(client: &mut KvClient<Channel>, key: &str, value: String) -> Result<i64, Status> {
    let request =
        PutRequest { key: key.to_owned().into(), value: value.into(), ..Default::default() };
    Ok(client.put(request).await?.into_inner().header.unwrap().revision)
}

#[tokio::test]
async fn two_databases_see_nothing_of_each_other() {
    let mut home = Home::new();
    home.start().await;
    assert_eq!(home.put(Database::Kube, "a", "objects").await.unwrap(), 2);
    assert_eq!(home.put(Database::Kube, "a", "objects").await.unwrap(), 3);
    assert_eq!(home.put(Database::Cluster, "a", "members").await.unwrap(), 2);
    assert_eq!(home.put(Database::Cluster, "b", "members").await.unwrap(), 3);
    let kube = (BTreeMap::from([("a".into(), "objects".into())]), 3);
    let members = || "members".to_owned();
    let cluster = (BTreeMap::from([("a".into(), members()), ("b".into(), members())]), 3);
    assert_eq!(home.all(Database::Kube).await, kube);
    assert_eq!(home.all(Database::Cluster).await, cluster);
    // A compaction of one is none of the other.
    let compact = CompactionRequest { revision: 3, physical: true };
    home.kv(Database::Kube).await.compact(compact).await.unwrap();
    let old = RangeRequest { key: "a".into(), revision: 2, ..Default::default() };
    let refused = home.kv(Database::Kube).await.range(old.clone()).await.unwrap_err();
    assert_eq!(refused.code(), Code::OutOfRange);
    home.kv(Database::Cluster).await.range(old).await.unwrap();
    home.stop();
    home.start().await;
    assert_eq!(home.all(Database::Kube).await, kube);
    assert_eq!(home.all(Database::Cluster).await, cluster);
}

#[tokio::test]
async fn the_socket_of_the_cluster_is_its_owners_alone() {
    let mut home = Home::new();
    home.start().await;
    let mode = |database| {
        let metadata = std::fs::metadata(home.socket(database)).unwrap();
        metadata.permissions().mode() & 0o777
    };
    assert_eq!((mode(Database::Kube), mode(Database::Cluster)), (0o660, 0o600));
    home.stop();
    assert!(!home.socket(Database::Cluster).exists(), "the socket is removed");
    let mut command = home.command();
    command.args(["--cluster-listen", "127.0.0.1:0"]);
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(2), "TCP has no owner");
}

/// Writes until the datastore is gone; what was acknowledged.
async fn write_until_gone(mut client: KvClient<Channel>, name: String) -> Vec<String> {
    let mut acknowledged = Vec::new();
    for number in 0.. {
        let key = format!("{name}-{number}");
        match put(&mut client, &key, key.clone()).await {
            Ok(_) => acknowledged.push(key),
            Err(_) => break,
        }
    }
    acknowledged
}

#[tokio::test]
async fn what_either_database_acknowledged_survives_kill_9() {
    let mut home = Home::new();
    let mut acknowledged = [(Database::Kube, Vec::new()), (Database::Cluster, Vec::new())];
    for round in 0..5 {
        home.start().await;
        let mut writers = Vec::new();
        for (database, _) in &acknowledged {
            for writer in 0..3 {
                let name = format!("{database:?}-{round}-{writer}");
                writers.push(tokio::spawn(write_until_gone(home.kv(*database).await, name)));
            }
        }
        tokio::time::sleep(Duration::from_millis(150 + 37 * round)).await;
        home.kill();
        for (position, writer) in writers.into_iter().enumerate() {
            acknowledged[position / 3].1.extend(writer.await.unwrap());
        }
    }
    home.start().await;
    for (database, keys) in &acknowledged {
        assert!(keys.len() > 50, "{database:?} acknowledged only {}", keys.len());
        let (found, _) = home.all(*database).await;
        for key in keys {
            assert_eq!(found.get(key), Some(key), "{key} is lost");
        }
        let foreign = |key: &&String| !key.starts_with(&format!("{database:?}"));
        assert_eq!(found.keys().find(foreign), None);
    }
}

/// Puts large values until they are refused; how many were taken.
async fn fill(home: &Home, database: Database, most: usize) -> usize {
    let mut client = home.kv(database).await;
    for number in 0..most {
        match put(&mut client, &format!("large-{number}"), "x".repeat(LARGE)).await {
            Ok(_) => {}
            Err(status) => {
                assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
                return number;
            }
        }
    }
    panic!("{database:?} takes whatever comes");
}

#[tokio::test]
async fn a_full_database_leaves_the_other_writable() {
    let mut home = Home::new();
    let mut command = home.command_for_both();
    command.arg("--quota-backend-bytes=5000000");
    home.start_as(command, &[Database::Kube, Database::Cluster]).await;
    fill(&home, Database::Kube, 10).await;
    home.put(Database::Kube, "a", "").await.unwrap_err();
    home.put(Database::Cluster, "a", "").await.unwrap();
    let alarms = |database| {
        let socket = home.socket(database);
        async { probe(socket).await.unwrap().alarms.len() }
    };
    assert_eq!((alarms(Database::Kube).await, alarms(Database::Cluster).await), (1, 0));
    // And the other way round.
    let all = DeleteRangeRequest { key: "\0".into(), range_end: "\0".into(), ..Default::default() };
    let deleted = home.kv(Database::Kube).await.delete_range(all).await.unwrap().into_inner();
    let revision = deleted.header.unwrap().revision;
    let compact = CompactionRequest { revision, physical: true };
    home.kv(Database::Kube).await.compact(compact).await.unwrap();
    let taken = fill(&home, Database::Cluster, 60).await;
    let expected = CLUSTER_QUOTA_BYTES as usize / LARGE;
    assert!((expected..expected + 3).contains(&taken), "{taken} of {expected}");
    home.put(Database::Cluster, "b", "").await.unwrap_err();
    let deadline = Instant::now() + START_TIMEOUT;
    while home.put(Database::Kube, "b", "").await.is_err() {
        assert!(Instant::now() < deadline, "it stays full");
    }
    assert_eq!(alarms(Database::Cluster).await, 1);
    // What is deleted makes room without anybody's compaction; what the last
    // revision deleted may still be watched.
    for key in ["large-1", "large-2"] {
        let one = DeleteRangeRequest { key: key.into(), ..Default::default() };
        home.kv(Database::Cluster).await.delete_range(one).await.unwrap();
    }
    let deadline = Instant::now() + START_TIMEOUT;
    while home.put(Database::Cluster, "b", "").await.is_err() {
        assert!(Instant::now() < deadline, "it stays full");
    }
}

#[tokio::test]
async fn the_cluster_compacts_itself_and_kube_does_not() {
    let mut home = Home::new();
    home.start().await;
    let writes = 2 * CLUSTER_REVISIONS_KEPT + 10;
    for database in [Database::Kube, Database::Cluster] {
        let mut client = home.kv(database).await;
        for number in 0..writes {
            put(&mut client, "a", number.to_string()).await.unwrap();
        }
    }
    let at = |revision| RangeRequest { key: "a".into(), revision, ..Default::default() };
    home.kv(Database::Kube).await.range(at(2)).await.unwrap();
    let mut cluster = home.kv(Database::Cluster).await;
    assert_eq!(cluster.range(at(2)).await.unwrap_err().code(), Code::OutOfRange);
    cluster.range(at(1 + writes - CLUSTER_REVISIONS_KEPT)).await.unwrap();
    // Large values come up to the quota long before.
    for number in 0..100 {
        let deadline = Instant::now() + START_TIMEOUT;
        while let Err(status) = put(&mut cluster, "a", "x".repeat(LARGE)).await {
            assert!(Instant::now() < deadline, "{number}: {status}");
        }
    }
}

#[tokio::test]
async fn a_directory_of_kube_gains_the_cluster_and_keeps_it_while_it_is_not_served() {
    let mut home = Home::new();
    home.start_as(home.command(), &[Database::Kube]).await;
    home.put(Database::Kube, "a", "old").await.unwrap();
    home.stop();
    home.start().await;
    assert_eq!(home.all(Database::Cluster).await, (BTreeMap::new(), 1));
    home.put(Database::Cluster, "a", "member").await.unwrap();
    home.kill();
    home.start_as(home.command(), &[Database::Kube]).await;
    assert!(probe(home.socket(Database::Cluster)).await.is_err());
    home.put(Database::Kube, "b", "new").await.unwrap();
    home.kill();
    home.start().await;
    assert_eq!(home.all(Database::Kube).await.0.len(), 2);
    let member = BTreeMap::from([("a".to_owned(), "member".to_owned())]);
    assert_eq!(home.all(Database::Cluster).await, (member, 2));
}

/// Says of the tables of `cluster` that they have this form.
async fn set_format(dir: &Path, format: i64) {
    let node = Node::builder(MemberId::FIRST, MEMBER_ADDRESS, dir).start().unwrap();
    let mut connection =
        node.open_when_leader(&Database::Cluster.name(), START_TIMEOUT).await.unwrap();
    let changed = connection.exec("UPDATE meta SET format = ?", &[format.into()]).await.unwrap();
    assert_eq!(changed.rows_affected, 1);
    drop(connection);
    node.stop().unwrap();
}

#[tokio::test]
async fn a_cluster_database_of_a_newer_version_is_refused_by_name() {
    let mut home = Home::new();
    home.start().await;
    home.put(Database::Cluster, "a", "member").await.unwrap();
    home.stop();
    set_format(&home.data(), 2).await;
    let output = home.command_for_both().output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{text}");
    assert!(text.contains("`cluster`") && text.contains("form 2"), "{text}");
    set_format(&home.data(), 1).await;
    home.start().await;
    assert_eq!(home.all(Database::Cluster).await.1, 2);
}

/// Memory in KiB, and the switches of context of each thread so far.
fn usage(pid: u32) -> (i64, BTreeMap<PathBuf, i64>) {
    let field = |path: String, name: &str| -> i64 {
        let text = std::fs::read_to_string(path).unwrap();
        let line = text.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
    let switches = tasks.map(|task| {
        let status = format!("{}/status", task.path().display());
        (task.path(), field(status, "voluntary_ctxt_switches:"))
    });
    (field(format!("/proc/{pid}/smaps_rollup"), "Pss_Anon:"), switches.collect())
}

#[tokio::test]
async fn a_second_database_costs_little_memory_and_wakes_nobody() {
    const IDLE: Duration = Duration::from_secs(10);
    let mut figures = Vec::new();
    for both in [false, true] {
        let mut home = Home::new();
        if both {
            home.start().await;
            home.put(Database::Cluster, "a", "member").await.unwrap();
        } else {
            home.start_as(home.command(), &[Database::Kube]).await;
        }
        home.put(Database::Kube, "a", "object").await.unwrap();
        // What the start and the clients left is over.
        tokio::time::sleep(Duration::from_secs(3)).await;
        let pid = home.child.as_ref().unwrap().id();
        let before = usage(pid);
        tokio::time::sleep(IDLE).await;
        let after = usage(pid);
        let of_thread =
            |(thread, count): (&PathBuf, &i64)| count - before.1.get(thread).copied().unwrap_or(0);
        figures.push((after.0, after.1.iter().map(of_thread).sum::<i64>()));
    }
    let [(alone_kib, alone_switches), (both_kib, both_switches)] = figures[..] else {
        unreachable!("two were measured")
    };
    println!(
        "anonymous memory {alone_kib} KiB, with a second database {both_kib}; \
         wake-ups in {IDLE:?}: {alone_switches}, {both_switches}"
    );
    assert!(both_kib - alone_kib < 2048, "{alone_kib} {both_kib}");
    // A loop that polls would add ten and more a second.
    assert!(both_switches - alone_switches < 50, "{alone_switches} {both_switches}");
}

async fn everything_back(home: &Home, backup: &Path) -> Restored {
    let options = RestoreOptions {
        dir: home.data(),
        replace: true,
        bump_revision: 1000,
        opening: Opening::Plain,
        stamp: "now".to_owned(),
    };
    restore(backup, &options).await.unwrap()
}

#[tokio::test]
async fn a_restore_of_kube_leaves_the_cluster_as_it_is_now() {
    let mut home = Home::new();
    home.start().await;
    home.put(Database::Kube, "a", "old").await.unwrap();
    home.put(Database::Cluster, "removed-later", "member").await.unwrap();
    let options = TakeOptions {
        from: Listen::Unix(home.socket(Database::Kube)),
        revision: None,
        sealing: Sealing::Plain,
        scratch: home.dir.path().to_owned(),
    };
    let file = home.dir.path().join("backup");
    let taken = take(&options, home.dir.path(), |_| file.clone()).await.unwrap();
    assert_eq!(taken.summary.keys, 1);
    home.put(Database::Kube, "a", "new").await.unwrap();
    let removed = DeleteRangeRequest { key: "removed-later".into(), ..Default::default() };
    home.kv(Database::Cluster).await.delete_range(removed).await.unwrap();
    home.put(Database::Cluster, "joined-since", "member").await.unwrap();
    home.kill();
    assert_eq!(everything_back(&home, &file).await.carried, Carried::Keys(1));
    home.start().await;
    assert_eq!(home.all(Database::Kube).await.0.get("a").unwrap(), "old");
    let joined = BTreeMap::from([("joined-since".to_owned(), "member".to_owned())]);
    assert_eq!(home.all(Database::Cluster).await, (joined, 1004));
    home.kill();
    // A directory that can't be read has nothing to carry over, and kube comes back all the same.
    for file in std::fs::read_dir(home.data()).unwrap().flatten() {
        if file.file_name().to_string_lossy().starts_with("metadata") {
            std::fs::write(file.path(), [0x55; 32]).unwrap();
        }
    }
    std::fs::rename(home.dir.path().join("data.former-now"), home.dir.path().join("x")).unwrap();
    let restored = everything_back(&home, &file).await;
    assert!(matches!(restored.carried, Carried::Lost { .. }), "{restored:?}");
    home.start().await;
    assert_eq!(home.all(Database::Kube).await.0.get("a").unwrap(), "old");
    assert_eq!(home.all(Database::Cluster).await.0, BTreeMap::new());
}
