//! A member in a process of its own: what a kill, a damaged directory and a refused file do.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use dqlite::{DatabaseName, MemberId, Node, params};
use tempfile::TempDir;

/// Tells the child what to do: directory, verb, number.
const CHILD: &str = "DQLITE_TEST_MEMBER";

/// The child is this same executable, told to run the test below.
fn member(dir: &Path, arguments: &[&str]) -> Command {
    let mut told = vec![dir.to_str().expect("a path of text")];
    told.extend(arguments);
    let mut command = Command::new(std::env::current_exe().expect("tests have a path"));
    command.args(["--exact", "--nocapture", "the_member_itself"]).env(CHILD, told.join("\n"));
    command
}

/// Not a test by itself: the process that the others start.
#[test]
fn the_member_itself() {
    let Ok(told) = std::env::var(CHILD) else { return };
    let told: Vec<&str> = told.split('\n').collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let number = told.get(2).and_then(|text| text.parse().ok()).unwrap_or(u64::MAX);
    if let Err(error) = runtime.block_on(act(told[0], told[1], number)) {
        let mut text = format!("member: {error}");
        let mut source = error.source();
        while let Some(cause) = source {
            text += &format!(": {cause}");
            source = cause.source();
        }
        eprintln!("{text}");
        std::process::exit(1);
    }
}

async fn act(dir: &str, verb: &str, number: u64) -> Result<(), Box<dyn std::error::Error>> {
    let node = Node::builder(MemberId::FIRST, "first", dir).start()?;
    let name = DatabaseName::versioned("kube", 1)?;
    let mut connection = node.open_when_leader(&name, Duration::from_secs(10)).await?;
    connection.exec("CREATE TABLE IF NOT EXISTS t (id INTEGER PRIMARY KEY, v BLOB)", &[]).await?;
    match verb {
        "write" => {
            let mut out = std::io::stdout();
            for _ in 0..number {
                let row = params![vec![7; 1024]];
                let result = connection.exec("INSERT INTO t (v) VALUES (?)", &row).await?;
                writeln!(out, "\nrow {}", result.last_insert_id)?;
                out.flush()?;
            }
        }
        "idle" => tokio::time::sleep(Duration::from_secs(number)).await,
        _ => {
            let rows = connection.query("SELECT count(*) FROM t", &[]).await?;
            println!("\nrow {}", rows.single().ok_or("no row")?.integer(0)?);
        }
    }
    drop(connection);
    node.stop()?;
    Ok(())
}

fn run(dir: &Path, arguments: &[&str]) -> Output {
    member(dir, arguments).output().expect("member runs")
}

/// The number in a line of the child; the test harness prints other lines around it.
fn number(line: &str) -> Option<u64> {
    line.strip_prefix("row ")?.parse().ok()
}

fn count(dir: &Path) -> u64 {
    let output = run(dir, &["count"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let found = text.lines().find_map(number);
    found.unwrap_or_else(|| panic!("{text}{}", String::from_utf8_lossy(&output.stderr)))
}

/// Writes until `rows` are acknowledged, then kills; gives the number of acknowledged rows.
fn write_and_kill(dir: &Path, rows: usize) -> u64 {
    let mut child = member(dir, &["write"]).stdout(Stdio::piped()).spawn().expect("member runs");
    let lines =
        BufReader::new(child.stdout.take().expect("it is piped")).lines().map_while(Result::ok);
    let mut numbers = lines.filter_map(|line| number(&line));
    assert_eq!(numbers.by_ref().take(rows).count(), rows);
    child.kill().expect("it is killed");
    child.wait().expect("it ends");
    // What it had said before the kill counts too.
    (rows + numbers.count()) as u64
}

#[test]
fn a_killed_member_has_every_acknowledged_row_when_it_starts_again() {
    let dir = TempDir::new().unwrap();
    let mut present = 0;
    for round in 0..5 {
        let acknowledged = present + write_and_kill(dir.path(), 50 + round * 37);
        present = count(dir.path());
        // One more may have been committed without its acknowledgement having been printed.
        let expected = acknowledged..=acknowledged + 1;
        assert!(expected.contains(&present), "{present} rows, {acknowledged} acknowledged");
    }
}

/// The newest file of the log, by the beginning of its name.
fn newest(dir: &Path, select: impl Fn(&str) -> bool) -> Option<PathBuf> {
    let entries = fs::read_dir(dir).expect("directory is read").flatten().map(|entry| entry.path());
    let mut files: Vec<PathBuf> = entries
        .filter(|path| select(&path.file_name().expect("files have names").to_string_lossy()))
        .collect();
    files.sort();
    files.pop()
}

/// Damages a byte in the middle of a file.
fn damage(path: &Path) {
    let mut bytes = fs::read(path).expect("file is read");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x55;
    fs::write(path, bytes).expect("file is written");
}

fn assert_refused(output: &Output, what: &str) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{what}: {} {text}", output.status);
    assert!(text.contains("dqlite node can't"), "{what}: {text}");
    eprintln!("{what}: {}", text.trim());
}

#[test]
fn damaged_data_is_an_error_and_not_an_abort() {
    let closed = |name: &str| name.len() == 33 && name.as_bytes()[16] == b'-';
    for what in ["closed segment", "metadata", "all metadata gone"] {
        let dir = TempDir::new().unwrap();
        assert!(run(dir.path(), &["write", "40"]).status.success());
        match what {
            "closed segment" => damage(&newest(dir.path(), closed).expect("a closed segment")),
            "metadata" => {
                // A length that can't be: both copies.
                for name in ["metadata1", "metadata2"] {
                    fs::write(dir.path().join(name), [0xff; 32]).unwrap();
                }
            }
            _ => {
                for name in ["metadata1", "metadata2"] {
                    fs::write(dir.path().join(name), b"").unwrap();
                }
                damage(&newest(dir.path(), closed).expect("a closed segment"));
            }
        }
        let output = run(dir.path(), &["count"]);
        assert_refused(&output, what);
    }
}

/// Not what one would wish: what holds, so that whoever builds on it checks by other means.
#[test]
fn damage_in_the_open_log_after_a_kill_cuts_it_there_without_an_error() {
    let dir = TempDir::new().unwrap();
    let acknowledged = write_and_kill(dir.path(), 60);
    let open = newest(dir.path(), |name| name == "open-1").expect("an open segment");
    let mut bytes = fs::read(&open).unwrap();
    let used = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    bytes[used / 2] ^= 0x55;
    fs::write(&open, bytes).unwrap();
    let present = count(dir.path());
    assert!(present > 0 && present < acknowledged, "{present} of {acknowledged}");
}

#[test]
fn a_member_needs_no_privilege() {
    use std::os::unix::process::CommandExt;
    let dir = TempDir::new().unwrap();
    let nobody = 65_534;
    if std::os::unix::fs::chown(dir.path(), Some(nobody), Some(nobody)).is_err() {
        eprintln!("skipped: only root can start a process of another user");
        return;
    }
    let output = match member(dir.path(), &["write", "5"]).uid(nobody).gid(nobody).output() {
        Ok(output) => output,
        Err(error) => {
            eprintln!("skipped: another user can't run this test's executable: {error}");
            return;
        }
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_directory_of_another_user_is_refused() {
    use std::os::unix::process::CommandExt;
    let dir = TempDir::new().unwrap();
    let nobody = 65_534;
    let Ok(output) = member(dir.path(), &["count"]).uid(nobody).gid(nobody).output() else {
        eprintln!("skipped: only root can start a process of another user");
        return;
    };
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("ermission denied"), "{text}");
}

#[test]
fn a_file_in_place_of_the_directory_is_named() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, b"").unwrap();
    let output = run(&file, &["count"]);
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("not a directory"), "{text}");
}

#[test]
fn an_idle_member_writes_nothing() {
    let dir = TempDir::new().unwrap();
    let mut child = member(dir.path(), &["idle", "60"]).spawn().expect("member runs");
    std::thread::sleep(Duration::from_millis(1500));
    let written = || {
        let io = fs::read_to_string(format!("/proc/{}/io", child.id())).unwrap();
        let line = io.lines().find(|line| line.starts_with("write_bytes")).unwrap().to_string();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
    };
    let before = written();
    std::thread::sleep(Duration::from_secs(3));
    let after = written();
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(after - before, 0);
}
