//! What docs/how-to/restore-a-cluster.md prints for three new machines, typed: `make soak --only restore`.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use age::secrecy::ExposeSecret;
use harness::{Network, NodeOptions, Outcome, TestNode, cannot_run_nodes, eventually, run};

use crate::control_plane::{settle, write};
use crate::page::blocks_of;
use crate::place::{READY_TIMEOUT, control_plane, member, nodes};
use crate::refused::{copies_of, is_let_in, is_refused};

const BOUND: Duration = Duration::from_secs(120);
const PAGE: &str = "docs/how-to/restore-a-cluster.md";
/// A setting of the whole cluster, which the restored one must have.
const SETTING: &str = "kube.kubelet-args=[\"--max-pods=60\"]";

#[test]
fn a_cluster_of_three_comes_back_on_three_new_machines_by_what_its_page_prints() {
    if std::env::var_os("SKIFF_TEST_RESTORE").is_none() {
        println!("skipped: six nodes; `make soak --only restore` runs it, `make test` has three");
        return;
    }
    if cannot_run_nodes() {
        return;
    }
    let network = Network::new();
    let home = tempfile::tempdir_in("/var/tmp").expect("a directory for the archive");
    let former = ["alpha", "beta", "gamma"];
    let alpha = control_plane(&network, "alpha");
    let old = [member(&network, &alpha, "beta"), member(&network, &alpha, "gamma")];
    settle(&alpha, &former);
    let token = fill(&alpha);
    let taken = archive(&old[0], home.path());
    let of_before = [&alpha, &old[0], &old[1]];
    let leaves = of_before.map(|node| copies_of(node, home.path())).concat();
    is_let_in(&alpha, &leaves);
    of_before.iter().for_each(|node| node.power_off());

    let begun = Instant::now();
    let new = ["delta", "epsilon", "zeta"]
        .map(|name| TestNode::new(&network, name, &NodeOptions::default()));
    // The node takes its name and its settings from the archive.
    fs::remove_file(new[0].root().join("skiff.toml")).expect("settings of its own");
    types_what_the_page_prints(&new, &taken);
    // In the place of beta, which took the archive.
    settle(&new[1], &["beta", "epsilon", "zeta"]);
    println!("three vote {:.0} s after the loss", begun.elapsed().as_secs_f64());

    for node in &new {
        has_everything(node, token.trim());
        write(node, "after").expect("it can be written to");
    }
    let found: Vec<String> = nodes(&new[2]).unwrap().into_iter().map(|node| node.name).collect();
    assert_eq!(found, ["beta", "epsilon", "zeta"]);
    new.iter().for_each(|node| is_refused(node, &leaves, BOUND));
    is_told_that_it_was_removed(&old[1], alpha.address(), &new[0]);
}

/// What the cluster holds; the token of a service account that may read it.
fn fill(alpha: &TestNode) -> String {
    let secret = ["create", "secret", "generic", "kept", "--from-literal=password=keel"];
    alpha.kubectl(&secret).must();
    alpha.kubectl(&["create", "configmap", "kept", "--from-literal=greeting=ahoy"]).must();
    alpha.kubectl(&["create", "serviceaccount", "robot"]).must();
    let binding = [
        "create",
        "clusterrolebinding",
        "robot",
        "--clusterrole=view",
        "--serviceaccount=default:robot",
    ];
    alpha.kubectl(&binding).must();
    alpha.skiff(&["set", SETTING]).must();
    alpha.kubectl(&["create", "token", "robot", "--duration=2h"]).must()
}

/// Where an archive is, and the key that opens it.
struct Taken {
    file: String,
    key: String,
}

fn archive(on: &TestNode, home: &Path) -> Taken {
    let identity = age::x25519::Identity::generate();
    let key = home.join("key.txt");
    fs::write(&key, identity.to_string().expose_secret()).expect("a key file");
    let file = home.join("three.archive.age").to_string_lossy().into_owned();
    let public = identity.to_public().to_string();
    on.skiff(&["backup", "create", "--encrypt-to", &public, &file]).must();
    Taken { file, key: key.to_string_lossy().into_owned() }
}

/// The first block on the first machine, the second on the two others, the third on any.
fn types_what_the_page_prints(new: &[TestNode; 3], taken: &Taken) {
    let blocks = blocks_of(PAGE, "Onto three new machines");
    let [on_first, on_others, on_any] = &blocks[..] else { panic!("{blocks:?}") };
    assert!(on_first.len() == 3 && on_others.len() == 1 && on_any.len() == 1, "{blocks:?}");
    let mut said = String::new();
    for line in on_first {
        said = types(&new[0], line, taken, "").must();
    }
    let token = said.split_whitespace().find(|word| word.starts_with("skiff1."));
    let token = token.unwrap_or_else(|| panic!("no token is printed: {said}"));
    for other in &new[1..] {
        let begun = Instant::now();
        types(other, &on_others[0], taken, token).must();
        println!("{}: {:.1} s from join to Ready", other.name(), begun.elapsed().as_secs_f64());
    }
    let listed = types(&new[1], &on_any[0], taken, "").must();
    assert!(listed.contains("epsilon") && listed.contains("zeta"), "{listed}");
}

/// Types a line of the page with what stands for this cluster's own words.
fn types(node: &TestNode, line: &str, taken: &Taken, token: &str) -> Outcome {
    let own = |word: &str| match word {
        "FILE" => taken.file.clone(),
        "key.txt" => taken.key.clone(),
        word if word.starts_with("skiff1.") => token.to_owned(),
        word => word.to_owned(),
    };
    let words = line.strip_prefix("sudo ").unwrap_or(line);
    let words = words.strip_prefix("skiff ").unwrap_or_else(|| panic!("not ours: {line}"));
    let mut words: Vec<String> = words.split(' ').map(own).collect();
    if ["start", "join"].contains(&words[0].as_str()) {
        // A busy build machine takes longer than the page expects.
        words.extend(["--timeout", READY_TIMEOUT].map(str::to_owned));
    }
    node.skiff(&words.iter().map(String::as_str).collect::<Vec<_>>())
}

/// Asked of that node's own API server, by the service account of before.
fn has_everything(node: &TestNode, token: &str) {
    let secret = ["get", "secret", "kept", "--output", "jsonpath={.data.password}"];
    assert_eq!(node.kubectl(&secret).must(), "a2VlbA==");
    let authority = node.root().join("pki/ca.crt");
    let url = format!("https://{}:6443/api/v1/namespaces/default/configmaps/kept", node.address());
    let mut curl = node.command("curl");
    curl.args(["-sS", "--fail", "--max-time", "5", "--cacert"]).arg(authority);
    let answer = run(curl.args(["--header", &format!("Authorization: Bearer {token}"), &url]));
    assert!(answer.stdout.contains("ahoy"), "{}: {answer:?}", node.name());
    let got = node.skiff(&["get", "kube.kubelet-args"]).must();
    assert!(got.contains("--max-pods=60"), "{}: {got}", node.name());
}

/// A lost machine that is switched on and finds a node of the new cluster where its own was.
fn is_told_that_it_was_removed(former: &TestNode, known: &str, first: &TestNode) {
    let address = format!("{known}/24");
    run(first.command("ip").args(["address", "add", &address, "dev", "eth0"])).must();
    former.set_link("up");
    former.skiff(&["start", "--no-wait"]).must();
    eventually("the former node is told at 7443", BOUND, || {
        let said = former.skiff(&["status"]).stdout;
        let words = said.split_whitespace().collect::<Vec<_>>().join(" ");
        if words.contains("was removed from the cluster") { Ok(()) } else { Err(said) }
    });
    assert_eq!(nodes(first).unwrap().len(), 3);
}
