//! A node that was removed is refused at 6443, too: at once, whatever its certificates say.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use harness::{Network, TestNode, cannot_run_nodes, eventually, run};

use crate::place::{add_node, control_plane, join, wait_ready, worker};

const BOUND: Duration = Duration::from_secs(120);
/// From the removal to the first refusal: what both sides wait at most, and room for a busy machine.
const AT_ONCE: Duration = Duration::from_secs(5);
/// Certificates by which a worker comes to the API server.
const LEAVES: [&str; 3] =
    ["pki/kube-node/kubelet.pem", "pki/kube-node/kube-proxy.pem", "pki/kube-node/network.pem"];
/// Those that a control-plane node signs for itself besides.
const OF_CONTROL_PLANE: [&str; 5] = [
    "node/admin.pem",
    "pki/kube-control/apiserver-kubelet-client.pem",
    "pki/kube-control/controller-manager.pem",
    "pki/kube-control/front-proxy-client.pem",
    "pki/kube-control/scheduler.pem",
];

#[test]
fn a_removed_node_is_refused_at_once_and_another_one_of_its_name_is_not() {
    if cannot_run_nodes() {
        return;
    }
    let network = Network::new();
    let alpha = control_plane(&network, "alpha");
    let beta = worker(&network, &alpha, "beta");
    // Whoever has a copy of the disk comes with these.
    let copies = tempfile::tempdir().expect("a directory for copies");
    let former = LEAVES.map(|name| copy(&beta, name, copies.path()));
    is_let_in(&alpha, &former);
    let kubelet = &former[0];
    let mut watch = begin_watch(&alpha, kubelet);

    alpha.skiff(&["remove-node", "beta", "--force"]).must();
    let removed = Instant::now();
    is_refused(&alpha, &former, AT_ONCE);
    println!("refused after {:.1} s", removed.elapsed().as_secs_f64());
    eventually("its watch ends", AT_ONCE, || match watch.try_wait() {
        Ok(Some(_)) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    let asked = beta.skiff(&["nodes"]);
    assert!(asked.stderr.contains("was removed from the cluster"), "at 7443: {}", asked.stderr);
    eventually("the node itself says so", BOUND, || {
        let said = beta.skiff(&["status"]).stdout;
        let words: String = said.split_whitespace().collect::<Vec<_>>().join(" ");
        let tells = words.contains("was removed from the cluster")
            && words.contains("remedy: `sudo skiff reset`");
        if tells { Ok(()) } else { Err(said) }
    });

    // Under the same name, and the former one is as strange as before.
    beta.skiff(&["reset", "--yes"]).must();
    join(&beta, &add_node(&alpha, &["--name", "beta"])).must();
    wait_ready(&alpha, "beta", BOUND);
    let fresh = LEAVES.map(|name| copy(&beta, name, copies.path()));
    is_let_in(&alpha, &fresh);
    eventually("the former one is refused", Duration::ZERO, || refused(&alpha, kubelet));

    // A list that was lost while the API server was away: nobody is let in who was removed, and
    // everybody else is as soon as it is there again.
    let list = alpha.root().join("etc/kube-control/refused.json");
    let before = fs::read_to_string(&list).expect("there is a list");
    fs::write(&list, "{").expect("it can be damaged");
    alpha.skiff(&["restart"]).must();
    eventually("the list is whole", BOUND, || match fs::read_to_string(&list) {
        Ok(now) if now == before => Ok(()),
        now => Err(format!("{now:?}")),
    });
    eventually("the node is let in", BOUND, || match ask(&alpha, &fresh[0], "/version") {
        (code, _) if code == "200" => Ok(()),
        answer => Err(format!("{answer:?}")),
    });
    eventually("the former one is refused", Duration::ZERO, || refused(&alpha, kubelet));
    wait_ready(&alpha, "beta", BOUND);
}

/// Copies every certificate with its key by which a control-plane node comes to the API server.
#[track_caller]
pub fn copies_of(node: &TestNode, place: &Path) -> Vec<PathBuf> {
    LEAVES.iter().chain(&OF_CONTROL_PLANE).map(|name| copy(node, name, place)).collect()
}

#[track_caller]
pub fn is_let_in(by: &TestNode, leaves: &[PathBuf]) {
    for leaf in leaves {
        let (code, said) = ask(by, leaf, "/version");
        assert_eq!(code, "200", "{}: {said}", leaf.display());
    }
}

/// Each by the API server of that node, with the reason.
#[track_caller]
pub fn is_refused(by: &TestNode, leaves: &[PathBuf], bound: Duration) {
    for leaf in leaves {
        let what = format!("{} is refused by {}", leaf.display(), by.name());
        eventually(&what, bound, || refused(by, leaf));
    }
}

/// Copies a node's certificate with its key.
#[track_caller]
fn copy(node: &TestNode, name: &str, place: &Path) -> PathBuf {
    let number = fs::read_dir(place).expect("the directory is there").count();
    let from = node.root().join(name);
    let name = from.file_name().expect("it names a file").to_string_lossy();
    let to = place.join(format!("{number}-{name}"));
    fs::copy(&from, &to).expect("it can be copied");
    to
}

/// Asks the API server of a node with that certificate; the status and what it said.
fn ask(alpha: &TestNode, leaf: &Path, path: &str) -> (String, String) {
    let outcome =
        run(curl(alpha, leaf, path).args(["--max-time", "5", "--write-out", "\n%{http_code}"]));
    let (said, code) = outcome.stdout.rsplit_once('\n').unwrap_or_default();
    (code.to_owned(), format!("{said}{}", outcome.stderr))
}

/// Denied, with the reason and what to type.
fn refused(alpha: &TestNode, leaf: &Path) -> Result<(), String> {
    let (code, said) = ask(alpha, leaf, "/api/v1/nodes/beta");
    let tells = said.contains("this node was removed from the cluster: `sudo skiff reset`");
    if code == "403" && tells { Ok(()) } else { Err(format!("{code}: {said}")) }
}

/// A watch as the kubelet has it of its Node; returns when it has begun.
#[track_caller]
fn begin_watch(alpha: &TestNode, leaf: &Path) -> Child {
    let path = "/api/v1/nodes?watch=true&fieldSelector=metadata.name%3Dbeta";
    let told = leaf.with_extension("watch");
    let file = fs::File::create(&told).expect("a file for what is told");
    let mut command = curl(alpha, leaf, path);
    command.args(["--no-buffer", "--max-time", "300"]).stdout(file).stderr(Stdio::null());
    let child = command.spawn().expect("curl is started");
    eventually("the watch has begun", BOUND, || match fs::read_to_string(&told) {
        Ok(text) if text.contains("\"beta\"") => Ok(()),
        other => Err(format!("{other:?}")),
    });
    child
}

fn curl(alpha: &TestNode, leaf: &Path, path: &str) -> std::process::Command {
    let mut command = alpha.command("curl");
    command.args(["--silent", "--show-error"]).arg("--cert").arg(leaf).arg("--key").arg(leaf);
    command.arg("--cacert").arg(alpha.root().join("pki/ca.crt"));
    if leaf.to_string_lossy().contains("front-proxy") {
        // Whoever has this one speaks for anybody.
        command.args(["--header", "X-Remote-User: somebody"]);
        command.args(["--header", "X-Remote-Group: system:masters"]);
    }
    command.arg(format!("https://{}:6443{path}", alpha.address()));
    command
}
