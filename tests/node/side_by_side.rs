//! Two nodes on one machine, in two network namespaces, at the same time.

use harness::{Network, NodeOptions, TestNode, cannot_run_nodes};

#[test]
fn two_nodes_run_side_by_side_and_know_nothing_of_each_other() {
    if cannot_run_nodes() {
        return;
    }
    let network = Network::new();
    let one = TestNode::started(&network, "alpha", &NodeOptions::default());
    let config = "[network]\npod-cidr = \"10.2.0.0/16\"\n".into();
    let other = NodeOptions { config, ..NodeOptions::default() };
    let two = TestNode::started(&network, "beta", &other);
    for (node, name) in [(&one, "alpha"), (&two, "beta")] {
        let path = "jsonpath={.items[*].metadata.name}";
        let names = node.kubectl(&["get", "nodes", "--output", path]).must();
        assert_eq!(names, name);
        assert!(node.address().starts_with("10.77.0."));
    }
    one.skiff(&["stop"]).must();
    let left = one.inventory();
    assert!(left.is_empty(), "stop left something:\n{left}");
    two.kubectl(&["get", "nodes"]).must();
}
