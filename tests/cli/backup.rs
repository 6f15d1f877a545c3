//! Backups and restores of a datastore that runs by itself: screens, and what is refused.

use std::fs;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use insta::assert_snapshot;

use crate::place::{Place, Screen, is_root};

const PATIENCE: Duration = Duration::from_secs(60);

/// A datastore in `home/data` that listens on `home/socket`; ended with its value.
struct Datastore(Child);

impl Datastore {
    fn start(place: &Place) -> Datastore {
        let mut command = place.command(&["datastore", "--dir", "data", "--listen", "unix:socket"]);
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
        let datastore = Datastore(child);
        let deadline = Instant::now() + PATIENCE;
        while place.run(&["datastore", "status", "--endpoints", "unix:socket"]).code != 0 {
            assert!(Instant::now() < deadline, "the datastore does not serve");
            std::thread::sleep(Duration::from_millis(20));
        }
        datastore
    }
}

impl Drop for Datastore {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What differs from run to run is replaced: times, sizes, names of clusters.
fn steady(screen: &Screen) -> String {
    screen.assert_fits();
    let words = screen.whole();
    let lines = words.lines().map(|line| {
        let label = line.split_whitespace().next().unwrap_or_default();
        match (label, line.find("former-")) {
            ("taken" | "cluster" | "size", _) => format!("{label:<10} <differs>"),
            (_, Some(place)) => format!("{}former-<time>", &line[..place]),
            _ => line.to_owned(),
        }
    });
    lines.map(|line| line.trim_end().to_owned() + "\n").collect()
}

#[test]
fn a_backup_and_a_restore_say_what_they_did_and_what_is_in_the_way() {
    let place = Place::new();
    let datastore = Datastore::start(&place);
    let backup = ["datastore", "backup", "--from", "unix:socket", "today.backup"];
    let taken = place.run(&backup);
    assert_snapshot!("backup", steady(&taken));
    let restore = ["datastore", "restore", "today.backup", "--dir", "data"];
    assert_snapshot!("restore-not-empty", steady(&place.run(&restore)));
    let replace = [&restore[..], &["--replace"]].concat();
    assert_snapshot!("restore-runs", steady(&place.run(&replace)));
    drop(datastore);
    assert_snapshot!("restore", steady(&place.run(&replace)));
    let again = Datastore::start(&place);
    let status = place.run(&["datastore", "status", "--endpoints", "unix:socket"]);
    assert!(status.stdout.contains("1000000001"), "{}", status.whole());
    drop(again);
    let nobody = place.run(&backup);
    assert_eq!(nobody.code, 1);
    assert!(nobody.stderr.contains("hint: "), "{}", nobody.whole());
}

#[test]
fn a_backup_for_programs_says_the_same_and_old_ones_go() {
    let place = Place::new();
    let _datastore = Datastore::start(&place);
    fs::create_dir(place.path("home/backups")).expect("a directory");
    std::os::unix::fs::chown(place.path("home/backups"), Some(65534), Some(65534))
        .or_else(|error| if is_root() { Err(error) } else { Ok(()) })
        .expect("it is given away");
    fs::write(place.path("home/backups/notes"), "not a backup").expect("a file");
    let line = ["datastore", "backup", "--from", "unix:socket", "--keep-last", "1", "backups"];
    let json = [&line[..], &["--output", "json"]].concat();
    let first = place.run(&json);
    let value: serde_json::Value = serde_json::from_str(&first.stdout).expect("JSON");
    assert_eq!((&value["verified"], &value["compared_with_source"]), (&true.into(), &true.into()));
    assert_eq!((&value["revision"], &value["keys"]), (&1.into(), &0.into()));
    // Names have seconds.
    std::thread::sleep(Duration::from_millis(1100));
    let second = place.run(&json);
    let value: serde_json::Value = serde_json::from_str(&second.stdout).expect("JSON");
    assert_eq!(value["removed"].as_array().map(Vec::len), Some(1), "{}", second.whole());
    assert_eq!(fs::read_dir(place.path("home/backups")).expect("it is there").count(), 2);
    let restore = ["datastore", "restore", value["file"].as_str().expect("a path"), "--dir"];
    let json = place.run(&[&restore[..], &["a", "--output", "json"]].concat());
    let yaml = place.run(&[&restore[..], &["a", "--replace", "--output", "yaml"]].concat());
    assert_eq!((json.code, yaml.code), (0, 0), "{}{}", json.whole(), yaml.whole());
    let json: serde_json::Value = serde_json::from_str(&json.stdout).expect("JSON");
    let yaml: serde_json::Value = serde_yaml::from_str(&yaml.stdout).expect("YAML");
    let steady = ["dir", "backup_revision", "revision", "taken", "keys", "leases"];
    assert!(steady.iter().all(|name| !json[name].is_null() && json[name] == yaml[name]), "{yaml}");
    let former = yaml["former"].as_str().and_then(|path| path.rsplit('/').next());
    assert!(json["former"].is_null());
    assert!(place.path("home").join(former.expect("the former directory is named")).is_dir());
}

#[test]
fn what_can_not_be_opened_or_kept_is_named_with_what_to_type() {
    let place = Place::new();
    let _datastore = Datastore::start(&place);
    fs::write(place.path("home/word"), "open sesame\n").expect("a file");
    fs::write(place.path("home/other"), "close sesame\n").expect("a file");
    fs::write(place.path("home/garbage"), vec![7; 5000]).expect("a file");
    let from = ["datastore", "backup", "--from", "unix:socket"];
    let sealed = place.run(&[&from[..], &["--passphrase-file", "word", "sealed"]].concat());
    assert_eq!(sealed.code, 0, "{}", sealed.whole());
    let lines: [(&str, Vec<&str>); 7] = [
        ("every-without-directory", [&from[..], &["--every", "1h", "backups"]].concat()),
        ("bad-recipient", [&from[..], &["--encrypt-to", "age1me", "x"]].concat()),
        ("future-revision", [&from[..], &["--revision", "9", "x"]].concat()),
        ("locked", vec!["datastore", "restore", "sealed", "--dir", "new"]),
        (
            "wrong-passphrase",
            vec!["datastore", "restore", "sealed", "--dir", "new", "--passphrase-file", "other"],
        ),
        ("garbage", vec!["datastore", "restore", "garbage", "--dir", "new"]),
        ("no-file", vec!["datastore", "restore", "nothing", "--dir", "new"]),
    ];
    for (name, line) in lines {
        let screen = place.run(&line);
        assert!(matches!(screen.code, 1 | 2), "{}", screen.whole());
        assert_snapshot!(format!("backup-{name}"), steady(&screen));
    }
    assert!(!place.path("home/new").exists() && !place.path("home/x").exists());
}
