//! Settings of a node that does not run: what is read from its files, and what is said of mistakes.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use insta::assert_snapshot;

use crate::place::{Place, Screen, is_root};

/// A file that nobody but its owner may write.
fn write(place: &Place, name: &str, text: &str) -> PathBuf {
    let path = place.path(name);
    let dir = path.parent().expect("it is in the place");
    fs::create_dir_all(dir).expect("the directory is made");
    fs::write(&path, text).expect("the file is written");
    for (path, mode) in [(dir, 0o755), (path.as_path(), 0o644)] {
        fs::set_permissions(path, PermissionsExt::from_mode(mode)).expect("it is ours");
    }
    path
}

/// With the configuration beside the root, as that of the default node is.
fn screen(place: &Place, line: &[&str], mut command: Command) -> Screen {
    command.env("SKIFF_CONFIG", place.path("etc/skiff.toml"));
    let output = command.env("SKIFF_SNAP_SETTINGS", place.path("etc/snap.json")).output();
    let screen = place.screen(&line.join(" "), &output.expect("skiff runs"));
    screen.assert_fits();
    screen
}

fn get(place: &Place, line: &[&str]) -> Screen {
    screen(place, line, place.command(line))
}

/// As root.
fn start(place: &Place) -> Screen {
    screen(place, &["start"], place.command_as_ourselves(&["start"]))
}

fn mistakes(place: &Place) {
    write(place, "etc/skiff.toml", "[node]\nnmae = \"alpha\"\n\n[network]\nmtu = 100\n");
    write(place, "etc/skiff.toml.d/site.toml", "api.port = \"https\"\n");
}

#[test]
fn settings_of_a_stopped_node_come_from_every_layer_and_say_from_which() {
    let place = Place::new();
    write(&place, "etc/skiff.toml", "[api]\nport = 7000\n[node]\nname = \"alpha\"\n");
    write(&place, "etc/skiff.toml.d/10-site.toml", "api.port = 7001\n");
    write(&place, "etc/snap.json", r#"{"network": {"mtu": 1400}}"#);
    let get = |line: &[&str]| get(&place, line);
    assert_snapshot!("settings", get(&["get"]).whole());
    assert_snapshot!("settings-of-a-group", get(&["get", "network"]).whole());
    assert_snapshot!("settings-as-json", get(&["get", "api.port", "-o", "json"]).whole());
    assert_eq!(
        get(&["get", "api.port"]).whole(),
        "$ skiff get api.port\n--- stdout\n7001\n--- exit 0\n"
    );
    assert_snapshot!("settings-unknown", get(&["get", "api.prot"]).whole());
}

#[test]
fn every_mistake_of_a_configuration_is_shown_with_its_place_and_what_to_do() {
    let place = Place::new();
    mistakes(&place);
    assert_snapshot!("settings-with-mistakes", get(&place, &["get"]).whole());
    write(&place, "etc/skiff.toml", "");
    let file = write(&place, "etc/skiff.toml.d/site.toml", "");
    fs::set_permissions(&file, PermissionsExt::from_mode(0o666)).expect("it is ours");
    assert_snapshot!("settings-that-others-may-write", get(&place, &["get"]).whole());
}

/// As root: neither the machine is looked at nor a component put in place.
#[test]
fn a_start_with_a_broken_configuration_touches_nothing() {
    if !is_root() {
        println!("skipped: only root may start a node");
        return;
    }
    let place = Place::new();
    mistakes(&place);
    let screen = start(&place);
    assert_snapshot!("start-with-mistakes", screen.whole());
    let left = fs::read_dir(place.path("root")).expect("the root is there");
    let left: Vec<_> = left.map(|entry| entry.expect("it can be read").file_name()).collect();
    assert_eq!(left, ["run"]);
}

/// As root: the node that is there began with other settings, and its machine had another name.
#[test]
fn a_start_with_other_choices_than_the_first_is_refused_with_the_way_back() {
    if !is_root() {
        println!("skipped: only root may start a node");
        return;
    }
    let place = Place::new();
    let began = r#"{"node-name": "first-name", "pod-cidr": "10.1.0.0/16",
        "service-cidr": "10.152.183.0/24", "dns-domain": "cluster.local"}"#;
    write(&place, "root/node/choices.json", began);
    write(
        &place,
        "etc/skiff.toml",
        "[network]\npod-cidr = \"10.2.0.0/16\"\n[node]\nname = \"first-name\"\n",
    );
    let screen = start(&place);
    assert_snapshot!("start-with-other-choices", screen.whole());

    write(&place, "etc/skiff.toml", "");
    let screen = start(&place);
    assert_eq!(screen.code, 1, "{}", screen.whole());
    let text = screen.stderr.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(text.contains("node.name is absent, and the machine is called"), "{text}");
    assert!(text.contains("but the node began with \"first-name\""), "{text}");
    assert!(
        text.contains("hint: `name = \"first-name\"` below [node] in skiff.toml keeps"),
        "{text}"
    );
}

/// The hook with a `snapctl` that answers as snapd does; snapd itself does not run here.
#[test]
fn the_snap_takes_settings_that_are_right_and_refuses_others() {
    let place = Place::new();
    let snapctl = place.path("bin/snapctl");
    fs::create_dir(place.path("common")).expect("made");
    let set = |json: &str| {
        let script = format!("#!/bin/sh\necho \"$@\" > \"$SNAP_COMMON/asked\"\necho '{json}'\n");
        fs::write(&snapctl, script).expect("written");
        fs::set_permissions(&snapctl, PermissionsExt::from_mode(0o755)).expect("executable");
        let hook = concat!(env!("CARGO_MANIFEST_DIR"), "/snap/hooks/configure");
        let path = format!("{}:/usr/bin:/bin", place.path("bin").display());
        let output = Command::new("/bin/sh")
            .arg(hook)
            .env("PATH", path)
            .env("SNAP", place.path(""))
            .env("SNAP_COMMON", place.path("common"))
            .env("SKIFF_ROOT", place.path("root"))
            .output()
            .expect("the hook runs");
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let kept = || fs::read_to_string(place.path("common/settings.json")).unwrap_or_default();

    let (accepted, said) = set(r#"{"network": {"mtu": 1400}}"#);
    assert!(accepted, "{said}");
    assert!(kept().contains("1400"));
    let (accepted, said) = set(r#"{"network": {"mtu": 14}}"#);
    assert!(!accepted && said.contains("network.mtu"), "{said}");
    assert!(kept().contains("1400"), "the settings stay as they were");

    let asked = fs::read_to_string(place.path("common/asked")).expect("snapctl was asked");
    let asked: Vec<&str> = asked.split_whitespace().skip(2).collect();
    let all = place.command(&["get", "-o", "json"]).output().expect("skiff runs");
    let all: Vec<serde_json::Value> = serde_json::from_slice(&all.stdout).expect("JSON");
    let keys = all.iter().filter_map(|setting| setting["key"].as_str());
    let mut groups: Vec<&str> = keys.filter_map(|key| key.split('.').next()).collect();
    groups.dedup();
    assert_eq!(asked, groups, "the hook asks for every group of settings");
}
