//! Tokens that are no good, and joins that are cut off: nothing is half done.

use std::time::{Duration, Instant};

use harness::{Network, NodeOptions, TestNode, cannot_run_nodes};

use crate::place::{
    add_node, assert_untouched, begin_join, control_plane, join, state_of, wait_for_file,
    wait_ready,
};

const BOUND: Duration = Duration::from_secs(120);
/// The shortest life of a token.
const LIFE: Duration = Duration::from_secs(60);

#[test]
fn a_token_that_is_no_good_is_refused_and_leaves_nothing() {
    if cannot_run_nodes() {
        return;
    }
    let network = Network::new();
    let alpha = control_plane(&network, "alpha");
    let beta = TestNode::new(&network, "beta", &NodeOptions::default());
    let gamma = TestNode::new(&network, "gamma", &NodeOptions::default());
    let short = add_node(&alpha, &["--ttl", "1m"]);
    let made = Instant::now();

    let mut mistyped = add_node(&alpha, &[]);
    let length = mistyped[1].len();
    mistyped[1].truncate(length - 4);
    refused(&beta, &mistyped, "the token is cut");
    refused(&beta, &add_node(&alpha, &["--name", "delta"]), "the token is for delta, not for beta");

    let revoked = add_node(&alpha, &[]);
    let tokens = alpha.skiff(&["tokens", "list", "--output", "json"]).must();
    let tokens: Vec<skiff_api::Token> = serde_json::from_str(&tokens).unwrap();
    for token in tokens.iter().filter(|token| token.name.is_none()) {
        // The one that expires is left to that.
        let expires = time::OffsetDateTime::parse(
            &token.expires,
            &time::format_description::well_known::Rfc3339,
        );
        if expires.unwrap() - time::OffsetDateTime::now_utc() > time::Duration::minutes(5) {
            alpha.skiff(&["tokens", "revoke", &token.id]).must();
        }
    }
    refused(&beta, &revoked, "was revoked");

    let used = add_node(&alpha, &[]);
    join(&beta, &used).must();
    refused(&gamma, &used, "was used already");

    std::thread::sleep((LIFE + Duration::from_secs(2)).saturating_sub(made.elapsed()));
    refused(&gamma, &short, "has expired");
    let again = join(&beta, &add_node(&alpha, &[]));
    assert!(again.stderr.contains("worker node of a cluster already"), "{}", again.stderr);
}

#[test]
fn a_join_that_is_killed_is_taken_back_or_goes_on() {
    if cannot_run_nodes() {
        return;
    }
    let network = Network::new();
    let alpha = control_plane(&network, "alpha");
    let beta = TestNode::new(&network, "beta", &NodeOptions::default());

    // Before the cluster's answer is on the disk: only taking back is possible.
    kill_join_at(&beta, &add_node(&alpha, &[]), "node/join.json");
    if beta.root().join("node/join.json").exists() {
        let start = beta.skiff(&["start"]);
        assert!(start.stderr.contains("a join of this machine was cut off"), "{}", start.stderr);
    }
    beta.skiff(&["reset", "--yes"]).must();
    assert_untouched(&beta);
    assert_eq!(state_of(&alpha, "beta"), None);

    // Ctrl-C takes it back while the node starts, and the token has its use again.
    let line = add_node(&alpha, &[]);
    let mut child = begin_join(&beta, &line);
    wait_for_file(&beta.root().join("run/skiffd.sock"), BOUND);
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(1));
    assert_untouched(&beta);
    assert_eq!(state_of(&alpha, "beta"), None);

    // After the answer is on the disk: a start goes on.
    kill_join_at(&beta, &line, "node/membership.json");
    beta.skiff(&["start", "--timeout", "240"]).must();
    wait_ready(&alpha, "beta", BOUND);

    // A reset takes leave.
    beta.skiff(&["reset", "--yes"]).must();
    assert_untouched(&beta);
    assert_eq!(state_of(&alpha, "beta"), None);
}

#[track_caller]
fn refused(node: &TestNode, line: &[String], reason: &str) {
    let outcome = join(node, line);
    assert_eq!(outcome.code, 1, "{}", outcome.stderr);
    assert!(outcome.stderr.contains(reason), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("\nhint: "), "{}", outcome.stderr);
    assert_untouched(node);
}

/// Types the line and kills the command when that file appears.
fn kill_join_at(node: &TestNode, line: &[String], file: &str) {
    let mut child = begin_join(node, line);
    wait_for_file(&node.root().join(file), BOUND);
    child.kill().expect("it can be killed");
    child.wait().expect("it ends");
}
