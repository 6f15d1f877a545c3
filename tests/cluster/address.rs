//! Nodes are told by who they are: a worker gets another address while it runs. In the long form,
//! `make soak --only addresses`, so does the datastore's leader, and then all of them at once, while
//! they are off.

use std::time::{Duration, Instant};

use harness::{Network, TestNode, cannot_run_nodes, eventually};

use crate::control_plane::{settle, write};
use crate::place::{control_plane, member, nodes, wait_ready, worker};
use crate::worker::{EACH, everybody_reaches_everybody};

const BOUND: Duration = Duration::from_secs(120);
const NAMES: [&str; 3] = ["alpha", "beta", "gamma"];

#[test]
fn a_worker_with_another_address_is_followed_and_so_are_the_ports_of_its_node() {
    if cannot_run_nodes() {
        return;
    }
    let network = Network::new();
    let alpha = control_plane(&network, "alpha");
    alpha.skiff(&["enable", "dns", "--wait"]).must();
    let mut delta = worker(&network, &alpha, "delta");
    for node in [&alpha, &delta] {
        node.import_test_image("agnhost");
    }
    alpha.apply(EACH);
    alpha.kubectl(&["rollout", "status", "daemonset/each", "--timeout=120s"]).must();
    let pods = containers(&alpha);

    let begun = Instant::now();
    delta.move_to("10.77.0.150");
    eventually("the other one knows its new address", BOUND, || {
        is_at(&alpha, "delta", delta.address())
    });
    println!("delta moved: known after {:.1} s", begun.elapsed().as_secs_f64());
    wait_ready(&alpha, "delta", BOUND);
    everybody_reaches_everybody(&alpha, &[&alpha, &delta]);
    assert_eq!(containers(&alpha), pods, "a change of address restarted or replaced a pod");
}

#[test]
fn nodes_are_told_by_identity_when_one_and_then_all_have_other_addresses() {
    if std::env::var_os("SKIFF_TEST_ADDRESSES").is_none() {
        println!(
            "skipped: four nodes move; `make soak --only addresses` runs it, in `make test` one does"
        );
        return;
    }
    if cannot_run_nodes() {
        return;
    }
    let network = Network::new();
    let alpha = control_plane(&network, "alpha");
    alpha.skiff(&["enable", "dns", "--wait"]).must();
    let beta = member(&network, &alpha, "beta");
    let gamma = member(&network, &alpha, "gamma");
    let delta = worker(&network, &alpha, "delta");
    let mut all = [alpha, beta, gamma, delta];
    settle(&all[0], &NAMES);
    for node in &all {
        node.import_test_image("agnhost");
    }
    all[0].apply(EACH);
    all[0].kubectl(&["rollout", "status", "daemonset/each", "--timeout=120s"]).must();

    one_moves(&mut all);
    everybody_moves(&mut all);
}

/// The datastore's leader has another address, from one moment to the next.
fn one_moves(all: &mut [TestNode; 4]) {
    let found = nodes(&all[3]).expect("a worker lists the nodes");
    assert_eq!(found.len(), 4);
    let leads = |node: &skiff_api::ClusterNode| node.datastore.as_deref() == Some("leader");
    let leader = nodes(&all[0]).unwrap().into_iter().find(leads).expect("somebody leads").name;
    let place = all.iter().position(|node| node.name() == leader).expect("it is one of them");
    let writer = (place + 1) % 3;
    let pods = containers(&all[writer]);

    let begun = Instant::now();
    let old = all[place].address().to_owned();
    all[place].move_to("10.77.0.150");
    let moved = &all[place];
    eventually("the others know its new address", BOUND, || {
        is_at(&all[writer], moved.name(), moved.address())
    });
    println!("{leader} moved: known after {:.1} s", begun.elapsed().as_secs_f64());
    settle(&all[writer], &NAMES);
    println!("{leader} moved: as before after {:.1} s", begun.elapsed().as_secs_f64());
    wait_ready(moved, "delta", BOUND);
    for node in all.iter() {
        eventually("the balancer knows where the API servers are", BOUND, || {
            let list = std::fs::read_to_string(node.root().join("etc/agent/backends.json"));
            let list = list.map_err(|error| error.to_string())?;
            let is_right = list.contains(moved.address()) && !list.contains(&format!("{old}:"));
            if is_right { Ok(()) } else { Err(list) }
        });
        if node.name() != "delta" {
            eventually("it is written to", BOUND, || write(node, "moved"));
        }
    }
    assert_eq!(containers(&all[writer]), pods, "a change of address restarted or replaced a pod");
    everybody_reaches_everybody(&all[writer], &all.each_ref());
}

/// Everybody is off, and back in another network in another order: nobody knows where anybody is.
fn everybody_moves(all: &mut [TestNode; 4]) {
    let before = containers(&all[0]);
    for (number, node) in all.iter_mut().enumerate() {
        node.power_off();
        node.move_to(&format!("10.88.0.{}", 44 - number));
        node.set_link("up");
    }
    for node in all.iter().rev() {
        node.skiff(&["start", "--no-wait"]).must();
    }
    let [alpha, beta, gamma, delta] = all.each_ref();
    eventually("a node says what helps", BOUND, || {
        let said = beta.skiff(&["nodes"]);
        let has = said.stderr.contains("no quorum") && said.stderr.contains("--peer ADDRESS");
        if has { Ok(()) } else { Err(said.stderr) }
    });
    let said = delta.skiff(&["nodes"]);
    assert!(said.stderr.contains("sudo skiff start --peer ADDRESS"), "{}", said.stderr);

    let begun = Instant::now();
    for node in [alpha, gamma, delta] {
        node.skiff(&["start", "--no-wait", "--peer", beta.address()]).must();
    }
    settle(beta, &NAMES);
    wait_ready(beta, "delta", BOUND);
    println!("one place was named: all are ready after {:.1} s", begun.elapsed().as_secs_f64());
    for node in [alpha, beta, gamma, delta] {
        eventually("the record has its address", BOUND, || {
            is_at(gamma, node.name(), node.address())
        });
    }
    println!(
        "one place was named: the record is right after {:.1} s",
        begun.elapsed().as_secs_f64()
    );
    for node in [alpha, beta, gamma] {
        eventually("it is written to", BOUND, || write(node, "elsewhere"));
    }
    // Until a node says what it runs now, its pods are said to be what they were.
    eventually("all pods are new ones", BOUND, || {
        let now = containers(alpha);
        let is_old = |id: &str| id.starts_with("containerd:") && before.contains(id);
        if now.split(' ').any(is_old) { Err(now) } else { Ok(()) }
    });
    alpha.kubectl(&["rollout", "status", "daemonset/each", "--timeout=120s"]).must();
    everybody_reaches_everybody(alpha, &[alpha, beta, gamma, delta]);
}

/// By the record.
fn is_at(on: &TestNode, name: &str, address: &str) -> Result<(), String> {
    let found = nodes(on)?.into_iter().find(|node| node.name == name);
    match found.map(|node| node.addresses) {
        Some(addresses) if addresses == [address] => Ok(()),
        other => Err(format!("{name} is at {other:?}")),
    }
}

/// The containers of all pods, with how often each was restarted.
fn containers(on: &TestNode) -> String {
    let path = "jsonpath={range .items[*].status.containerStatuses[*]}{.containerID} \
        {.restartCount} {end}";
    on.kubectl(&["get", "pods", "-l", "app=each", "--output", path]).must()
}
