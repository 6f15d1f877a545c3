//! One member, the real library.

use std::time::Duration;

use bytes::Bytes;
use dqlite::{Connection, DatabaseName, Error, MemberId, Node, NodeError, Role, Value, params};
use tempfile::TempDir;

fn start(dir: &TempDir) -> Node {
    Node::builder(MemberId::FIRST, "first", dir.path()).start().expect("node starts")
}

fn kube() -> DatabaseName {
    DatabaseName::versioned("kube", 1).expect("name is allowed")
}

async fn open(node: &Node) -> Connection {
    node.open_when_leader(&kube(), Duration::from_secs(10)).await.expect("database opens")
}

async fn with_table(node: &Node) -> Connection {
    let mut connection = open(node).await;
    connection
        .exec("CREATE TABLE IF NOT EXISTS t (id INTEGER PRIMARY KEY, v BLOB, s TEXT UNIQUE)", &[])
        .await
        .expect("table is made");
    connection
}

async fn count(connection: &mut Connection) -> i64 {
    let rows = connection.query("SELECT count(*) FROM t", &[]).await.expect("rows are counted");
    rows.single().expect("one row").integer(0).expect("a number")
}

#[tokio::test]
async fn values_of_every_kind_come_back_as_they_were() {
    let dir = TempDir::new().unwrap();
    let node = start(&dir);
    let mut connection = open(&node).await;
    connection.exec("CREATE TABLE v (a, b, c, d, e)", &[]).await.unwrap();
    let row = params![i64::MIN, -0.5, "text \u{1F6F6}", Bytes::from_static(b"\0\x01"), None::<i64>];
    let result = connection.exec("INSERT INTO v VALUES (?, ?, ?, ?, ?)", &row).await.unwrap();
    assert_eq!((result.last_insert_id, result.rows_affected), (1, 1));
    let empty = params![0, f64::MAX, "", Bytes::new(), Value::Null];
    connection.exec("INSERT INTO v VALUES (?, ?, ?, ?, ?)", &empty).await.unwrap();
    let rows = connection.query("SELECT a, b, c, d, e FROM v ORDER BY rowid", &[]).await.unwrap();
    assert_eq!(rows.columns, ["a", "b", "c", "d", "e"]);
    let values: Vec<_> = rows.rows.into_iter().map(dqlite::Row::into_values).collect();
    assert_eq!(values, [row.to_vec(), empty.to_vec()]);
}

#[tokio::test]
async fn large_blobs_and_many_rows_are_streamed() {
    let dir = TempDir::new().unwrap();
    let node = start(&dir);
    let mut connection = with_table(&node).await;
    let blob = |i: usize| Bytes::from(vec![i as u8; 1 << 20]);
    for i in 0..8 {
        let params = params![i as i64, blob(i), None::<i64>];
        connection.exec("INSERT INTO t VALUES (?, ?, ?)", &params).await.unwrap();
    }
    let mut stream = connection.query_stream("SELECT id, v FROM t ORDER BY id", &[]).await.unwrap();
    let mut seen = 0;
    while let Some(row) = stream.next().await.unwrap() {
        assert_eq!(row.integer(0).unwrap(), seen as i64);
        assert!(*row.blob(1).unwrap() == blob(seen), "blob {seen} differs");
        seen += 1;
    }
    assert_eq!(seen, 8);
    let many = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000) \
                SELECT i FROM n";
    let rows = connection.query(many, &[]).await.unwrap();
    assert_eq!(rows.rows.len(), 5000);
    assert_eq!(rows.rows[4999].integer(0).unwrap(), 5000);
}

#[tokio::test]
async fn transactions_commit_and_roll_back() {
    let dir = TempDir::new().unwrap();
    let node = start(&dir);
    let mut connection = with_table(&node).await;
    connection.exec("BEGIN IMMEDIATE", &[]).await.unwrap();
    connection.exec("INSERT INTO t (s) VALUES ('a')", &[]).await.unwrap();
    connection.exec("ROLLBACK", &[]).await.unwrap();
    assert_eq!(count(&mut connection).await, 0);
    connection.exec("BEGIN IMMEDIATE", &[]).await.unwrap();
    connection.exec("INSERT INTO t (s) VALUES ('a')", &[]).await.unwrap();
    connection.exec("COMMIT", &[]).await.unwrap();
    assert_eq!(count(&mut connection).await, 1);
    // Closing the connection rolls back as well.
    connection.exec("BEGIN IMMEDIATE; INSERT INTO t (s) VALUES ('b')", &[]).await.unwrap();
    drop(connection);
    let mut connection = open(&node).await;
    assert_eq!(count(&mut connection).await, 1);
}

#[tokio::test]
async fn several_statements_share_one_request_and_its_parameters() {
    let dir = TempDir::new().unwrap();
    let node = start(&dir);
    let mut connection = with_table(&node).await;
    connection.exec("CREATE TABLE m (r); INSERT INTO m VALUES (0)", &[]).await.unwrap();
    let transaction = "BEGIN IMMEDIATE; UPDATE m SET r = ? WHERE r = ?; \
                       INSERT INTO t (id, s) SELECT ?, ? WHERE changes() = 1; COMMIT";
    connection.exec(transaction, &params![1, 0, 10, "x"]).await.unwrap();
    connection.exec(transaction, &params![2, 7, 11, "y"]).await.unwrap();
    let rows = connection.query("SELECT id, s, r FROM t, m", &[]).await.unwrap();
    let row = rows.single().expect("the second compare failed, so only one row is there");
    assert_eq!(
        (row.integer(0).unwrap(), row.text(1).unwrap(), row.integer(2).unwrap()),
        (10, "x", 1)
    );
    // A failure in the middle leaves the transaction open.
    let error = connection.exec(transaction, &params![2, 1, 12, "x"]).await.unwrap_err();
    assert_eq!(error.sqlite_primary(), Some(19), "{error}");
    connection.exec("ROLLBACK", &[]).await.unwrap();
    assert_eq!(count(&mut connection).await, 1);
}

#[tokio::test]
async fn prepared_statements_run_again_and_again() {
    let dir = TempDir::new().unwrap();
    let node = start(&dir);
    let mut connection = with_table(&node).await;
    let insert = connection.prepare("INSERT INTO t (v) VALUES (?)").await.unwrap();
    assert_eq!(insert.params(), 1);
    for i in 0..50 {
        let result = connection.exec_prepared(&insert, &params![i]).await.unwrap();
        assert_eq!(result.last_insert_id, i + 1);
    }
    let select = connection.prepare("SELECT v FROM t WHERE id > ?").await.unwrap();
    for after in [0, 25, 50] {
        let rows = connection.query_prepared(&select, &params![after]).await.unwrap();
        assert_eq!(rows.rows.len() as i64, 50 - after);
    }
    connection.finalize(insert).await.unwrap();
    connection.finalize(select).await.unwrap();
    assert_eq!(count(&mut connection).await, 50);
}

#[tokio::test]
async fn errors_of_sql_carry_code_and_words_and_leave_the_connection_usable() {
    let dir = TempDir::new().unwrap();
    let node = start(&dir);
    let mut connection = with_table(&node).await;
    let syntax = connection.exec("INSRT", &[]).await.unwrap_err();
    assert!(
        matches!(&syntax, Error::Sql { code: 1, message } if message.contains("INSRT")),
        "{syntax}"
    );
    connection.exec("INSERT INTO t (s) VALUES ('a')", &[]).await.unwrap();
    let unique = connection.exec("INSERT INTO t (s) VALUES ('a')", &[]).await.unwrap_err();
    assert!(matches!(unique, Error::Sql { code: 2067, .. }), "{unique}");
    // Fails while it gives rows, with rows before it in the same message.
    let during = "SELECT id, CASE id WHEN 1 THEN 7 ELSE abs(-9223372036854775807 - 1) END, 3, 4, 5 \
                  FROM t UNION ALL SELECT 2, abs(-9223372036854775807 - 1), 3, 4, 5";
    let during = connection.query(during, &[]).await.unwrap_err();
    assert!(
        matches!(&during, Error::Sql { message, .. } if message.contains("overflow")),
        "{during:?}"
    );
    let nul = connection.exec("INSERT INTO t (s) VALUES (?)", &params!["a\0b"]).await.unwrap_err();
    assert!(matches!(nul, Error::Parameter(_)) && nul.not_executed(), "{nul}");
    let missing = connection.query("SELECT * FROM nowhere", &[]).await.unwrap_err();
    assert!(matches!(missing, Error::Sql { .. }), "{missing}");
    let rows_from_exec = connection.exec("SELECT 1", &[]).await.unwrap_err();
    assert!(matches!(rows_from_exec, Error::Sql { .. }), "{rows_from_exec}");
    let empty = connection.query("", &[]).await.unwrap_err();
    assert!(matches!(empty, Error::Sql { code: 0, .. }), "{empty}");
    let too_many = connection.query("SELECT ?", &params![1, 2]).await.unwrap_err();
    assert!(matches!(too_many, Error::Sql { .. }), "{too_many}");
    assert!(connection.is_usable());
    assert_eq!(count(&mut connection).await, 1);
}

#[tokio::test]
async fn a_stream_that_is_dropped_makes_the_connection_unusable_and_a_drained_one_does_not() {
    let dir = TempDir::new().unwrap();
    let node = start(&dir);
    let mut connection = open(&node).await;
    let many = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000) \
                SELECT i FROM n";
    let mut stream = connection.query_stream(many, &[]).await.unwrap();
    stream.next().await.unwrap();
    stream.drain().await.unwrap();
    connection.interrupt().await.unwrap();
    assert!(connection.is_usable());
    let mut stream = connection.query_stream(many, &[]).await.unwrap();
    stream.next().await.unwrap();
    drop(stream);
    assert!(!connection.is_usable());
    assert!(matches!(connection.query("SELECT 1", &[]).await, Err(Error::Unusable)));
    drop(connection);
    open(&node).await.query("SELECT 1", &[]).await.unwrap();
}

#[tokio::test]
async fn databases_are_apart_and_a_restart_keeps_both_and_the_identity() {
    let dir = TempDir::new().unwrap();
    let cluster = DatabaseName::new("cluster").unwrap();
    for round in 0..3 {
        let node = start(&dir);
        let mut a = with_table(&node).await;
        let mut b = node.open(&cluster).await.unwrap();
        b.exec("CREATE TABLE IF NOT EXISTS u (x)", &[]).await.unwrap();
        assert!(b.query("SELECT * FROM t", &[]).await.is_err());
        assert_eq!(count(&mut a).await, round);
        a.exec("INSERT INTO t (v) VALUES (1)", &[]).await.unwrap();
        b.exec("INSERT INTO u VALUES (1); INSERT INTO u VALUES (2)", &[]).await.unwrap();
        let rows = b.query("SELECT x FROM u", &[]).await.unwrap();
        assert_eq!(rows.rows.len() as i64, 2 * (round + 1));
        let members = b.members().await.unwrap();
        assert_eq!(members.len(), 1);
        assert_eq!((members[0].id, members[0].role), (MemberId::FIRST, Role::Voter));
        assert_eq!(members[0].address.as_str(), "first");
        assert_eq!(b.leader().await.unwrap().map(|(id, _)| id), Some(MemberId::FIRST));
        drop((a, b));
        node.stop().unwrap();
    }
}

#[tokio::test]
async fn two_writers_queue() {
    let dir = TempDir::new().unwrap();
    let node = start(&dir);
    drop(with_table(&node).await);
    let mut tasks = Vec::new();
    for _ in 0..4 {
        let mut connection = open(&node).await;
        tasks.push(tokio::spawn(async move {
            for i in 0..100 {
                connection.exec("INSERT INTO t (v) VALUES (?)", &params![i]).await.unwrap();
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(count(&mut open(&node).await).await, 400);
}

#[tokio::test]
async fn a_used_socket_and_a_used_directory_are_clear_errors() {
    let (dir, other) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let name = format!("@skiff-test-{}", std::process::id());
    let builder = |dir: &TempDir| Node::builder(MemberId::FIRST, "first", dir.path()).bind(&name);
    let node = builder(&dir).start().expect("first node starts");
    let error = builder(&other).start().err().expect("socket is used");
    assert!(matches!(&error, NodeError::Bind { address, .. } if *address == name), "{error}");
    assert!(error.to_string().contains("in use"), "{error}");
    let error = Node::builder(MemberId::FIRST, "first", dir.path()).start().err().unwrap();
    assert!(matches!(error, NodeError::Locked { .. }), "{error}");
    drop(node);
    builder(&dir).start().expect("both are free again");
    let error = Node::builder(MemberId::FIRST, "first", "/nonexistent").start().err().unwrap();
    assert!(matches!(error, NodeError::Directory { .. }), "{error}");
}

#[tokio::test]
async fn settings_that_the_library_refuses_are_errors() {
    let dir = TempDir::new().unwrap();
    let snapshot = dqlite::SnapshotParams {
        threshold_entries: 64,
        trailing_entries: 8,
        trailing: dqlite::Trailing::Static,
    };
    let builder = Node::builder(MemberId::FIRST, "first", dir.path()).snapshot(snapshot);
    let error = builder.start().err().expect("trailing below threshold");
    assert!(matches!(error, NodeError::Setting { what: "snapshot parameters", .. }), "{error}");
}

#[tokio::test]
async fn connections_end_with_their_node() {
    let dir = TempDir::new().unwrap();
    let node = start(&dir);
    let mut connection = with_table(&node).await;
    node.stop().unwrap();
    let write = connection.exec("INSERT INTO t (v) VALUES (1)", &[]).await.unwrap_err();
    assert!(matches!(write, Error::Io { .. } | Error::OutcomeUnknown { .. }), "{write:?}");
    assert!(!connection.is_usable());
}

#[tokio::test]
async fn membership_is_recovered_and_the_last_entry_described() {
    let dir = TempDir::new().unwrap();
    let node = start(&dir);
    let mut connection = with_table(&node).await;
    let before = 20;
    for i in 0..before {
        connection.exec("INSERT INTO t (v) VALUES (?)", &params![i]).await.unwrap();
    }
    drop(connection);
    node.stop().unwrap();
    let last = dqlite::recover::last_entry(dir.path()).unwrap();
    assert!(last.index > before as u64 && last.term >= 1, "{last:?}");
    let me = dqlite::MemberInfo { id: MemberId(7), address: "seventh".into(), role: Role::Voter };
    dqlite::recover::reconfigure(dir.path(), me.id, &me.address, std::slice::from_ref(&me))
        .unwrap();
    let node = Node::builder(me.id, "seventh", dir.path()).start().unwrap();
    let mut connection = open(&node).await;
    assert_eq!(count(&mut connection).await, before);
    assert_eq!(connection.members().await.unwrap(), [me]);
}

#[tokio::test]
async fn a_node_stops_with_a_stream_unread() {
    let dir = TempDir::new().unwrap();
    let node = start(&dir);
    let mut connection = open(&node).await;
    let many = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000000) \
                SELECT i, 'much text so that the socket is full' FROM n";
    let mut stream = connection.query_stream(many, &[]).await.unwrap();
    stream.next().await.unwrap();
    node.stop().unwrap();
    while let Ok(Some(_)) = stream.next().await {}
}

#[tokio::test]
async fn writers_go_on_beside_a_stream_that_is_read_slowly() {
    let dir = TempDir::new().unwrap();
    let node = start(&dir);
    let mut writer = with_table(&node).await;
    let mut reader = open(&node).await;
    let many = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100000) \
                SELECT i, count FROM n, (SELECT count(*) AS count FROM t)";
    let mut stream = reader.query_stream(many, &[]).await.unwrap();
    stream.next().await.unwrap();
    let blob = Bytes::from(vec![1; 64 * 1024]);
    // More than a thousand pages: the checkpoint has to get along with the reader.
    for _ in 0..200 {
        writer.exec("INSERT INTO t (v) VALUES (?)", &params![blob.clone()]).await.unwrap();
    }
    assert_eq!(count(&mut writer).await, 200);
    stream.drain().await.unwrap();
    assert_eq!(count(&mut reader).await, 200);
}

#[tokio::test]
async fn a_constant_working_set_does_not_let_the_database_grow() {
    let dir = TempDir::new().unwrap();
    let node = start(&dir);
    let mut connection = with_table(&node).await;
    let churn = "BEGIN IMMEDIATE; INSERT INTO t (id, v) VALUES (?, ?); \
                 DELETE FROM t WHERE id <= ?; COMMIT";
    let mut pages = Vec::new();
    for id in 1..=600_i64 {
        let size = 1000 + (id as usize * 7919) % 6000;
        let row = params![id, vec![id as u8; size], id - 100];
        connection.exec(churn, &row).await.unwrap();
        if id % 200 == 0 {
            let rows = connection.query("PRAGMA page_count", &[]).await.unwrap();
            pages.push(rows.single().unwrap().integer(0).unwrap());
        }
    }
    assert!(pages[2] <= pages[0] * 11 / 10, "{pages:?}");
}

#[tokio::test]
async fn damage_that_is_found_before_the_start_leaves_the_process_able_to_start_others() {
    // In a process that overwrites what it frees: a use of it shows.
    const OVERWRITE: &str = "MALLOC_PERTURB_";
    if std::env::var_os(OVERWRITE).is_none() {
        let name = "damage_that_is_found_before_the_start_leaves_the_process_able_to_start_others";
        let mut again = std::process::Command::new(std::env::current_exe().unwrap());
        let output = again.args(["--exact", name]).env(OVERWRITE, "165").output().unwrap();
        assert!(output.status.success(), "{output:?}");
        return;
    }
    let dir = TempDir::new().unwrap();
    with_table(&start(&dir)).await;
    for name in ["metadata1", "metadata2"] {
        std::fs::write(dir.path().join(name), [0xff; 32]).unwrap();
    }
    for _ in 0..3 {
        // On a thread of its own: what it frees is not what the next one gets.
        let of_thread = dir.path().to_owned();
        let refused = std::thread::spawn(move || {
            Node::builder(MemberId::FIRST, "first", of_thread).start().map(drop).unwrap_err()
        });
        assert!(refused.join().unwrap().is_damage());
        let (one, other) = (TempDir::new().unwrap(), TempDir::new().unwrap());
        let nodes = [start(&one), start(&other)];
        for node in &nodes {
            let mut connection = with_table(node).await;
            connection.exec("INSERT INTO t VALUES (1, x'00', 'a')", &[]).await.unwrap();
            assert_eq!(count(&mut connection).await, 1);
        }
    }
}

fn snapshots(dir: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(dir).expect("directory is read").flatten();
    let files = entries.map(|entry| entry.path());
    let is_snapshot = |path: &std::path::PathBuf| {
        let name = path.file_name().expect("files have names").to_string_lossy();
        name.starts_with("snapshot") && !name.ends_with("meta")
    };
    files.filter(is_snapshot).collect()
}

#[tokio::test]
async fn any_byte_of_a_snapshot_that_is_another_one_is_noticed() {
    let dir = TempDir::new().unwrap();
    let often = dqlite::SnapshotParams::every(16);
    let start = || Node::builder(MemberId::FIRST, "first", dir.path()).snapshot(often).start();
    let node = start().unwrap();
    let mut connection = with_table(&node).await;
    // What can't be compressed is stored as it is: only a checksum knows.
    fill(&mut connection, 499..504).await;
    touch(&mut connection, 600).await;
    drop(connection);
    drop(node);

    let files = snapshots(dir.path());
    assert!(!files.is_empty());
    let sound: Vec<Vec<u8>> = files.iter().map(|path| std::fs::read(path).unwrap()).collect();
    // The beginning and the end too: sizes, flags and sums.
    let length = sound.iter().map(Vec::len).min().unwrap();
    let places = (0..16).chain((16..length).step_by(length / 24)).chain(length - 8..length);
    for place in places {
        for (path, bytes) in files.iter().zip(&sound) {
            let mut bytes = bytes.clone();
            bytes[place] ^= 0x55;
            std::fs::write(path, bytes).unwrap();
        }
        let error = start().map(drop).unwrap_err();
        assert!(error.is_damage(), "byte {place} of {length}: {error}");
    }
    for (path, bytes) in files.iter().zip(&sound) {
        std::fs::write(path, bytes).unwrap();
    }
    let node = start().unwrap();
    check(&mut open(&node).await, 499..504).await;
}

#[tokio::test]
async fn pages_that_hold_nothing_take_neither_memory_nor_space_in_a_snapshot() {
    // In a process of its own: nobody else's memory is counted.
    const ALONE: &str = "DQLITE_TEST_ALONE";
    if std::env::var_os(ALONE).is_none() {
        let name = "pages_that_hold_nothing_take_neither_memory_nor_space_in_a_snapshot";
        let mut again = std::process::Command::new(std::env::current_exe().unwrap());
        let output = again.args(["--exact", name]).env(ALONE, "1").output().unwrap();
        assert!(output.status.success(), "{output:?}");
        return;
    }
    let dir = TempDir::new().unwrap();
    // Every 512 of them, since they are small.
    let often = dqlite::SnapshotParams::every(16);
    let start =
        || Node::builder(MemberId::FIRST, "first", dir.path()).snapshot(often).start().unwrap();
    let node = start();
    let mut connection = with_table(&node).await;
    fill(&mut connection, 0..500).await;
    // The log in memory ends at a snapshot.
    touch(&mut connection, 600).await;
    let (full_bytes, full_pages) = (resident_bytes(), pages(&mut connection).await);
    connection.exec("DELETE FROM t WHERE id < 480", &[]).await.unwrap();
    touch(&mut connection, 1200).await;
    let left_bytes = resident_bytes();
    assert_eq!(pages(&mut connection).await, full_pages, "the database is as long as it was");
    assert!(left_bytes + (25 << 20) < full_bytes, "{left_bytes} of {full_bytes} bytes");
    let sizes = snapshots(dir.path()).into_iter().map(|path| path.metadata().unwrap().len());
    let smallest = sizes.min().unwrap();
    assert!(smallest < 5 << 20, "{smallest} bytes");
    drop(connection);
    drop(node);

    let node = start();
    let mut connection = open(&node).await;
    check(&mut connection, 480..500).await;
    // Free pages are taken again.
    fill(&mut connection, 1000..1300).await;
    assert_eq!(pages(&mut connection).await, full_pages);
    check(&mut connection, (480..500).chain(1000..1300)).await;
}

/// Rows of 80 KiB that don't shrink.
fn noise(id: i64) -> Bytes {
    let mut state = id as u64 + 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    std::iter::repeat_with(next).take(10 << 10).flat_map(u64::to_le_bytes).collect()
}

async fn fill(connection: &mut Connection, ids: std::ops::Range<i64>) {
    for id in ids {
        let row = params![id, noise(id)];
        connection.exec("INSERT INTO t (id, v) VALUES (?, ?)", &row).await.expect("it is written");
    }
}

/// Small entries.
async fn touch(connection: &mut Connection, times: i64) {
    let sql = "UPDATE t SET s = 'touched' WHERE id = 499";
    for _ in 0..times {
        connection.exec(sql, &[]).await.expect("it is written");
    }
}

async fn check(connection: &mut Connection, ids: impl Iterator<Item = i64>) {
    let sound = connection.query("PRAGMA integrity_check", &[]).await.expect("it answers");
    assert_eq!(sound.single().expect("one row").text(0).expect("a text"), "ok");
    let rows = connection.query("SELECT id, v FROM t ORDER BY id", &[]).await.expect("it answers");
    assert!(rows.rows.iter().map(|row| row.integer(0).expect("a number")).eq(ids));
    for row in &rows.rows {
        assert_eq!(*row.blob(1).expect("a blob"), noise(row.integer(0).expect("a number")));
    }
}

async fn pages(connection: &mut Connection) -> i64 {
    let rows = connection.query("PRAGMA page_count", &[]).await.expect("it answers");
    rows.single().expect("one row").integer(0).expect("a number")
}

/// Of this process, after what is free was given back.
fn resident_bytes() -> u64 {
    dqlite::memory::trim();
    let status = std::fs::read_to_string("/proc/self/status").expect("it is there");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a line");
    let kib: u64 =
        line.split_whitespace().nth(1).and_then(|word| word.parse().ok()).expect("a number");
    kib << 10
}
