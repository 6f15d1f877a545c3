//! `kubeconfig --merge` as a person uses it: into the file that kubectl reads.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::place::Place;
use crate::stand_in::StandIn;

const ANSWER: &str = "apiVersion: v1\nkind: Config\n\
    clusters: [{name: skiff, cluster: {server: 'https://192.0.2.7:6443'}}]\n\
    users: [{name: ann, user: {client-key-data: aw==}}]\n";
const OTHERS: &str = "apiVersion: v1\nkind: Config\ncurrent-context: work\n\
    clusters: [{name: work, cluster: {server: 'https://work:6443'}}]\n\
    users: [{name: me, user: {token: t}}]\n\
    contexts: [{name: work, context: {cluster: work, user: me, namespace: mine}}]\n";

#[test]
fn a_merged_kubeconfig_keeps_the_others_and_a_broken_one_is_refused() {
    let place = Place::new();
    StandIn::new().json("POST /v1/kubeconfig", &ANSWER).listen(&place);
    let file = place.path("home/.kube/config");
    let line = ["kubeconfig", "--user", "ann", "--merge"];
    let first = place.run(&line);
    assert_eq!(first.code, 0, "{}", first.whole());
    let text = "context skiff is in /var/tmp/sk-XXXXXX/home/.kube/config\n";
    assert_eq!((first.stdout.as_str(), first.stderr.as_str()), ("", text));

    // Written by whoever runs the command: nothing may be in the way of its owner.
    fs::write(&file, OTHERS).expect("another kubeconfig");
    let read = || -> serde_json::Value {
        serde_yaml::from_str(&fs::read_to_string(&file).expect("the file")).expect("YAML")
    };
    assert_eq!(place.run(&line).code, 0);
    let merged = read();
    assert_eq!(merged["contexts"][0]["context"]["namespace"], "mine");
    assert_eq!(merged["contexts"][1]["context"]["user"], "skiff-ann");
    assert_eq!(merged["current-context"], "skiff");
    assert_eq!(fs::metadata(&file).expect("it").permissions().mode() & 0o777, 0o600);
    assert_eq!(place.run(&line).code, 0);
    assert_eq!(read(), merged);

    fs::write(&file, "clusters: [").expect("a broken one");
    let refused = place.run(&line);
    refused.assert_fits();
    assert_eq!(refused.code, 1, "{}", refused.whole());
    insta::assert_snapshot!("merge-into-a-broken-file", refused.whole());
    assert_eq!(fs::read_to_string(&file).expect("the file"), "clusters: [");
}

#[test]
fn the_file_that_kubectl_would_read_is_the_one_that_is_merged_into() {
    let place = Place::new();
    StandIn::new().json("POST /v1/kubeconfig", &ANSWER).listen(&place);
    let file = place.path("home/mine");
    let output = place
        .command(&["kubeconfig", "--user", "ann", "--merge", "--context", "boat"])
        .env("KUBECONFIG", format!(":{}:/nowhere", file.display()))
        .output()
        .expect("skiff runs");
    assert!(output.status.success(), "{output:?}");
    assert!(fs::read_to_string(&file).expect("the file").contains("current-context: boat"));
}
