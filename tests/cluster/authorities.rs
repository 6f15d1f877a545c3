//! A cluster gets new authorities while everything runs, turns round on the way, and whoever dies on it
//! or was off goes on.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use harness::{Network, Person, TestNode, cannot_run_nodes, eventually, issuers, rotation, run};

use crate::control_plane::{curl, settle};
use crate::place::{control_plane, kill, member, nodes, skiffd, wait_ready, worker};

const BOUND: Duration = Duration::from_secs(240);
/// An API server may take so long to hand over to the others, on a busy build machine.
const AWAY_MAX: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(200);

/// Calls the API all the time, by what every pod has for that.
const CALLER: &str = r"
apiVersion: v1
kind: Pod
metadata: {name: caller}
spec:
  nodeName: delta
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: skiff.local/agnhost:1.36.3
    imagePullPolicy: Never
    args: [inclusterclient, --poll-interval=1]
";

/// The long form: `SKIFF_TEST_AUTHORITIES` is set, as `make soak` does.
#[test]
fn a_cluster_gets_new_authorities_and_goes_back_while_everything_runs() {
    if cannot_run_nodes() {
        return;
    }
    let Some(form) = std::env::var_os("SKIFF_TEST_AUTHORITIES") else {
        println!(
            "skipped: it takes a quarter of an hour; SKIFF_TEST_AUTHORITIES=full runs it, `short` and `walks` its halves"
        );
        return;
    };
    let network = Network::new();
    let alpha = control_plane(&network, "alpha");
    let beta = member(&network, &alpha, "beta");
    let gamma = member(&network, &alpha, "gamma");
    let delta = worker(&network, &alpha, "delta");
    let all = [&alpha, &beta, &gamma, &delta];
    settle(&alpha, &["alpha", "beta", "gamma"]);
    delta.import_test_image("agnhost");
    alpha.apply(CALLER);
    alpha.kubectl(&["wait", "--for=condition=Ready", "pod/caller", "--timeout=120s"]).must();
    if form != "walks" {
        there_back_and_to_the_end(&all);
    }
    if form != "short" {
        timed("killed on the way", || killed_on_the_way(&all));
        timed("one was off", || one_was_off(&all));
    }
}

/// Nobody on these nodes and nobody in a pod notices.
fn there_back_and_to_the_end(all: &[&TestNode; 4]) {
    let [alpha, beta, gamma, _] = all;
    let before = Person::new(alpha, "before");

    timed("on, back and on again", || {
        while_asked(&[alpha, beta], || {
            rotate(beta, &["--authorities"]);
            assert_position(alpha, "both-new");
            assert_issuers(all, ["skiff 2", "skiff front proxy 2"]);
            let meanwhile = Person::new(alpha, "meanwhile");
            rotate(gamma, &["--back"]);
            assert_position(alpha, "both-old");
            assert_issuers(all, ["skiff", "skiff front proxy"]);
            before.must_reach(alpha);
            meanwhile.must_reach(alpha);
            rotate(alpha, &["--authorities"]);
            assert_position(beta, "both-new");
        });
    });
    before.must_reach(beta);
    assert_never_refused(alpha);
    timed("the end", || {
        while_asked(&[alpha, beta], || rotate(beta, &["--authorities", "--finish", "--yes"]));
    });
    is_over(all, "skiff 2", &before);
    Person::new(alpha, "after").must_reach(beta);
}

/// Whoever dies at any moment on either way: the command's work goes on, and all arrive.
fn killed_on_the_way(all: &[&TestNode; 4]) {
    let [alpha, beta, gamma, delta] = all;
    let before = Person::new(alpha, "before-kills");
    // The hold was ended before its token was.
    alpha.kubectl(&["delete", "pod", "caller"]).must();
    alpha.apply(CALLER);
    alpha.kubectl(&["wait", "--for=condition=Ready", "pod/caller", "--timeout=120s"]).must();
    for (turn, args) in [&["--authorities"][..], &["--back"], &["--authorities"]].iter().enumerate()
    {
        let on = if turn == 1 { beta } else { alpha };
        on.skiff(&[&["certs", "rotate", "--no-wait"], *args].concat()).must();
        for moment in 0..4 {
            std::thread::sleep(Duration::from_millis(700 + 1900 * moment));
            for victim in [alpha, beta, gamma, delta] {
                if (moment as usize + turn).is_multiple_of(2) == (victim.name() < "c") {
                    kill(skiffd(victim));
                    victim.start();
                }
            }
        }
        wait_until_held(alpha);
        before.must_reach(alpha);
    }
    assert_never_refused(alpha);
    rotate(alpha, &["--authorities", "--finish", "--yes"]);
    let current = issuers(alpha)[0].clone();
    is_over(all, &current, &before);
    settle(alpha, &["alpha", "beta", "gamma"]);
}

/// A control-plane node and a worker that are off over the drop come back by the former authority.
fn one_was_off(all: &[&TestNode; 4]) {
    let [alpha, beta, gamma, delta] = all;
    gamma.skiff(&["stop"]).must();
    delta.skiff(&["stop"]).must();
    let said = alpha.skiff(&["certs", "rotate", "--authorities", "--no-wait"]);
    assert!(said.ok(), "{said:?}");
    eventually("two are missed", BOUND, || {
        let shown = rotation(alpha).ok_or("it is over")?;
        let missing = shown.nodes.iter().filter(|node| !node.done).map(|node| &*node.name);
        let missing: Vec<_> = missing.collect();
        if missing == ["delta", "gamma"] { Ok(()) } else { Err(format!("{missing:?}")) }
    });
    assert_position(alpha, "both-old");
    let without = ["certs", "rotate", "--authorities", "--without", "gamma", "--without", "delta"];
    alpha.skiff(&without).must();
    rotate(alpha, &["--authorities", "--finish", "--yes"]);
    assert!(rotation(alpha).is_none());
    let name = issuers(alpha)[0].clone();
    for node in [gamma, delta] {
        node.start();
        eventually(&format!("{} has come back", node.name()), BOUND, || {
            let found = issuers(node);
            if found.first() == Some(&name) && found.len() <= 2 {
                Ok(())
            } else {
                Err(format!("{found:?}"))
            }
        });
        wait_ready(alpha, node.name(), BOUND);
    }
    settle(alpha, &["alpha", "beta", "gamma"]);
    assert_eq!(read(gamma, "pki/ca.crt"), read(alpha, "pki/ca.crt"));
    assert_eq!(read(delta, "pki/ca.crt"), read(alpha, "pki/ca.crt"));
    assert!(beta.skiff(&["certs", "status"]).ok());
    // Its own API server signs and believes as the others do.
    Person::new(gamma, "by-gamma").must_reach(alpha);
}

fn timed(what: &str, step: impl FnOnce()) {
    let begun = Instant::now();
    step();
    println!("{what}: {:.0} s", begun.elapsed().as_secs_f64());
}

/// Says it and waits as the command does.
#[track_caller]
fn rotate(on: &TestNode, args: &[&str]) {
    let begun = Instant::now();
    let said = on.skiff(&[&["certs", "rotate"], args].concat());
    assert!(said.ok(), "{said:?}");
    println!("{args:?}: {:.0} s: {}", begun.elapsed().as_secs_f64(), said.stderr.trim());
}

#[track_caller]
fn wait_until_held(on: &TestNode) {
    eventually("every node is there", BOUND, || match rotation(on) {
        Some(shown) if shown.held_until.is_some() => Ok(()),
        other => Err(format!("{other:?}")),
    });
}

/// Asks the API all the time by the way that every client on these nodes has.
#[track_caller]
fn while_asked(on: &[&TestNode], act: impl FnOnce()) {
    let is_over = AtomicBool::new(false);
    let away = std::thread::scope(|scope| {
        let is_over = &is_over;
        let ask = |node| scope.spawn(move || ask_all_the_time(node, is_over));
        let asking: Vec<_> = on.iter().copied().map(ask).collect();
        let acted = std::panic::catch_unwind(std::panic::AssertUnwindSafe(act));
        is_over.store(true, Ordering::Relaxed);
        let away: Vec<_> = asking.into_iter().map(|asking| asking.join().unwrap()).collect();
        acted.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        away
    });
    for (node, (asked, failed, longest)) in on.iter().zip(away) {
        println!("{}: {asked} asked, {} failed, {longest:?} away", node.name(), failed.len());
        assert!(longest < AWAY_MAX, "{}: {failed:?}", node.name());
        let words = ["certificate", "Unauthorized", "401", "403", "unknown"];
        let refused = failed.iter().find(|why| words.iter().any(|word| why.contains(word)));
        assert_eq!(refused, None, "nobody is refused");
    }
}

/// How often, what failed, and the longest time without an answer.
fn ask_all_the_time(node: &TestNode, is_over: &AtomicBool) -> (usize, Vec<String>, Duration) {
    let url = "https://127.0.0.1:6444/api/v1/namespaces/default/configmaps";
    let pem = node.root().join("node/admin.pem");
    let (mut asked, mut failed, mut longest) = (0, vec![], Duration::ZERO);
    let mut answered = Instant::now();
    while !is_over.load(Ordering::Relaxed) {
        let outcome = run(curl(node, &pem).args(["--fail", "--output", "/dev/null", url]));
        asked += 1;
        longest = longest.max(answered.elapsed());
        match outcome.ok() {
            true => answered = Instant::now(),
            false => failed.push(outcome.stderr),
        }
        std::thread::sleep(PAUSE);
    }
    (asked, failed, longest)
}

/// Everybody has the new ones alone, and nobody believes the old one.
#[track_caller]
fn is_over(all: &[&TestNode], name: &str, before: &Person) {
    for node in all {
        eventually(&format!("{} has one set", node.name()), BOUND, || {
            let believed = read(node, "pki/ca.crt");
            let count = believed.matches("BEGIN CERTIFICATE").count();
            let next = node.root().join("pki/next").exists();
            if count == 1 && !next { Ok(()) } else { Err(format!("{count} {next}")) }
        });
        let found = issuers(node);
        assert!(found.iter().all(|issuer| issuer == name || issuer.contains("front")), "{found:?}");
        wait_ready(all[0], node.name(), BOUND);
    }
    for node in &all[..3] {
        before.must_be_refused(node, BOUND);
    }
    let well = nodes(all[0]).expect("it lists the nodes");
    assert_eq!(well.len(), all.len());
}

/// The pod that was there all the time was never told that it is not believed, nor believed nobody.
#[track_caller]
fn assert_never_refused(on: &TestNode) {
    let logs = on.kubectl(&["logs", "caller", "--tail=-1"]).must();
    let failed: Vec<&str> = logs.lines().filter(|line| line.contains("error checking")).collect();
    let count = logs.matches("calling /healthz").count();
    println!("the pod: {count} calls, {} failed", failed.len());
    let refused = failed.iter().find(|line| {
        ["x509", "nauthorized", "provide credentials"].iter().any(|word| line.contains(word))
    });
    assert_eq!(refused, None, "nobody is refused");
    assert!(count > failed.len(), "{logs}");
}

#[track_caller]
fn assert_position(node: &TestNode, position: &str) {
    let shown = rotation(node).expect("it is under way");
    assert_eq!(shown.position, position, "{shown:?}");
}

#[track_caller]
fn assert_issuers(all: &[&TestNode; 4], names: [&str; 2]) {
    for node in &all[..3] {
        assert_eq!(issuers(node), names, "{}", node.name());
    }
    assert_eq!(issuers(all[3]), names[..1], "{}", all[3].name());
}

fn read(node: &TestNode, file: &str) -> String {
    fs::read_to_string(node.root().join(file)).unwrap_or_default()
}
