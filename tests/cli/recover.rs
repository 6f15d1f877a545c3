//! A lost quorum as a person meets it: what the recovery says, refuses, asks and does.

use std::fs;
use std::net::TcpListener;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use crate::place::Place;

const PATIENCE: Duration = Duration::from_secs(60);

struct Member(Child);

impl Drop for Member {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|one| one.local_addr()).expect("a port").port()
}

/// A member in `home/NAME` that listens on `home/NAME.socket`.
fn start(place: &Place, name: &str, port: u16, join: Option<u16>) -> Member {
    let (socket, peer) = (format!("unix:{name}.socket"), format!("127.0.0.1:{port}"));
    let mut line = vec!["datastore", "--dir", name, "--listen", &socket];
    line.extend(["--peer-listen", &peer, "--pki", "pki"]);
    let join = join.map(|port| format!("127.0.0.1:{port}"));
    line.extend(join.iter().flat_map(|join| ["--join", join]));
    let mut command = place.command(&line);
    Member(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts"))
}

fn wait_for_members(place: &Place, name: &str, count: usize) {
    let deadline = Instant::now() + PATIENCE;
    let endpoint = format!("unix:{name}.socket");
    loop {
        let line = ["datastore", "status", "--endpoints", &endpoint, "--output", "json"];
        let screen = place.run(&line);
        let status: serde_json::Value = serde_json::from_str(&screen.stdout).unwrap_or_default();
        if status["members"].as_array().is_some_and(|members| members.len() == count) {
            return;
        }
        assert!(Instant::now() < deadline, "{}", screen.whole());
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_recovery_says_what_there_is_and_does_it_only_when_it_is_meant() {
    let place = Place::new();
    assert_eq!(place.run(&["datastore", "pki", "pki"]).code, 0);
    let (first, second) = (free_port(), free_port());
    let members = [start(&place, "a", first, None), start(&place, "b", second, Some(first))];
    wait_for_members(&place, "a", 2);
    wait_for_members(&place, "b", 2);
    let recover = ["datastore", "recover", "--dir", "a", "--pki", "pki"];
    let runs = place.run(&recover);
    assert_eq!(runs.code, 1);
    assert!(runs.stderr.contains("hint: stop that member first"), "{}", runs.whole());
    drop(members);

    let dry = place.run(&[&recover[..], &["--dry-run"]].concat());
    dry.assert_fits();
    assert_eq!(dry.code, 0, "{}", dry.whole());
    // Where a line breaks depends on the members' numbers.
    let words = dry.stdout.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words.contains("(this one)") && words.contains("unknown: "), "{}", dry.stdout);
    let also = place.run(&[&recover[..], &["--dry-run", "--also", "b", "-o", "json"]].concat());
    let found: serde_json::Value = serde_json::from_str(&also.stdout).expect("JSON");
    assert_eq!(found["others"][0]["state"], "stopped", "{}", also.whole());
    assert!(found["recovered"].is_null() && found["unasked"] == serde_json::json!([]));
    let alone = place.run(&recover);
    assert_eq!(alone.code, 1);
    assert!(alone.stderr.contains("hint: repeat it with --yes"), "{}", alone.whole());
    assert!(
        !fs::read_dir(place.path("home"))
            .expect("home")
            .flatten()
            .any(|entry| { entry.file_name().to_string_lossy().contains("former") })
    );

    let done = place.run(&[&recover[..], &["--yes"]].concat());
    done.assert_fits();
    assert_eq!(done.code, 0, "{}", done.whole());
    assert!(done.stdout.contains("Start it without --join"), "{}", done.whole());
    let _again = start(&place, "a", first, None);
    wait_for_members(&place, "a", 1);
    let none = place.run(&["datastore", "recover", "--dir", "pki", "--yes", "-o", "yaml"]);
    assert_eq!(none.code, 1);
    assert!(none.stderr.contains("no directory of one of several members"), "{}", none.whole());
}
