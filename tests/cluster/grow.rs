//! From one node to three and to five and two workers, and back to one: `make soak --only grow`.

use std::time::Duration;

use harness::{Network, TestNode, cannot_run_nodes, eventually};

use crate::control_plane::write;
use crate::ledger::under_load;
use crate::place::{control_plane, member, nodes, wait_ready, worker};
use crate::worker::{EACH, everybody_reaches_everybody};

const BOUND: Duration = Duration::from_secs(180);

#[test]
fn a_cluster_grows_to_five_and_two_workers_and_back_to_one_under_load() {
    if std::env::var_os("SKIFF_TEST_GROW").is_none() {
        println!("skipped: seven nodes; `make soak --only grow` runs it, `make test` has four");
        return;
    }
    if cannot_run_nodes() {
        return;
    }
    let network = Network::new();
    let alpha = control_plane(&network, "alpha");
    alpha.import_test_image("agnhost");
    alpha.skiff(&["enable", "dns", "--wait"]).must();
    alpha.apply(EACH);
    under_load(&alpha, |ledger| {
        let mut others = Vec::new();
        let one_more = |others: &mut Vec<TestNode>, node: TestNode| {
            node.import_test_image("agnhost");
            others.push(node);
            ledger.assert_all_there(&alpha);
        };
        // An even one waits for its pair.
        for (name, voters) in [("beta", 1), ("gamma", 3), ("delta", 3), ("epsilon", 5)] {
            let joined = member(&network, &alpha, name);
            one_more(&mut others, joined);
            members_are(&alpha, others.len() + 1, voters);
        }
        for name in ["zeta", "eta"] {
            let joined = worker(&network, &alpha, name);
            one_more(&mut others, joined);
        }
        all_is_reached(&alpha, &others);

        for (left, voters) in [(5, 5), (5, 5), (4, 3), (3, 3), (2, 1), (1, 1)] {
            let goes = others.pop().expect("one is left");
            goes.skiff(&["reset", "--yes"]).must();
            members_are(&alpha, left, voters);
            ledger.assert_all_there(&alpha);
        }
    });
    wait_ready(&alpha, "alpha", BOUND);
    all_is_reached(&alpha, &[]);
    write(&alpha, "alone").expect("it is written to");
}

fn all_is_reached(alpha: &TestNode, others: &[TestNode]) {
    let all: Vec<&TestNode> = std::iter::once(alpha).chain(others).collect();
    // The pod of a node that has gone is forgotten a minute later.
    eventually("each node has its pod, and no other one", BOUND, || {
        let ready =
            "jsonpath={range .items[*]}{.spec.nodeName}={.status.containerStatuses[0].ready} {end}";
        let pods = alpha.kubectl(&["get", "pods", "-l", "app=each", "--output", ready]).stdout;
        let is_there = |node: &&TestNode| pods.contains(&format!("{}=true", node.name()));
        let there = all.iter().filter(|node| is_there(node)).count();
        match (there, pods.split_whitespace().count()) == (all.len(), all.len()) {
            true => Ok(()),
            false => Err(pods),
        }
    });
    everybody_reaches_everybody(alpha, &all);
}

/// So many run the control plane, so many of them vote, one of these leads.
fn members_are(on: &TestNode, members: usize, voters: usize) {
    eventually(&format!("{voters} of {members} vote"), BOUND, || {
        let found = nodes(on)?;
        let roles: Vec<_> = found.iter().filter_map(|node| node.datastore.as_deref()).collect();
        let leads = roles.iter().filter(|role| **role == "leader").count();
        let votes = roles.iter().filter(|role| **role == "voter").count();
        match (roles.len(), leads, leads + votes) == (members, 1, voters) {
            true => Ok(()),
            false => Err(format!("{roles:?}")),
        }
    });
}
