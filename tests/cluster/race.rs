//! Two machines that join at the same moment and cannot both: one gets in, the other is told why.

use std::fs;
use std::time::Duration;

use harness::{Network, NodeOptions, Outcome, TestNode, cannot_run_nodes};

use crate::place::{add_node, assert_untouched, control_plane, join, state_of, wait_ready};

const BOUND: Duration = Duration::from_secs(120);

#[test]
fn of_two_joins_at_once_one_gets_in_and_the_other_is_told_why() {
    if cannot_run_nodes() {
        return;
    }
    let network = Network::new();
    let alpha = control_plane(&network, "alpha");
    let beta = TestNode::new(&network, "beta", &NodeOptions::default());
    let gamma = TestNode::new(&network, "gamma", &NodeOptions::default());

    // One token for one machine.
    let line = add_node(&alpha, &[]);
    let (winner, loser) = at_once(&beta, &gamma, &line, "was used already");
    wait_ready(&alpha, winner.name(), BOUND);
    assert_eq!(state_of(&alpha, loser.name()), None);
    let tokens = alpha.skiff(&["tokens", "list", "--output", "json"]).must();
    let tokens: Vec<skiff_api::Token> = serde_json::from_str(&tokens).unwrap();
    assert_eq!(tokens.iter().map(|token| token.uses_left).collect::<Vec<_>>(), [0]);
    winner.skiff(&["reset", "--yes"]).must();

    // One name.
    for node in [&beta, &gamma] {
        fs::write(node.root().join("skiff.toml"), "[node]\nname = \"twin\"\n").unwrap();
    }
    let line = add_node(&alpha, &["--uses", "2"]);
    let (winner, loser) = at_once(&beta, &gamma, &line, "there is a node twin in the cluster");
    wait_ready(&alpha, "twin", BOUND);
    let nodes = alpha.skiff(&["nodes", "--output", "json"]).must();
    let nodes: Vec<skiff_api::ClusterNode> = serde_json::from_str(&nodes).unwrap();
    let twin = nodes.iter().find(|node| node.name == "twin").unwrap();
    assert_eq!(twin.addresses, [winner.address()]);
    // The other one kept its chance.
    fs::write(loser.root().join("skiff.toml"), "[node]\nname = \"other\"\n").unwrap();
    join(loser, &line).must();
    wait_ready(&alpha, "other", BOUND);
}

/// Types the line on both; answers who got in, and who did not, for that reason.
#[track_caller]
fn at_once<'a>(
    one: &'a TestNode,
    other: &'a TestNode,
    line: &[String],
    reason: &str,
) -> (&'a TestNode, &'a TestNode) {
    let (first, second) = std::thread::scope(|scope| {
        let first = scope.spawn(|| join(one, line));
        let second = scope.spawn(|| join(other, line));
        (first.join().unwrap(), second.join().unwrap())
    });
    let (winner, loser, refused): (_, _, Outcome) = match (first.ok(), second.ok()) {
        (true, false) => (one, other, second),
        (false, true) => (other, one, first),
        _ => panic!("{}\n{}", first.stderr, second.stderr),
    };
    assert_eq!(refused.code, 1, "{}", refused.stderr);
    assert!(refused.stderr.contains(reason), "{}", refused.stderr);
    assert!(refused.stderr.contains("\nhint: "), "{}", refused.stderr);
    assert_untouched(loser);
    (winner, loser)
}
