//! Which value holds, and what cannot be one.

use std::fs;

use serde_json::json;

use super::*;
use crate::config::{Config, ConfigError, Sources};

fn shared(values: &[(&str, serde_json::Value)]) -> Shared {
    Shared::set(SharedSettings {
        revision: microcluster::record::SettingsRevision(4),
        values: values.iter().map(|(key, value)| ((*key).into(), value.clone())).collect(),
        ..SharedSettings::default()
    })
}

fn load(text: &str, shared: &Shared) -> Result<Config, ConfigError> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("skiff.toml");
    fs::write(&file, text).unwrap();
    Config::load_with(&Sources { file, snap: None }, shared)
}

fn shown(config: &Config, key: &str) -> (String, String, Option<String>) {
    let setting = config.settings().into_iter().find(|setting| setting.key == key).unwrap();
    let own = setting.own.map(|own| {
        let line = own.origin.rsplit(':').next().unwrap_or_default().to_owned();
        format!("{} in line {line}{}", own.value, if own.added { ", added" } else { "" })
    });
    let origin = setting.origin.rsplit('/').next().unwrap_or_default().to_owned();
    (setting.value, origin, own)
}

#[test]
fn what_is_set_for_the_cluster_holds_and_a_line_of_the_nodes_own_is_told_to_be_idle() {
    let text = "[network]\nmtu = 1300\n[pki]\nleaf-ttl-minutes = 60\n";
    let values = [("network.mtu", json!(1400)), ("pki.leaf-ttl-minutes", json!(60))];
    let config = load(text, &shared(&values)).unwrap();
    let set = || "set (revision 4)".to_owned();
    assert_eq!(
        shown(&config, "network.mtu"),
        ("1400".into(), set(), Some("1300 in line 2".into()))
    );
    assert_eq!(shown(&config, "pki.leaf-ttl-minutes"), ("60".into(), set(), None), "the same");
    // Nobody has set it any more: the file counts again, which is not read anew.
    let config = config.with_shared(&Shared::default()).unwrap();
    assert_eq!(shown(&config, "network.mtu"), ("1300".into(), "skiff.toml:2".into(), None));
    assert!(config.own().is_empty());
}

#[test]
fn flags_of_every_nodes_daemons_come_before_the_nodes_own() {
    let text = "[kube]\nkubelet-args = [\"--v=2\"]\napi-server-args = [\"--v=2\"]\n";
    let flags = json!(["--max-pods=50"]);
    let values = [("kube.kubelet-args", flags.clone()), ("kube.api-server-args", flags)];
    let config = load(text, &shared(&values)).unwrap();
    assert_eq!(config.kube.kubelet_args, ["--max-pods=50", "--v=2"]);
    assert_eq!(config.kube.api_server_args, ["--max-pods=50"]);
    assert_eq!(
        shown(&config, "kube.kubelet-args").2.as_deref(),
        Some("[\"--v=2\"] in line 2, added")
    );
}

#[test]
fn each_value_that_cannot_be_set_has_its_sentence() {
    for (key, value, sentence) in [
        (
            "network.mut",
            json!(1400),
            "what was set: there is no setting network.mut; did you mean network.mtu?",
        ),
        (
            "network.mtu",
            json!("large"),
            "what was set: network.mtu must be a number of bytes, 0 or from 576 to 65535, not \
             \"large\"",
        ),
        (
            "network.mtu",
            json!(null),
            "what was set: network.mtu must be a number of bytes, 0 or from 576 to 65535",
        ),
        (
            "node.address",
            json!("192.0.2.1"),
            "what was set: node.address is each node's own: write it into skiff.toml there",
        ),
        (
            "network.pod-cidr",
            json!("10.1.0.0/16"),
            "what was set: network.pod-cidr is decided: pods have addresses of it",
        ),
    ] {
        let refused = Shared::check(&shared(&[(key, value)]).set).unwrap_err();
        assert_eq!(refused.to_string(), sentence);
    }
    // What can be said of the value itself, and of values together.
    for (values, sentence) in [
        (
            vec![("kube.kubelet-args", json!(["v=2"]))],
            "what was set: kube.kubelet-args holds \"v=2\", which is no flag like \"--v=2\"",
        ),
        (
            vec![("backup.schedule", json!("6h"))],
            "what was set: backup.schedule is set, and no backup.place to keep archives in",
        ),
    ] {
        let shared = shared(&values);
        Shared::check(&shared.set).unwrap();
        let refused = load("", &shared).unwrap_err();
        let refused = std::error::Error::source(&refused).unwrap().to_string();
        assert_eq!(refused, sentence);
    }
}

#[test]
fn what_only_a_newer_version_knows_keeps_no_node_from_running() {
    let values = [("network.colour", json!("blue")), ("network.mtu", json!({"auto": true}))];
    let config = load("", &shared(&values)).unwrap();
    assert_eq!(shown(&config, "network.mtu").1, "default");
}

#[test]
fn what_the_cluster_was_begun_with_holds_on_a_node_that_joined() {
    let shared = Shared {
        decided: [("network.dns-address".to_owned(), Value::from("10.152.183.20"))].into(),
        api_names: vec!["api.example.org".into()],
        datastore: Some("https://a:2379".into()),
        ..Shared::default()
    };
    let text = "[network]\ndns-address = \"10.152.183.30\"\n[api]\nextra-sans = [\"own\"]\n\
                [datastore]\nca-file = \"/ca\"\n";
    let config = load(text, &shared).unwrap();
    let (value, origin, own) = shown(&config, "network.dns-address");
    assert_eq!((&*value, &*origin), ("\"10.152.183.20\"", "cluster"));
    assert_eq!(own.as_deref(), Some("\"10.152.183.30\" in line 2"));
    assert_eq!(config.api.extra_sans, ["own", "api.example.org"]);
    assert_eq!(shown(&config, "datastore.endpoint").1, "cluster");
    // One member after the other is another line on each node.
    let config = load("[datastore]\nendpoint = \"http://127.0.0.1\"\n", &shared).unwrap();
    assert_eq!(config.datastore.endpoint.as_deref(), Some("http://127.0.0.1"));
    // What the cluster's datastore needs is missing here.
    assert!(load("", &shared).is_err());
}
