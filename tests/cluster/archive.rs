//! What docs/how-to/restore-a-cluster.md says of several machines, done.

use std::time::Duration;

use harness::{Network, NodeOptions, TestNode, cannot_run_nodes, eventually, run};

use crate::place::{add_node, control_plane, join, state_of, wait_ready, worker};
use crate::refused::{copies_of, is_let_in, is_refused};

const BOUND: Duration = Duration::from_secs(120);

#[test]
fn a_cluster_is_restored_on_a_new_machine_and_others_join_it_anew() {
    if cannot_run_nodes() {
        return;
    }
    let network = Network::new();
    let alpha = control_plane(&network, "alpha");
    let beta = worker(&network, &alpha, "beta");
    alpha.kubectl(&["create", "configmap", "kept"]).must();
    let open = add_node(&alpha, &[]);
    let home = tempfile::tempdir_in("/var/tmp").expect("a directory for the archive");
    let archive = home.path().join("a.archive").to_string_lossy().into_owned();
    let refused = beta.skiff(&["backup", "create", "--unencrypted", &archive]);
    assert!(refused.stderr.contains("this node is a worker"), "{}", refused.stderr);
    alpha.skiff(&["backup", "create", "--unencrypted", &archive]).must();
    let before = alpha.address().to_owned();
    let former = copies_of(&alpha, home.path());
    is_let_in(&alpha, &former);
    // The machine burns; its worker does not know of it yet.
    alpha.skiff(&["reset", "--yes"]).must();

    let gamma = TestNode::new(&network, "gamma", &NodeOptions::default());
    std::fs::write(gamma.root().join("skiff.toml"), "").expect("its settings say nothing");
    let restored = gamma.skiff(&["backup", "restore", &archive]).must();
    assert!(restored.contains("removed     beta"), "{restored}");
    gamma.start();
    gamma.kubectl(&["get", "configmap", "kept"]).must();
    // What its Node says at first is of before.
    wait_ready(&gamma, "alpha", BOUND);
    // It has the former one's name and keys, and is another node.
    is_refused(&gamma, &former, BOUND);
    is_let_in(&gamma, &copies_of(&gamma, home.path()));
    assert_eq!(state_of(&gamma, "beta"), None);
    eventually("Kubernetes forgets the former node", BOUND, || {
        let names = gamma.kubectl(&["get", "nodes", "--output", "name"]).must();
        if names.contains("beta") { Err(names) } else { Ok(()) }
    });
    let tokens = gamma.skiff(&["tokens"]).must();
    assert!(tokens.contains("revoked") && !tokens.contains("live"), "{tokens}");

    // A node of before that comes to the address of before is told that it was removed.
    drop(alpha);
    let address = format!("{before}/24");
    run(gamma.command("ip").args(["address", "add", &address, "dev", "eth0"])).must();
    eventually("the former worker is told", BOUND, || {
        let status = beta.skiff(&["status"]).stdout;
        let words = status.split_whitespace().collect::<Vec<_>>().join(" ");
        if words.contains("was removed from the cluster") { Ok(()) } else { Err(status) }
    });

    // A token of before is no good. The former worker is emptied and joins anew, and so does
    // another machine.
    let delta = TestNode::new(&network, "delta", &NodeOptions::default());
    let outcome = join(&delta, &open);
    assert_eq!(outcome.code, 1, "{}", outcome.stderr);
    beta.skiff(&["reset", "--yes"]).must();
    join(&beta, &add_node(&gamma, &[])).must();
    join(&delta, &add_node(&gamma, &[])).must();
    for name in ["beta", "delta"] {
        wait_ready(&gamma, name, BOUND);
    }
}
