//! What docs/how-to/recover-a-cluster.md says, done: two of three control-plane nodes are gone for
//! ever, the third one says so, is recovered, and others join it.

use std::fs;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use harness::{Network, NodeOptions, TestNode, cannot_run_nodes, eventually, skiff_binary};
use serde_json::Value;

use crate::control_plane::{settle, write};
use crate::place::{
    READY_TIMEOUT, add_control_plane, add_node, control_plane, join, kill, member, nodes,
    wait_ready, worker,
};
use crate::refused::{copies_of, is_let_in, is_refused};

const BOUND: Duration = Duration::from_secs(120);
/// Within this, a survivor says that the quorum is lost.
const TOLD_BOUND: Duration = Duration::from_secs(45);
/// A read answers within this, whatever is lost.
const ANSWER_BOUND: Duration = Duration::from_secs(15);
/// Objects that are acknowledged before the loss.
const OBJECTS: usize = 20;

#[test]
fn two_of_three_are_gone_for_ever_and_the_third_goes_on_with_everything_that_was_acknowledged() {
    if cannot_run_nodes() {
        return;
    }
    let network = Network::new();
    let whole = Instant::now();
    let alpha = control_plane(&network, "alpha");
    let beta = member(&network, &alpha, "beta");
    let gamma = member(&network, &alpha, "gamma");
    settle(&alpha, &["alpha", "beta", "gamma"]);
    let kept: Vec<String> = (0..OBJECTS).map(|number| format!("kept-{number}")).collect();
    for name in &kept {
        write(&beta, name).expect("it can be written to");
    }
    let open = add_node(&beta, &[]);
    println!("three vote after {:.1} s", whole.elapsed().as_secs_f64());
    let copies = tempfile::tempdir().expect("a directory for copies");
    let former = [&alpha, &beta].map(|node| copies_of(node, copies.path())).concat();
    is_let_in(&gamma, &former);
    let refused = gamma.skiff(&["recover", "--yes"]);
    assert!(refused.stderr.contains("the quorum is not lost"), "{}", refused.stderr);

    let begun = Instant::now();
    alpha.power_off();
    beta.power_off();
    says_that_the_quorum_is_lost(&gamma, "no quorum: 1 of 3 voters reachable", &["alpha", "beta"]);
    println!("the loss is told after {:.1} s", begun.elapsed().as_secs_f64());
    let begun = Instant::now();
    is_recovered_through_kills(&gamma);
    println!("recovered and ready after {:.1} s", begun.elapsed().as_secs_f64());

    is_refused(&gamma, &former, BOUND);
    has_all(&gamma, &kept);
    write(&gamma, "after").expect("it can be written to");
    let found: Vec<String> = nodes(&gamma).unwrap().into_iter().map(|node| node.name).collect();
    assert_eq!(found, ["gamma"]);
    let tokens = gamma.skiff(&["tokens"]).must();
    assert!(!tokens.contains("live"), "{tokens}");

    // One of the lost comes back as it was, while new machines join.
    beta.set_link("up");
    beta.skiff(&["start", "--no-wait"]).must();
    let fresh = ["delta", "epsilon"].map(|name| {
        let node = TestNode::new(&network, name, &NodeOptions::default());
        let outcome = join(&node, &open);
        assert_eq!(outcome.code, 1, "a token of before is good: {}", outcome.stderr);
        let begun = Instant::now();
        join(&node, &add_control_plane(&gamma)).must();
        println!("{name}: {:.1} s from join to Ready", begun.elapsed().as_secs_f64());
        node
    });
    settle(&fresh[0], &["gamma", "delta", "epsilon"]);
    eventually("Kubernetes forgets the lost nodes", BOUND, || {
        let names = fresh[1].kubectl(&["get", "nodes", "--output", "name"]).must();
        let is_there = |name: &str| names.contains(name);
        if is_there("alpha") || is_there("beta") { Err(names) } else { Ok(()) }
    });
    is_told_that_it_is_a_former_one(&beta, &gamma);
    println!("all of it after {:.1} s", whole.elapsed().as_secs_f64());
}

/// The long form: `make soak --only recover`.
#[test]
fn with_two_members_the_loss_of_the_voter_is_recovered_on_the_other_and_a_worker_follows() {
    if cannot_run_nodes() {
        return;
    }
    if std::env::var_os("SKIFF_TEST_RECOVER").is_none_or(|asked| asked != "full") {
        println!("skipped: takes a minute, asked for with SKIFF_TEST_RECOVER=full");
        return;
    }
    let network = Network::new();
    let alpha = control_plane(&network, "alpha");
    let beta = member(&network, &alpha, "beta");
    eventually("beta stands by", BOUND, || {
        let found = nodes(&alpha)?.into_iter().find(|node| node.name == "beta");
        match found.as_ref().and_then(|node| node.datastore.as_deref()) {
            Some("stand-by") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    let kept: Vec<String> = (0..OBJECTS).map(|number| format!("kept-{number}")).collect();
    for name in &kept {
        write(&beta, name).expect("it can be written to");
    }
    let omega = worker(&network, &beta, "omega");

    alpha.power_off();
    says_that_the_quorum_is_lost(&beta, "no quorum: 0 of 1 voters reachable", &["alpha"]);
    eventually("the worker says so", BOUND, || {
        let begun = Instant::now();
        let said = words(&omega.skiff(&["nodes"]).stderr);
        assert!(begun.elapsed() < ANSWER_BOUND, "{:?}", begun.elapsed());
        match said.contains("no quorum") && said.contains("type on beta: sudo skiff recover") {
            true => Ok(()),
            false => Err(said),
        }
    });
    let begun = Instant::now();
    beta.skiff(&["recover", "--yes", "--timeout", READY_TIMEOUT]).must();
    println!("recovered and ready after {:.1} s", begun.elapsed().as_secs_f64());
    has_all(&beta, &kept);
    wait_ready(&beta, "omega", BOUND);
    let found: Vec<String> = nodes(&omega).unwrap().into_iter().map(|node| node.name).collect();
    assert_eq!(found, ["beta", "omega"]);
    let _fresh = ["gamma", "delta"].map(|name| member(&network, &beta, name));
    settle(&beta, &["beta", "gamma", "delta"]);
    write(&beta, "after").expect("it can be written to");
}

/// Every object that beta was asked for is there.
fn has_all(survivor: &TestNode, kept: &[String]) {
    let names = survivor.kubectl(&["get", "configmaps", "--output", "name"]).must();
    for name in kept {
        assert!(names.contains(&format!("beta-{name}-")), "{name} is lost: {names}");
    }
}

fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Whatever is read says what is the matter and what to type.
fn says_that_the_quorum_is_lost(survivor: &TestNode, what: &str, lost: &[&str]) {
    eventually("the status says that the quorum is lost", TOLD_BOUND, || {
        let said = words(&survivor.skiff(&["status"]).stdout);
        match said.contains(what) && said.contains("sudo skiff recover") {
            true => Ok(()),
            false => Err(said),
        }
    });
    let kubectl = ["kubectl", "get", "configmaps", "--request-timeout=5s"];
    for line in [&["nodes"][..], &["tokens"][..], &kubectl[..]] {
        let begun = Instant::now();
        let outcome = survivor.skiff(line);
        let said = words(&outcome.stderr);
        assert!(outcome.code != 0 && said.contains(what), "{line:?}: {said}");
        assert!(said.contains("sudo skiff recover"), "{line:?}: {said}");
        assert!(begun.elapsed() < ANSWER_BOUND, "{line:?}: {:?}", begun.elapsed());
    }
    let looked = survivor.skiff(&["recover", "--dry-run"]).must();
    for name in lost {
        let line = looked.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        assert!(line.contains("silent"), "{looked}");
    }
    let nobody = survivor.skiff(&["recover"]);
    assert!(nobody.stderr.contains("hint: repeat it with --yes"), "{}", nobody.stderr);
    // It still runs.
    assert!(survivor.skiff(&["services"]).ok());
}

/// Killed at each of its steps, `recover` has done nothing or everything, and is typed again.
fn is_recovered_through_kills(survivor: &TestNode) {
    let root = survivor.root();
    let membership = root.join("node/membership.json");
    let before = fs::read(&membership).expect("it belongs to a cluster");
    let mut revision = None;
    // The first one finds a node that runs, and stops it.
    let steps: [(&str, Mark); 2] = [("built", is_built), ("in place", is_placed)];
    for (step, mark) in steps {
        let mut child = begin(survivor);
        let killed = wait_for_mark(&mut child, root, mark);
        let is_new = root.join("datastore/metadata1").is_file()
            && !root.join("datastore/member.json").is_file();
        println!("{step}: killed {killed}, new {is_new}");
        if is_new {
            break;
        }
        let looked = survivor.skiff(&["recover", "--dry-run", "--output", "json"]).must();
        let found: Value = serde_json::from_str(&looked).expect("JSON");
        let now = found["members"][0]["revision"].as_i64().expect("a revision");
        assert_eq!(*revision.get_or_insert(now), now, "{step}: {looked}");
        assert_eq!(found["members"][1]["state"], "silent", "{looked}");
    }
    let again = survivor.skiff(&["recover", "--yes", "--no-start"]);
    println!("{}{}", again.stdout, again.stderr);
    // What the node knows of its cluster comes after the rename: as if killed between them.
    fs::write(&membership, &before).expect("it can be written");
    let finished = survivor.skiff(&["recover", "--yes", "--no-start"]);
    assert!(finished.ok() && finished.stderr.contains("was recovered already"), "{finished:?}");
    assert_ne!(fs::read(&membership).expect("it is there"), before);
    let whole = survivor.skiff(&["recover", "--yes"]);
    assert!(whole.stderr.contains("has no other members"), "{}", whole.stderr);
    // A kill just before the rename leaves a finished one, too; that one has never been a member's.
    let kept = fs::read_dir(root).expect("the root").flatten();
    let kept = kept.filter(|entry| entry.file_name().to_string_lossy().contains("former-"));
    let of_before = kept.filter(|entry| entry.path().join("member.json").is_file());
    assert_eq!(of_before.count(), 1, "the datastore of before is kept");
    // Whoever starts it instead of typing that again comes to the same, by the record.
    fs::write(&membership, &before).expect("it can be written");
    survivor.start();
    eventually("the node knows that it is alone", BOUND, || {
        let text = fs::read_to_string(&membership).map_err(|error| error.to_string())?;
        if text.contains("\"alpha\"") { Err(text) } else { Ok(()) }
    });
}

/// Tells a file's name.
type Mark = fn(&str) -> bool;

/// What `recover` builds beside the datastore.
fn is_built(name: &str) -> bool {
    name.starts_with(".datastore.restoring-") && !name.ends_with("-copy")
}

/// What is finished, or was the datastore before.
fn is_placed(name: &str) -> bool {
    name.contains("datastore.restored-") || name.contains(".former-")
}

fn begin(survivor: &TestNode) -> Child {
    let mut command = survivor.command(skiff_binary());
    command.args(["recover", "--yes", "--no-start"]);
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it is begun")
}

/// Kills the command when a file beside the datastore appears whose name is such; or answers false:
/// it had ended.
fn wait_for_mark(child: &mut Child, root: &Path, mark: Mark) -> bool {
    let begun = Instant::now();
    let is_there = || {
        let entries = fs::read_dir(root).expect("the root").flatten();
        entries.into_iter().any(|entry| mark(&entry.file_name().to_string_lossy()))
    };
    while begun.elapsed() < BOUND {
        if child.try_wait().expect("it is ours").is_some() {
            return false;
        }
        if is_there() {
            kill(child.id());
            child.wait().expect("it is ours");
            return true;
        }
        std::thread::sleep(Duration::from_micros(200));
    }
    panic!("nothing of it appears");
}

/// A machine that was lost and is switched on again.
fn is_told_that_it_is_a_former_one(former: &TestNode, survivor: &TestNode) {
    eventually("the former node is told", BOUND, || {
        let said = former.skiff(&["status"]).stdout;
        let said = words(&said);
        match said.contains("was removed from the cluster") && said.contains("skiff reset") {
            true => Ok(()),
            false => Err(said),
        }
    });
    assert_eq!(nodes(survivor).unwrap().len(), 3);
}
