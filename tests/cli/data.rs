//! Screens with data, of a stand-in for skiffd: well, ill, and with values that are too long.

use insta::assert_snapshot;
use serde_json::{Value, json};
use skiff_api::{ErrorBody, Phase, Progress, SetOutcome, SettingChange, Status, Token};

use crate::place::{Place, assert_same_value, is_root};
use crate::sample::{
    certificates, condition, diff, ill_status, long_sentence, long_word, node, services, status,
    tokens, version, worker_status,
};
use crate::stand_in::StandIn;
use crate::verbs;

#[test]
fn a_node_that_is_well_is_shown_on_one_screen() {
    let place = Place::new();
    node(&status()).listen(&place);
    let lines = [
        "status",
        "services",
        "addons",
        "addons search COREDNS names",
        "addons search nothing of it",
        "addons show dns",
        "enable dns:10.0.0.1 --help",
        "addons diff",
        "addons repo",
        "version",
    ];
    for line in lines {
        let screen = place.run(&line.split(' ').collect::<Vec<_>>());
        screen.assert_fits();
        assert_eq!(screen.code, 0, "{}", screen.whole());
        assert!(screen.stderr.is_empty(), "{}", screen.whole());
        assert_snapshot!(format!("well-{}", line.replace([' ', ':'], "-")), screen.whole());
    }
}

/// Long names, values of 300 columns and a service that keeps failing: nothing leaves the screen.
#[test]
fn a_node_that_is_ill_is_shown_within_80_columns() {
    let place = Place::new();
    node(&ill_status()).listen(&place);
    let long = "addons show an-addon-with-a-very-long-name-indeed";
    let lines = ["status", "services", "addons", "addons show metrics", "backup schedule", long];
    for line in lines {
        let screen = place.run(&line.split(' ').collect::<Vec<_>>());
        screen.assert_fits();
        let is_ill = ["status", "backup schedule"].contains(&line);
        assert_eq!(screen.code, i32::from(is_ill), "{}", screen.whole());
        assert_snapshot!(format!("ill-{}", line.replace(' ', "-")), screen.whole());
    }
}

#[test]
fn what_an_upgrade_changes_is_said_before_it_begins() {
    let place = Place::new();
    let steps = [
        Progress::Step { message: "dns: Deployment coredns is changed".into() },
        Progress::Done { message: "dns is upgraded from 1.14.0 to 1.15.0".into(), changed: true },
    ];
    node(&status())
        .lines("POST /v1/addons/dns/upgrade", &steps, false)
        .json("GET /v1/addons/ill/diff", &diff(true))
        .listen(&place);
    let screen = place.run(&["addons", "upgrade", "dns"]);
    assert_eq!(screen.code, 0, "{}", screen.whole());
    assert_snapshot!("addons-upgrade", screen.whole());
    let screen = place.run(&["addons", "diff", "ill"]);
    screen.assert_fits();
    assert_snapshot!("ill-addons-diff", screen.whole());
    // None is enabled in another version.
    let screen = place.run(&["addons", "upgrade"]);
    assert_eq!(screen.stderr, "every addon that is enabled is as this build has it\n");
}

#[test]
fn an_author_is_told_what_to_change() {
    let place = Place::new();
    let new = place.run(&["addons", "new", "hello"]);
    assert_eq!(new.code, 0, "{}", new.whole());
    let again = place.run(&["addons", "new", "hello"]);
    assert_eq!(again.code, 1, "{}", again.whole());
    let ill = place.run(&["addons", "new", "Hello"]);
    let home = place.path("home");
    std::fs::remove_file(home.join("hello/README.md")).expect("the file is there");
    let definition = home.join("hello/addon.toml");
    let text = std::fs::read_to_string(&definition).expect("the file is there");
    let text = text.replace("images = [\"pause\"]", "images = [\"paus\"]");
    std::fs::write(&definition, text).expect("the file is written");
    let lint = place.run(&["addons", "lint", "hello"]);
    assert_eq!(lint.code, 1, "{}", lint.whole());
    let screens = [new, again, ill, lint].map(|screen| {
        screen.assert_fits();
        screen.whole()
    });
    assert_snapshot!("addons-author", screens.join("\n"));
}

/// What this version does not do is said before anybody relies on it.
#[test]
fn a_cluster_is_shown_within_80_columns() {
    let place = Place::new();
    node(&worker_status()).listen(&place);
    for line in ["status", "nodes", "tokens"] {
        let screen = place.run(&[line]);
        screen.assert_fits();
        assert_eq!(screen.code, 0, "{}", screen.whole());
        assert_snapshot!(format!("cluster-{line}"), screen.whole());
    }
}

#[test]
fn a_datastore_of_somebody_elses_is_told_with_how_it_is() {
    let what = "etcd at https://192.0.2.9:2379";
    let services: Vec<_> = services().into_iter().filter(|s| s.name != "datastore").collect();
    let well = Status {
        conditions: vec![condition("external-datastore", ""), condition("node-ready", "")],
        datastore: Some(what.into()),
        services: services.clone(),
        ..status()
    };
    let failure = format!("{what} does not answer: connection refused");
    let ill = Status {
        phase: Phase::Degraded,
        conditions: vec![condition("external-datastore", &failure), condition("node-ready", "")],
        ..well.clone()
    };
    for (name, status) in [("well", well), ("ill", ill)] {
        let place = Place::new();
        node(&status).listen(&place);
        let screen = place.run(&["status"]);
        screen.assert_fits();
        assert_snapshot!(format!("external-status-{name}"), screen.whole());
    }
}

#[test]
fn certificates_are_shown_within_80_columns_and_one_that_is_not_good_is_a_failure() {
    for (name, ill) in [("well-certs", false), ("ill-certs", true)] {
        let place = Place::new();
        StandIn::new().json("GET /v1/certificates", &certificates(ill)).listen(&place);
        let screen = place.run(&["certs", "status"]);
        screen.assert_fits();
        assert_eq!(screen.code, i32::from(ill), "{}", screen.whole());
        assert_snapshot!(name, screen.whole());
        assert_eq!(place.run(&["certs"]).stdout, screen.stdout);
    }
}

#[test]
fn a_token_is_told_as_the_command_to_type() {
    let token = Token {
        command: Some("sudo skiff join skiff1.AbCd --worker".into()),
        ..tokens().remove(0)
    };
    let place = Place::new();
    let steps = [Progress::Done { message: "the cluster is there".into(), changed: false }];
    StandIn::new()
        .lines("POST /v1/cluster/found", &steps, false)
        .json("POST /v1/cluster/tokens", &token)
        .listen(&place);
    let screen = place.run(&["add-node", "--worker"]);
    assert_snapshot!("add-node", screen.whole());
    let short = place.run(&["add-node", "--worker", "--output", "short"]);
    assert_eq!((&*short.stdout, &*short.stderr), (&*screen.stdout, ""));
    let json = place.run(&["add-node", "--worker", "--output", "json"]);
    let yaml = place.run(&["add-node", "--worker", "--output", "yaml"]);
    let value = assert_same_value(&json.stdout, &yaml.stdout, "add-node");
    assert_eq!(value, json!(token));
}

#[test]
fn status_warns_of_policies_and_load_balancers_that_do_nothing() {
    let place = Place::new();
    node(&status()).listen(&place);
    let text = place.run(&["status"]).stdout;
    for words in ["NetworkPolicy objects are stored but not enforced", "LoadBalancer get no"] {
        assert!(text.contains(words), "{text}");
    }
}

#[test]
fn settings_are_shown_within_80_columns() {
    let place = Place::new();
    node(&status()).listen(&place);
    for line in [&["get"][..], &["get", "api"], &["get", "--cluster"], &["get", "network.pod-cidr"]]
    {
        let screen = place.run(line);
        screen.assert_fits();
        assert_eq!(screen.code, 0, "{}", screen.whole());
    }
}

#[test]
fn what_would_be_set_is_shown_within_80_columns_and_for_programs() {
    let change = |key: &str, before: &str, after: &str| SettingChange {
        key: key.into(),
        before: before.into(),
        after: after.into(),
    };
    let changes = vec![
        change("network.mtu", "0", "1400"),
        change("kube.controller-manager-args", &long_word(), &long_sentence()),
    ];
    let outcome = SetOutcome { revision: 4, changes, dry_run: true };
    let place = Place::new();
    StandIn::new().json("POST /v1/settings", &outcome).listen(&place);
    let line = ["set", "--dry-run", "network.mtu=1400"];
    let screen = place.run(&line);
    screen.assert_fits();
    assert_snapshot!("set-dry-run", screen.whole());
    let json = place.run(&[&line[..], &["--output", "json"]].concat());
    let yaml = place.run(&[&line[..], &["--output", "yaml"]].concat());
    let value = assert_same_value(&json.stdout, &yaml.stdout, "set");
    assert_eq!(value, json!(outcome));
}

/// Every verb with --output: both forms hold the same value, and it is what skiffd sent.
#[test]
fn every_verb_prints_the_same_data_as_json_and_as_yaml() {
    let place = Place::new();
    let sent = ill_status();
    node(&sent).json("GET /v1/addons/sample", &sent.addons[0]).listen(&place);
    let mut seen = Vec::new();
    for verb in verbs::visible().into_iter().filter(verbs::Verb::has_output) {
        let acting = [
            "datastore backup",
            "datastore restore",
            "datastore recover",
            "backup",
            "backup create",
            "backup list",
            "backup verify",
            "backup restore",
            "leave",
            "set",
            "recover",
        ];
        if acting.contains(&verb.name().as_str()) {
            // They do something, each time anew, or need a place: see backup.rs, archive.rs,
            // recover.rs and tests/cluster/leave.rs.
            continue;
        }
        let line = verb.shortest();
        let mut line: Vec<&str> = line.iter().map(String::as_str).collect();
        if verb.name() == "addons diff" {
            // Without a name it asks for all that are enabled, which this node does not know.
            line.push("dns");
        }
        let json = place.run(&[&line[..], &["--output", "json"]].concat());
        let yaml = place.run(&[&line[..], &["-o", "yaml"]].concat());
        assert!(json.stderr.is_empty() && yaml.stderr.is_empty(), "{}", yaml.whole());
        assert_eq!(json.code, yaml.code, "{}", json.whole());
        seen.push(verb.name());
        if verb.name() == "check" {
            // Free space and memory change from one look to the next.
            let findings = |value: Value| -> Vec<Value> {
                let all = value["findings"].as_array().expect("findings");
                all.iter().map(|finding| finding["name"].clone()).collect()
            };
            let json = findings(serde_json::from_str(&json.stdout).expect("JSON"));
            let yaml = findings(serde_yaml::from_str(&yaml.stdout).expect("YAML"));
            assert!(json == yaml && json.len() > 3, "{json:?} {yaml:?}");
            continue;
        }
        let value = assert_same_value(&json.stdout, &yaml.stdout, &verb.name());
        match verb.name().as_str() {
            "status" => assert_eq!(value, json!(sent)),
            "nodes" => assert_eq!(value.as_array().map(Vec::len), Some(3)),
            "certs" | "certs status" => assert_eq!(value["certificates"][2]["issuer"], "skiff"),
            "services" => assert_eq!(value, json!(sent.services)),
            "backup schedule" => assert_eq!(value, json!(sent.backup)),
            "addons" | "addons list" => assert_eq!(value, json!(sent.addons)),
            "addons show" => {
                let mut addon = value;
                assert!(addon["options"].is_array(), "{addon}");
                addon.as_object_mut().unwrap().remove("options");
                assert_eq!(addon, json!(sent.addons[0]));
            }
            "version" => assert_eq!(value, json!(version())),
            _ => assert_ne!(value, Value::Null, "{}", verb.name()),
        }
    }
    for name in ["status", "services", "addons", "addons show", "get", "version", "check"] {
        assert!(seen.iter().any(|seen| seen == name), "{name} has no --output: {seen:?}");
    }
}

/// What skiffd answers reaches the screen whole: message, causes, hint.
#[test]
fn an_unknown_addon_is_named_with_one_that_is_meant() {
    let error = skiff::addon::AddonError::Unknown { name: "dnss".into(), near: vec!["dns".into()] };
    let body = ErrorBody { message: error.to_string(), causes: vec![], hint: error.hint() };
    let refused = [Progress::Failed { error: body.clone() }];
    let place = Place::new();
    StandIn::new()
        .lines("POST /v1/addons/dnss/enable", &refused, false)
        .lines("POST /v1/addons/dnss/disable", &refused, false)
        .refuse("GET /v1/addons/dnss", 404, &body)
        .listen(&place);
    for line in [["enable", "dnss"].as_slice(), &["disable", "dnss"], &["addons", "show", "dnss"]] {
        let screen = place.run(line);
        screen.assert_fits();
        assert_eq!(screen.code, 1, "{}", screen.whole());
        assert_snapshot!(format!("unknown-addon-{}", line.join("-")), screen.whole());
    }
}

#[test]
fn steps_of_long_work_are_said_once_each() {
    let step = |message: &str| Progress::Step { message: message.into() };
    let done = Progress::Done { message: "dns is enabled".into(), changed: true };
    let place = Place::new();
    let lines = [step("importing images"), step(&long_sentence()), step(&long_sentence()), done];
    StandIn::new().lines("POST /v1/addons/dns/enable", &lines, false).listen(&place);
    let screen = place.run(&["enable", "dns"]);
    screen.assert_fits();
    assert_eq!(screen.code, 0, "{}", screen.whole());
    assert_snapshot!("enable-steps", screen.whole());
}

/// A node that does not become ready says what it waits for, to the last line that fits.
#[test]
fn a_wait_that_is_in_vain_ends_with_the_reasons() {
    let place = Place::new();
    node(&ill_status()).lines("GET /v1/watch", &[ill_status()], true).listen(&place);
    let screen = place.run(&["status", "--wait-ready", "--timeout", "1"]);
    screen.assert_fits();
    assert_eq!(screen.code, 1, "{}", screen.whole());
    assert_snapshot!("wait-in-vain", screen.whole());
}

#[test]
fn an_answer_of_another_version_is_said_to_be_one() {
    let place = Place::new();
    StandIn::new().json("GET /v1/services", &json!({ "of": "tomorrow" })).listen(&place);
    let screen = place.run(&["services"]);
    screen.assert_fits();
    assert_eq!(screen.code, 1, "{}", screen.whole());
    assert_snapshot!("answer-of-another-version", screen.whole());
}

/// Its version cannot be read, and still it is known to run.
#[test]
fn a_skiffd_of_another_age_can_be_stopped() {
    let done = Progress::Done { message: "the node is stopped".into(), changed: true };
    let place = Place::new();
    let asked = StandIn::new()
        .json("GET /v1/version", &json!({ "of": "tomorrow" }))
        .lines("POST /v1/stop", &[done], false)
        .listen(&place);
    let screen = place.run(&["stop"]);
    assert_eq!(screen.code, 0, "{}", screen.whole());
    assert_eq!(asked.iter().take(2).last().as_deref(), Some("POST /v1/stop"));
}

/// As root: a start does not wait for a service that keeps failing.
#[test]
fn a_start_ends_early_when_a_service_keeps_failing() {
    if !is_root() {
        println!("skipped: only root may start a node");
        return;
    }
    let place = Place::new();
    node(&ill_status()).lines("GET /v1/watch", &[ill_status()], true).listen(&place);
    let output = place.command_as_ourselves(&["start"]).output().expect("skiff runs");
    let screen = place.screen("start", &output);
    screen.assert_fits();
    assert_eq!(screen.code, 1, "{}", screen.whole());
    assert_snapshot!("start-of-an-ill-node", screen.whole());
}
