//! Nodes are told by who they are: a worker gets another address while it runs, and then the only one
//! whom it could ask. In the long form, `make soak --only addresses`, the datastore's leader moves, and
//! then everybody at once, while they are off.

use std::time::{Duration, Instant};

use harness::{Network, TestNode, cannot_run_nodes, eventually};

use crate::control_plane::{settle, write};
use crate::place::{control_plane, member, nodes, wait_ready, worker};
use crate::worker::{EACH, everybody_reaches_everybody};

const BOUND: Duration = Duration::from_secs(120);
const NAMES: [&str; 3] = ["alpha", "beta", "gamma"];

#[test]
fn a_worker_is_followed_to_its_new_address_and_follows_when_it_is_told_one() {
    if cannot_run_nodes() {
        return;
    }
    let network = Network::new();
    let mut alpha = control_plane(&network, "alpha");
    alpha.skiff(&["enable", "dns", "--wait"]).must();
    let mut omega = worker(&network, &alpha, "omega");
    serve([&alpha, &omega]);
    let pods = containers(&alpha);

    let begun = Instant::now();
    omega.move_to("10.77.0.150");
    record_has(&alpha, &omega);
    println!("omega moved: known after {:.1} s", begun.elapsed().as_secs_f64());
    wait_ready(&alpha, "omega", BOUND);
    everybody_reaches_everybody(&alpha, &[&alpha, &omega]);

    // The only one whom omega could ask.
    let begun = Instant::now();
    let old = alpha.address().to_owned();
    alpha.move_to("10.77.0.160");
    eventually("the worker says what helps", BOUND, || says_what_helps(&omega, ""));
    println!("alpha moved: what helps is said after {:.1} s", begun.elapsed().as_secs_f64());
    let begun = Instant::now();
    omega.skiff(&["start", "--no-wait", "--peer", alpha.address()]).must();
    record_has(&omega, &alpha);
    balancer_has(&omega, alpha.address(), &old);
    println!("its place was named: followed after {:.1} s", begun.elapsed().as_secs_f64());
    alpha.skiff(&["status", "--wait-ready", "--timeout", "120"]).must();
    wait_ready(&alpha, "omega", BOUND);
    everybody_reaches_everybody(&alpha, &[&alpha, &omega]);
    assert_eq!(containers(&alpha), pods, "a change of address restarted or replaced a pod");
    forgets(&omega);
}

#[test]
fn nodes_are_told_by_identity_when_one_and_then_all_have_other_addresses() {
    if cannot_run_nodes() {
        return;
    }
    if std::env::var_os("SKIFF_TEST_ADDRESSES").is_none_or(|asked| asked != "full") {
        println!(
            "skipped: four nodes move; `make soak --only addresses` runs it, in `make test` two do"
        );
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
    serve(all.each_ref());

    one_moves(&mut all);
    everybody_moves(&mut all);
}

/// Has a pod on each node, behind a port of every node.
fn serve<const COUNT: usize>(nodes: [&TestNode; COUNT]) {
    for node in nodes {
        node.import_test_image("agnhost");
    }
    nodes[0].apply(EACH);
    nodes[0].kubectl(&["rollout", "status", "daemonset/each", "--timeout=120s"]).must();
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
    record_has(&all[writer], moved);
    println!("{leader} moved: known after {:.1} s", begun.elapsed().as_secs_f64());
    settle(&all[writer], &NAMES);
    println!("{leader} moved: as before after {:.1} s", begun.elapsed().as_secs_f64());
    wait_ready(moved, "delta", BOUND);
    for node in all.iter() {
        balancer_has(node, moved.address(), &old);
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
    eventually("a node says what helps", BOUND, || says_what_helps(beta, "no quorum"));
    says_what_helps(delta, "").expect("the worker says so");

    let begun = Instant::now();
    for node in [alpha, gamma, delta] {
        node.skiff(&["start", "--no-wait", "--peer", beta.address()]).must();
    }
    settle(beta, &NAMES);
    wait_ready(beta, "delta", BOUND);
    println!("one place was named: all are ready after {:.1} s", begun.elapsed().as_secs_f64());
    for node in [alpha, beta, gamma, delta] {
        record_has(gamma, node);
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
    [alpha, gamma, delta].into_iter().for_each(forgets);
}

fn record_has(on: &TestNode, moved: &TestNode) {
    eventually("the record has its new address", BOUND, || {
        let found = nodes(on)?.into_iter().find(|node| node.name == moved.name());
        match found.map(|node| node.addresses) {
            Some(addresses) if addresses == [moved.address()] => Ok(()),
            other => Err(format!("{} is at {other:?}", moved.name())),
        }
    });
}

fn balancer_has(on: &TestNode, new: &str, old: &str) {
    eventually("the balancer knows where the API servers are", BOUND, || {
        let list = std::fs::read_to_string(on.root().join("etc/agent/backends.json"));
        let list = list.map_err(|error| error.to_string())?;
        let is_right = list.contains(&format!("{new}:")) && !list.contains(&format!("{old}:"));
        if is_right { Ok(()) } else { Err(list) }
    });
}

fn says_what_helps(on: &TestNode, what: &str) -> Result<(), String> {
    let said = on.skiff(&["nodes"]).stderr;
    let helps = said.contains(what) && said.contains("skiff start --peer ADDRESS");
    if helps { Ok(()) } else { Err(said) }
}

/// What was said once must not mislead later.
fn forgets(node: &TestNode) {
    eventually("what was said is forgotten", BOUND, || {
        let said = std::fs::read_to_string(node.root().join("node/ways.json"));
        said.map_or(Ok(()), Err)
    });
}

/// The containers of all pods, with how often each was restarted.
fn containers(on: &TestNode) -> String {
    let path = "jsonpath={range .items[*].status.containerStatuses[*]}{.containerID} \
        {.restartCount} {end}";
    on.kubectl(&["get", "pods", "-l", "app=each", "--output", path]).must()
}
