//! A node that is stopped or was never started: every verb says so, and what to type.

use std::fs;

use insta::assert_snapshot;

use crate::place::{Place, is_root};
use crate::verbs;

/// Verbs whose screen is of this machine or is not about a node: what they print is not compared.
const OF_THE_MACHINE: [&str; 3] = ["check", "completion", "get"];

#[test]
fn every_verb_says_that_a_node_was_never_started() {
    let place = Place::new();
    for verb in verbs::visible() {
        let line = verb.shortest();
        let mut line: Vec<&str> = line.iter().map(String::as_str).collect();
        // A datastore by itself needs no node, and would run; so do authors of addons.
        let of_files = line[0] == "addons" && matches!(line.get(1), Some(&"lint" | &"new"));
        if line == ["inspect"] || line[0] == "datastore" || of_files {
            continue;
        }
        if line == ["kubectl"] {
            line.extend(["get", "pods"]);
        }
        if line == ["set"] {
            line.push("network.mtu=0");
        }
        let screen = place.run(&line);
        if line[0] != "completion" {
            screen.assert_fits();
        }
        if OF_THE_MACHINE.contains(&line[0]) {
            assert!(screen.code <= 1, "{}", screen.whole());
            continue;
        }
        assert_snapshot!(format!("stopped-{}", verb.words.join("-")), screen.whole());
        let harmless = line == ["stop"];
        assert_eq!(screen.code, i32::from(!harmless), "{}", screen.whole());
        assert!(harmless || screen.stderr.contains("\nhint: "), "{}", screen.whole());
    }
}

#[test]
fn a_stopped_node_has_a_status_for_programs() {
    let place = Place::new();
    let json = place.run(&["status", "--output", "json"]);
    let yaml = place.run(&["status", "--output", "yaml"]);
    let value = crate::place::assert_same_value(&json.stdout, &yaml.stdout, "status");
    assert_eq!(value["phase"], "stopped");
    assert_eq!((json.code, yaml.code), (1, 1));
}

#[test]
fn a_hint_names_the_root_that_was_named() {
    let place = Place::new();
    let root = place.path("other");
    let screen = place.run(&["--root", &root.to_string_lossy(), "status"]);
    assert_snapshot!("stopped-other-root", screen.whole());
}

#[test]
fn logs_of_a_stopped_node_are_read_from_its_files() {
    let place = Place::new();
    fs::create_dir(place.path("root/log")).expect("a directory for logs");
    let ours = r#"{"timestamp":"2026-01-01T10:00:00Z","level":"WARN","fields":{"message":"late"}}"#;
    fs::write(place.path("root/log/skiffd.log"), format!("{ours}\n")).expect("a log");
    let klog = "I0101 10:00:01.000000   12 a.go:1] ready\n";
    fs::write(place.path("root/log/kube-node.log"), klog).expect("a log");
    let all = place.run(&["logs"]);
    let unknown = place.run(&["logs", "kubelet"]);
    assert_snapshot!("stopped-with-logs", format!("{}\n{}", all.whole(), unknown.whole()));
    assert_eq!((all.code, unknown.code), (0, 1));
}

/// The bundle is made for days on which nothing works.
#[test]
fn inspect_works_on_a_node_that_was_never_started() {
    let place = Place::new();
    let file = place.path("home/bundle.tar.gz");
    let screen = place.run(&["inspect", "--to", &file.to_string_lossy()]);
    screen.assert_fits();
    assert_eq!(screen.code, 0, "{}", screen.whole());
    assert_eq!(screen.stdout, "/var/tmp/sk-XXXXXX/home/bundle.tar.gz\n");
    assert!(fs::metadata(&file).expect("the bundle").len() > 100);
    let again = place.run(&["inspect", "--to", &file.to_string_lossy()]);
    assert_eq!(again.code, 1, "a bundle must not be written over: {}", again.whole());
}

/// As root: what a start says when there is nothing to start.
#[test]
fn a_start_without_components_says_how_to_get_them() {
    if !is_root() {
        println!("skipped: only root may start a node");
        return;
    }
    let place = Place::new();
    let output = place.command_as_ourselves(&["start", "--skip-checks"]).output().expect("it runs");
    let screen = place.screen("start --skip-checks", &output);
    screen.assert_fits();
    assert_eq!(screen.code, 1, "{}", screen.whole());
    assert_snapshot!("start-without-components", screen.whole());
}
