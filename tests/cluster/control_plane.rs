//! Several nodes that run the control plane: any one of three may fail, and comes back.

use std::time::{Duration, Instant};

use harness::{Network, NodeOptions, TestNode, cannot_run_nodes, eventually, run};

use crate::place::{
    add_control_plane, add_node, assert_untouched, begin_join, control_plane, join, member, nodes,
    state_of, wait_for_file, wait_ready, worker,
};
use crate::refused::{copies_of, is_let_in, is_refused};
use crate::worker::{EACH, everybody_reaches_everybody};

const BOUND: Duration = Duration::from_secs(120);
/// Within this, writes go on after the datastore's leader has lost its power.
const RESUME_BOUND: Duration = Duration::from_secs(5);
/// Within this, a node that lost its power is not ready.
const NOT_READY_BOUND: Duration = Duration::from_secs(45);
/// Within this, every API server refuses what a removed node signed for itself.
const REFUSED_BOUND: Duration = Duration::from_secs(5);

#[test]
fn three_control_plane_nodes_survive_the_loss_of_any_one() {
    if cannot_run_nodes() {
        return;
    }
    let network = Network::new();
    let alpha = control_plane(&network, "alpha");
    let secret = ["create", "secret", "generic", "word", "--from-literal=it=ahoy"];
    alpha.kubectl(&secret).must();
    let beta = member(&network, &alpha, "beta");
    let gamma = member(&network, &alpha, "gamma");
    let delta = worker(&network, &beta, "delta");
    let members = [&alpha, &beta, &gamma];
    settle(&alpha, &["alpha", "beta", "gamma"]);
    every_api_server_reads_the_secret(&members);
    everybody_knows_every_api_server(&[&alpha, &beta, &gamma, &delta]);
    let status = beta.skiff(&["status"]).must();
    assert!(status.contains("control-plane of a cluster"), "{status}");

    for node in [&alpha, &beta, &gamma, &delta] {
        node.import_test_image("agnhost");
    }
    alpha.skiff(&["enable", "dns", "--wait"]).must();
    beta.apply(EACH);
    beta.kubectl(&["rollout", "status", "daemonset/each", "--timeout=120s"]).must();
    everybody_reaches_everybody(&gamma, &[&alpha, &beta, &gamma, &delta]);

    loses_its_leader(&members);
    shrinks(&alpha, &beta, &gamma);
}

/// All vote, one of them leads, and Kubernetes calls each ready.
pub fn settle(on: &TestNode, names: &[&str]) {
    eventually("all vote and are ready", BOUND, || {
        let found = nodes(on)?;
        let found: Vec<_> = found.iter().filter(|node| node.role == "control-plane").collect();
        let is_well = |node: &&&skiff_api::ClusterNode| {
            let votes = matches!(node.datastore.as_deref(), Some("leader" | "voter"));
            votes && node.state == skiff_api::NodeState::Ready
        };
        let leads = |node: &&&skiff_api::ClusterNode| node.datastore.as_deref() == Some("leader");
        let well = found.iter().filter(is_well).count();
        let one_leads = found.iter().filter(leads).count() == 1;
        if well == names.len() && found.len() == well && one_leads {
            Ok(())
        } else {
            Err(format!("{found:?}"))
        }
    });
}

fn every_api_server_reads_the_secret(members: &[&TestNode]) {
    for node in members {
        // Not by the balancer: each has the key under which Secrets are stored.
        let (address, pem) = (node.address(), node.root().join("node/admin.pem"));
        let url = format!("https://{address}:6443/api/v1/namespaces/default/secrets/word");
        let answer = run(curl(node, &pem).arg(&url));
        assert!(answer.stdout.contains("YWhveQ=="), "{}: {answer:?}", node.name());
    }
}

fn everybody_knows_every_api_server(all: &[&TestNode]) {
    let path = "jsonpath={.endpoints[*].addresses}";
    eventually("the Service kubernetes has every API server", BOUND, || {
        let slice = ["get", "endpointslice", "kubernetes", "--output", path];
        let found = all[0].kubectl(&slice).must();
        match all[..3].iter().all(|node| found.contains(node.address())) {
            true => Ok(()),
            false => Err(found),
        }
    });
    for node in all {
        eventually("the balancer knows every API server", BOUND, || {
            let list = std::fs::read_to_string(node.root().join("etc/agent/backends.json"));
            let list = list.map_err(|error| error.to_string())?;
            match all[..3].iter().all(|other| list.contains(other.address())) {
                true => Ok(()),
                false => Err(list),
            }
        });
    }
}

/// The machine of the datastore's leader loses its power: writes go on, the others notice nothing,
/// and it heals when it comes back.
fn loses_its_leader(members: &[&TestNode; 3]) {
    let leads = |node: &skiff_api::ClusterNode| node.datastore.as_deref() == Some("leader");
    let leader = nodes(members[0]).unwrap().into_iter().find(leads).expect("somebody leads").name;
    let (lost, rest): (Vec<&TestNode>, Vec<&TestNode>) =
        members.iter().copied().partition(|node| node.name() == leader);
    let (lost, writer) = (lost[0], rest[0]);
    write(writer, "before").expect("it can be written to");
    lost.power_off();
    let begun = Instant::now();
    let mut tries = 0;
    while let Err(error) = write(writer, &format!("after-{tries}")) {
        assert!(begun.elapsed() < BOUND, "no writes: {error}");
        tries += 1;
    }
    let resumed = begun.elapsed();
    println!("{leader} lost its power: writes resume in {:.1} s", resumed.as_secs_f64());
    assert!(resumed < RESUME_BOUND, "{resumed:?}");
    write(rest[1], "other").expect("the other one goes on, too");
    eventually("the lost node is not ready", BOUND, || {
        let found = nodes(writer)?.into_iter().find(|node| node.name == leader);
        match found.map(|node| node.state) {
            Some(skiff_api::NodeState::NotReady) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    println!("{leader} is not ready after {:.1} s", begun.elapsed().as_secs_f64());
    assert!(begun.elapsed() < NOT_READY_BOUND, "{:?}", begun.elapsed());
    for node in &rest {
        assert_eq!(state_of(writer, node.name()).as_deref(), Some("ready"));
    }
    lost.set_link("up");
    lost.start();
    settle(writer, &["alpha", "beta", "gamma"]);
    write(lost, "healed").expect("it is a member as before");
}

/// One goes by force, one by itself, and the first goes on alone.
fn shrinks(alpha: &TestNode, beta: &TestNode, gamma: &TestNode) {
    let refused = alpha.skiff(&["remove-node", "gamma"]);
    assert!(refused.stderr.contains("gamma answers"), "{}", refused.stderr);
    let copies = tempfile::tempdir().expect("a directory for copies");
    let former = copies_of(gamma, copies.path());
    is_let_in(alpha, &former);
    gamma.power_off();
    alpha.skiff(&["remove-node", "gamma"]).must();
    is_refused(alpha, &former, REFUSED_BOUND);
    is_refused(beta, &former, REFUSED_BOUND);
    assert_eq!(state_of(alpha, "gamma"), None);
    let datastore = |on: &TestNode| {
        let found = nodes(on).unwrap();
        found.into_iter().filter_map(|node| Some((node.name, node.datastore?))).collect::<Vec<_>>()
    };
    eventually("one votes", BOUND, || {
        let found = datastore(alpha);
        let leads = found.iter().filter(|(_, role)| role == "leader").count();
        let votes = found.iter().filter(|(_, role)| role == "voter").count();
        if (found.len(), leads, votes) == (2, 1, 0) { Ok(()) } else { Err(format!("{found:?}")) }
    });
    // Its identity is refused from then on, and it says so.
    gamma.set_link("up");
    gamma.skiff(&["start", "--no-wait"]).must();
    eventually("the removed node is told", BOUND, || {
        let said = gamma.skiff(&["status"]).stdout;
        if said.contains("was removed") { Ok(()) } else { Err(said) }
    });
    assert_eq!(datastore(alpha).len(), 2);
    gamma.skiff(&["reset", "--yes"]).must();

    let left = beta.skiff(&["reset", "--yes"]);
    assert!(left.ok() && left.stderr.contains("was told that this node goes"), "{left:?}");
    assert_untouched(beta);
    eventually("alpha leads alone", BOUND, || {
        let found = datastore(alpha);
        if found == [("alpha".to_owned(), "leader".to_owned())] {
            Ok(())
        } else {
            Err(format!("{found:?}"))
        }
    });
    eventually("alpha's controllers ask nobody", BOUND, || {
        let config = alpha.root().join("etc/kube-control/kube-control.json");
        let text = std::fs::read_to_string(config).map_err(|error| error.to_string())?;
        if text.contains("leader-elect=false") { Ok(()) } else { Err(text) }
    });
    wait_ready(alpha, "alpha", BOUND);
    eventually("it is written to", BOUND, || write(alpha, "alone"));
}

#[test]
fn a_control_plane_join_that_is_refused_or_given_up_leaves_nothing() {
    if cannot_run_nodes() {
        return;
    }
    let network = Network::new();
    let alpha = control_plane(&network, "alpha");
    let beta = TestNode::new(&network, "beta", &NodeOptions::default());

    // A worker's token gives nobody the cluster's keys, and the other way round.
    for (line, flag, reason) in [
        (add_node(&alpha, &[]), None, "the token is for a worker node"),
        (add_control_plane(&alpha), Some("--worker"), "the token is for a control-plane node"),
    ] {
        let line: Vec<String> = line.into_iter().take(2).chain(flag.map(str::to_owned)).collect();
        let refused = join(&beta, &line);
        assert_eq!(refused.code, 1, "{}", refused.stderr);
        assert!(refused.stderr.contains(reason), "{}", refused.stderr);
        assert_untouched(&beta);
    }

    // Given up when it is a member of the datastore already: it never voted, and is one no more.
    let line = add_control_plane(&alpha);
    let mut child = begin_join(&beta, &line);
    wait_for_file(&beta.root().join("run/datastore/datastore.sock"), BOUND);
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(1));
    assert_untouched(&beta);
    assert_eq!(state_of(&alpha, "beta"), None);
    eventually("the datastore forgets it", BOUND, || {
        let socket =
            format!("unix:{}", alpha.root().join("run/datastore/datastore.sock").display());
        let outcome =
            alpha.skiff(&["datastore", "status", "--endpoints", &socket, "--output", "json"]);
        let report: serde_json::Value =
            serde_json::from_str(&outcome.stdout).map_err(|error| error.to_string())?;
        match report["members"].as_array().map(Vec::len) {
            Some(1) => Ok(()),
            other => Err(format!("{other:?} members")),
        }
    });
    eventually("alpha is written to", BOUND, || write(&alpha, "after"));

    // The token has its use again.
    join(&beta, &line).must();
    wait_ready(&alpha, "beta", BOUND);
    eventually("both are written to", BOUND, || write(&beta, "joined"));
}

/// Makes an object by the way that every client on that node has.
pub fn write(on: &TestNode, name: &str) -> Result<(), String> {
    let pem = on.root().join("node/admin.pem");
    // A try whose answer was lost must not be in the way of the next.
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_micros();
    let object = format!(r#"{{"metadata":{{"name":"{}-{name}-{now}"}}}}"#, on.name());
    let url = "https://127.0.0.1:6444/api/v1/namespaces/default/configmaps";
    let mut command = curl(on, &pem);
    command.args(["--fail", "--header", "Content-Type: application/json", "--data", &object, url]);
    let outcome = run(&mut command);
    if outcome.ok() { Ok(()) } else { Err(outcome.stderr) }
}

pub fn curl(on: &TestNode, pem: &std::path::Path) -> std::process::Command {
    let mut command = on.command("curl");
    command.args(["-sS", "--max-time", "2", "--cacert"]).arg(on.root().join("pki/ca.crt"));
    command.arg("--cert").arg(pem);
    command
}
