//! Ctrl-C: the command ends at once with a clear line, and what was begun goes on.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use insta::assert_snapshot;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use skiff_api::{Condition, Phase, Progress, Status};

use crate::place::{Place, Screen, is_root};
use crate::stand_in::StandIn;

/// A command that was interrupted must have ended by then.
const END_BOUND: Duration = Duration::from_secs(5);

fn starting() -> Status {
    let message = "waiting for it to answer".into();
    Status {
        phase: Phase::Starting,
        node: "alpha".into(),
        address: None,
        version: "0.1.0".into(),
        kubernetes: "1.36.3".into(),
        conditions: vec![Condition { name: "datastore".into(), holds: false, message }],
        notices: vec![],
        services: vec![],
        addons: vec![],
        cluster: None,
        datastore: None,
        backup: None,
        uptime_s: 1,
    }
}

/// A node in the middle of everything: each answer says its first step and goes on without end.
fn busy(place: &Place) {
    let step = [Progress::Step { message: "the first step".into() }];
    let version = skiff_api::Version {
        skiff: "0.1.0".into(),
        build: "0123456789ab".into(),
        arch: "amd64".into(),
        components: vec![],
    };
    let mut node = StandIn::new()
        .json("GET /v1/version", &version)
        .json("GET /v1/status", &starting())
        .lines("GET /v1/watch", &[starting()], true);
    for work in ["addons/dns/enable", "addons/dns/disable", "restart", "stop"] {
        node = node.lines(&format!("POST /v1/{work}"), &step, true);
    }
    node.listen(place);
}

/// Runs until the step is on the screen, then sends the signal.
fn interrupted(place: &Place, mut command: Command, line: &str, signal: Signal) -> Screen {
    let mut child =
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("skiff runs");
    let mut lines = BufReader::new(child.stderr.take().expect("a pipe"));
    let mut stderr = String::new();
    while !["the first step", "1 of 1"].iter().any(|step| stderr.contains(step)) {
        let read = lines.read_line(&mut stderr).expect("lines");
        assert!(read > 0, "skiff {line} ended before its first step: {stderr}");
    }
    let begun = Instant::now();
    kill(Pid::from_raw(child.id().cast_signed()), signal).expect("the signal is sent");
    lines.read_to_string(&mut stderr).expect("the rest");
    let status = child.wait().expect("it ends");
    assert!(begun.elapsed() < END_BOUND, "skiff {line} ended after {:?}", begun.elapsed());
    assert_eq!(status.signal(), None, "skiff {line} was ended by the signal: {stderr}");
    place.screen(line, &Output { status, stdout: vec![], stderr: stderr.into_bytes() })
}

#[test]
fn ctrl_c_ends_the_command_with_a_clear_line_and_not_the_work() {
    let place = Place::new();
    busy(&place);
    let lines = [
        "enable dns",
        "enable dns metrics",
        "disable dns",
        "restart",
        "stop",
        "status --wait-ready",
    ];
    for line in lines {
        let words: Vec<&str> = line.split(' ').collect();
        let screen = interrupted(&place, place.command(&words), line, Signal::SIGINT);
        screen.assert_fits();
        assert_eq!(screen.code, 1, "{}", screen.whole());
        assert!(screen.stderr.contains("error: interrupted; "), "{}", screen.whole());
        assert!(screen.stderr.contains("\nhint: "), "{}", screen.whole());
        assert_snapshot!(format!("interrupted-{}", line.replace(' ', "-")), screen.whole());
    }
}

#[test]
fn a_closing_terminal_ends_a_command_as_ctrl_c_does() {
    let place = Place::new();
    busy(&place);
    for signal in [Signal::SIGHUP, Signal::SIGTERM] {
        let screen = interrupted(&place, place.command(&["enable", "dns"]), "enable dns", signal);
        assert_eq!(screen.code, 1, "{}", screen.whole());
    }
}

/// As root: `start` waits for a node that is starting, and leaves it alone.
#[test]
fn ctrl_c_during_a_start_ends_the_waiting_only() {
    if !is_root() {
        println!("skipped: only root may start a node");
        return;
    }
    let place = Place::new();
    busy(&place);
    let command = place.command_as_ourselves(&["start"]);
    let screen = interrupted(&place, command, "start", Signal::SIGINT);
    screen.assert_fits();
    assert_eq!(screen.code, 1, "{}", screen.whole());
    assert_snapshot!("interrupted-start", screen.whole());
}
