//! A disk without space: what is answered, and that the node recovers by itself.
//!
//! Needs root, to mount a small file system; skips without.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use dqlite::{Connection, DatabaseName, Error, MemberId, Node, params};
use tempfile::TempDir;

/// A small file system, gone with its value.
struct Small {
    dir: TempDir,
}

impl Small {
    fn mount(mebibytes: u32) -> Option<Small> {
        let dir = TempDir::new().expect("a temporary directory");
        let size = format!("size={mebibytes}m");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
            .arg(dir.path())
            .output()
            .is_ok_and(|output| output.status.success());
        if !mounted {
            eprintln!("skipped: a file system can't be mounted here (needs root)");
        }
        mounted.then_some(Small { dir })
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg(self.dir.path()).status();
        assert!(unmounted.is_ok_and(|status| status.success()), "small file system stays mounted");
    }
}

async fn open(node: &Node) -> Connection {
    let name = DatabaseName::new("kube").expect("name is allowed");
    node.open_when_leader(&name, Duration::from_secs(20)).await.expect("database opens")
}

/// Inserts rows until one fails; gives how many were acknowledged and the failure.
async fn insert(connection: &mut Connection, rows: usize) -> (usize, Option<Error>) {
    for acknowledged in 0..rows {
        let row = params![vec![7; 8192]];
        if let Err(error) = connection.exec("INSERT INTO t (v) VALUES (?)", &row).await {
            return (acknowledged, Some(error));
        }
    }
    (rows, None)
}

async fn count(connection: &mut Connection) -> usize {
    let rows = connection.query("SELECT count(*) FROM t", &[]).await.expect("rows are counted");
    rows.single().expect("one row").integer(0).expect("a number") as usize
}

#[tokio::test]
async fn a_full_disk_stops_writes_and_loses_nothing() {
    let Some(small) = Small::mount(48) else { return };
    let dir = small.path().join("data");
    fs::create_dir(&dir).unwrap();
    let ballast = small.path().join("ballast");
    fs::write(&ballast, vec![1; 16 << 20]).unwrap();
    let start = || {
        let builder = Node::builder(MemberId::FIRST, "first", &dir);
        builder.network_latency(Duration::from_millis(20)).start().expect("node starts")
    };
    let node = start();
    let mut connection = open(&node).await;
    connection.exec("CREATE TABLE t (id INTEGER PRIMARY KEY, v BLOB)", &[]).await.unwrap();

    let (acknowledged, failure) = insert(&mut connection, 100_000).await;
    let failure = failure.expect("the disk gets full");
    assert!(matches!(failure, Error::OutcomeUnknown { .. }), "{failure:?}");
    // The node steps down: nothing is read or written until there is space.
    let refused = connection.exec("INSERT INTO t (v) VALUES (1)", &[]).await.unwrap_err();
    assert!(refused.not_executed(), "{refused:?}");

    fs::remove_file(&ballast).unwrap();
    let mut connection = open(&node).await;
    let present = count(&mut connection).await;
    assert!((acknowledged..=acknowledged + 1).contains(&present), "{present} of {acknowledged}");
    let (more, failure) = insert(&mut connection, 100).await;
    assert_eq!((more, failure.map(|e| e.to_string())), (100, None));
    drop(connection);
    node.stop().unwrap();

    let node = start();
    assert_eq!(count(&mut open(&node).await).await, present + 100);
}
