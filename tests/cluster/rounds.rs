//! Bad days: each control-plane node in turn is lost in one of the ways that machines are lost,
//! under a load, and comes back. `make soak --only rounds` has twenty of them.

use std::time::{Duration, Instant};

use harness::{Network, TestNode, Way, cannot_run_nodes, eventually};

use crate::control_plane::{settle, write};
use crate::ledger::{under_load, under_patient_load};
use crate::place::{control_plane, member, nodes, state_of};

const BOUND: Duration = Duration::from_secs(180);
/// Within this, writes go on.
const RESUME_BOUND: Duration = Duration::from_secs(5);
/// Within this, a lost node is not ready.
const NOT_READY_BOUND: Duration = Duration::from_secs(40);
/// Within this after that, its pods run elsewhere.
const REPLACED_BOUND: Duration = Duration::from_secs(60);
/// How long writes are looked at over bad links.
const BAD_LINKS: Duration = Duration::from_secs(120);
/// How long a client waits for an answer over them.
const BAD_LINKS_PATIENCE: Duration = Duration::from_secs(30);
/// What a node's link adds in each direction: between two nodes twice as much, there and back
/// four times.
const LINK_DELAY: Duration = Duration::from_millis(150);
/// What a node's link loses in each direction: a fifth of what one sends does not reach the other.
const LINK_LOSS_PERCENT: u32 = 11;

const NAMES: [&str; 3] = ["alpha", "beta", "gamma"];
const REPLICAS: usize = 6;

/// Pods that are spread over the nodes when all are there, and may be together when one is not.
const SPREAD: &str = r"
apiVersion: apps/v1
kind: Deployment
metadata: {name: spread}
spec:
  replicas: 6
  selector: {matchLabels: {app: spread}}
  template:
    metadata: {labels: {app: spread}}
    spec:
      terminationGracePeriodSeconds: 1
      topologySpreadConstraints:
      - maxSkew: 1
        topologyKey: kubernetes.io/hostname
        whenUnsatisfiable: ScheduleAnyway
        labelSelector: {matchLabels: {app: spread}}
        matchLabelKeys: [pod-template-hash]
      containers:
      - name: main
        image: skiff.local/agnhost:1.36.3
        imagePullPolicy: Never
        args: [pause]
";

/// How a node is lost.
#[derive(Clone, Copy, Debug)]
enum Harm {
    PowerOff,
    Freeze,
    CutIn,
    CutOut,
}

const HARMS: [Harm; 4] = [Harm::PowerOff, Harm::Freeze, Harm::CutIn, Harm::CutOut];

impl Harm {
    fn strike(self, node: &TestNode) {
        match self {
            Self::PowerOff => node.power_off(),
            Self::Freeze => node.freeze(),
            Self::CutIn => node.cut_way(Way::In),
            Self::CutOut => node.cut_way(Way::Out),
        }
    }

    fn undo(self, node: &TestNode) {
        match self {
            Self::PowerOff => {
                node.set_link("up");
                node.start();
            }
            Self::Freeze => node.thaw(),
            Self::CutIn | Self::CutOut => node.mend_link(),
        }
    }
}

/// The long form: `SKIFF_TEST_ROUNDS` says how many, twenty in `make soak`.
#[test]
fn rounds_of_lost_nodes_under_load_lose_no_object_and_end_healed() {
    let rounds = std::env::var("SKIFF_TEST_ROUNDS").ok();
    let Some(rounds) = rounds.map(|text| text.parse::<usize>().expect("a number of rounds")) else {
        println!("skipped: minutes a round; `make soak --only rounds` runs it");
        return;
    };
    if cannot_run_nodes() {
        return;
    }
    let network = Network::new();
    let alpha = control_plane(&network, "alpha");
    let beta = member(&network, &alpha, "beta");
    let gamma = member(&network, &alpha, "gamma");
    let members = [&alpha, &beta, &gamma];
    for node in members {
        node.import_test_image("agnhost");
    }
    settle(&alpha, &NAMES);
    alpha.apply(SPREAD);
    // Every other round loses the datastore's leader, those between the others in turn; a harm is
    // met in both before the next.
    for round in 0..rounds {
        let led = leader(&alpha);
        let victim = match round % 2 {
            0 => led,
            _ => (led + 1 + round / 2 % 2) % members.len(),
        };
        one_round(round, HARMS[round / 2 % HARMS.len()], members[victim], &members);
    }
    bad_links(&members);
}

fn one_round(round: usize, harm: Harm, lost: &TestNode, members: &[&TestNode; 3]) {
    let rest: Vec<&TestNode> =
        members.iter().copied().filter(|node| node.name() != lost.name()).collect();
    spread_again(rest[0]);
    let led = NAMES[leader(rest[0])];
    let restarts: Vec<_> = rest.iter().map(|node| restarts_of(node)).collect();
    let (resumed, not_ready, replaced, healed) = under_load(rest[0], |ledger| {
        let begun = Instant::now();
        harm.strike(lost);
        eventually("writes resume", BOUND, || write(rest[1], "resumed"));
        let resumed = begun.elapsed();
        eventually("the lost node is not ready", BOUND, || is_not_ready(rest[0], lost.name()));
        let not_ready = begun.elapsed();
        eventually("its pods are replaced", BOUND, || is_replaced(rest[0], lost.name()));
        let replaced = begun.elapsed().saturating_sub(not_ready);
        for (node, before) in rest.iter().zip(&restarts) {
            assert_eq!(state_of(rest[0], node.name()).as_deref(), Some("ready"));
            assert_eq!(&restarts_of(node), before, "{} noticed", node.name());
        }
        if led != lost.name() {
            assert_eq!(NAMES[leader(rest[0])], led, "the leader was not lost, and yet it changed");
        }
        ledger.assert_all_there(rest[1]);
        let begun = Instant::now();
        harm.undo(lost);
        settle(rest[0], &NAMES);
        eventually("it is written to as before", BOUND, || write(lost, "healed"));
        (resumed, not_ready, replaced, begun.elapsed())
    });
    println!(
        "round {round}: {harm:?} of {} ({led} led): first write {:.1} s, not ready {:.1} s, \
         pods replaced {:.1} s after that, healed {:.1} s",
        lost.name(),
        resumed.as_secs_f64(),
        not_ready.as_secs_f64(),
        replaced.as_secs_f64(),
        healed.as_secs_f64(),
    );
    assert!(resumed < RESUME_BOUND, "{resumed:?}");
    assert!(not_ready < NOT_READY_BOUND, "{not_ready:?}");
    assert!(replaced < REPLACED_BOUND, "{replaced:?}");
}

/// Everything between any two takes 300 ms and a fifth is lost: writes go on, nothing is lost or
/// stuck.
fn bad_links(members: &[&TestNode; 3]) {
    let slow: Vec<_> = members.iter().map(|node| node.slow_link(LINK_DELAY)).collect();
    for node in members {
        node.lose_packets(LINK_LOSS_PERCENT);
    }
    let acknowledged = under_patient_load(members[0], BAD_LINKS_PATIENCE, |ledger| {
        let before = ledger.acknowledged();
        std::thread::sleep(BAD_LINKS);
        let acknowledged = ledger.acknowledged() - before;
        for node in members {
            node.mend_link();
        }
        drop(slow);
        settle(members[0], &NAMES);
        ledger.assert_all_there(members[1]);
        acknowledged
    });
    println!("bad links: {acknowledged} writes in {} s", BAD_LINKS.as_secs());
    assert!(acknowledged > 0, "no write over bad links");
}

/// Who leads the datastore, by its place among the names.
fn leader(on: &TestNode) -> usize {
    eventually("somebody leads", BOUND, || {
        let found = nodes(on)?;
        let leads = found.iter().find(|node| node.datastore.as_deref() == Some("leader"));
        let place = leads.and_then(|node| NAMES.iter().position(|name| *name == node.name));
        place.ok_or_else(|| format!("{found:?}"))
    })
}

fn restarts_of(node: &TestNode) -> Vec<(String, u32)> {
    let text = node.skiff(&["services", "--output", "json"]).must();
    let services: Vec<skiff_api::Service> = serde_json::from_str(&text).unwrap();
    services.into_iter().map(|service| (service.name, service.restarts)).collect()
}

fn is_not_ready(on: &TestNode, name: &str) -> Result<(), String> {
    let path = r#"jsonpath={.status.conditions[?(@.type=="Ready")].status}"#;
    let outcome = on.kubectl(&["get", "node", name, "--output", path]);
    match outcome.stdout.trim() {
        "Unknown" | "False" => Ok(()),
        _ => Err(format!("{outcome:?}")),
    }
}

/// All pods again, so that each node has some.
fn spread_again(on: &TestNode) {
    on.kubectl(&["rollout", "restart", "deployment/spread"]).must();
    on.kubectl(&["rollout", "status", "deployment/spread", "--timeout=180s"]).must();
    eventually("each node has pods", BOUND, || {
        let pods = ready_pods(on)?;
        match NAMES.iter().all(|name| pods.iter().any(|node| node == name)) {
            true => Ok(()),
            false => Err(format!("{pods:?}")),
        }
    });
}

fn is_replaced(on: &TestNode, lost: &str) -> Result<(), String> {
    let pods = ready_pods(on)?;
    let elsewhere = pods.iter().filter(|node| *node != lost).count();
    if elsewhere >= REPLICAS { Ok(()) } else { Err(format!("{pods:?}")) }
}

/// The nodes of the pods that are ready and stay.
fn ready_pods(on: &TestNode) -> Result<Vec<String>, String> {
    let outcome = on.kubectl(&["get", "pods", "-l", "app=spread", "--output", "json"]);
    let list: serde_json::Value =
        serde_json::from_str(&outcome.stdout).map_err(|_| outcome.stderr)?;
    let is_ready = |pod: &&serde_json::Value| {
        let conditions = pod["status"]["conditions"].as_array();
        let mut conditions = conditions.into_iter().flatten();
        pod["metadata"]["deletionTimestamp"].is_null()
            && conditions.any(|one| one["type"] == "Ready" && one["status"] == "True")
    };
    let pods = list["items"].as_array().into_iter().flatten().filter(is_ready);
    Ok(pods.map(|pod| pod["spec"]["nodeName"].as_str().unwrap_or_default().to_owned()).collect())
}
