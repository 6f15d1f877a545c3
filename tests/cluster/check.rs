//! Joins that could not work: each is refused with its reason before anything has changed, on
//! either side.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use harness::{
    Inventory, Network, NodeOptions, Outcome, TestNode, cannot_run_nodes, run, skiff_binary,
};

use crate::place::{READY_TIMEOUT, add_node, assert_untouched, control_plane, join, state_of};

#[test]
fn a_join_that_could_not_work_is_refused_before_anything_has_changed() {
    if cannot_run_nodes() {
        return;
    }
    let network = Network::new();
    let alpha = control_plane(&network, "alpha");
    let beta = TestNode::new(&network, "beta", &NodeOptions::default());
    let line = add_node(&alpha, &[]);
    let tokens = tokens(&alpha);
    let refused = |outcome: &Outcome, reason: &str, hint: &str| {
        assert_eq!(outcome.code, 1, "{}", outcome.stderr);
        assert!(unfolded(outcome).contains(reason), "{}", outcome.stderr);
        let hints = outcome.stderr.lines().any(|l| l.starts_with("hint: ") && l.contains(hint));
        assert!(hints, "{}", outcome.stderr);
        assert_untouched(&beta);
        assert_eq!(self::tokens(&alpha), tokens, "the refused join has cost something");
    };

    // What is between the machines.
    filter(&beta, Some("tcp dport 10250 drop"));
    let outcome = join(&beta, &line);
    filter(&beta, None);
    refused(&outcome, "cannot reach TCP port 10250 at", "let TCP 10250 in");
    filter(&beta, Some("tcp dport 10250 reject with tcp reset"));
    let outcome = join(&beta, &line);
    filter(&beta, None);
    refused(&outcome, "the connection is refused", "let TCP 10250 in");
    filter(&alpha, Some("iifname eth0 tcp dport 6443 drop"));
    let outcome = join(&beta, &line);
    filter(&alpha, None);
    refused(&outcome, "no API server of the cluster can be reached", "its kubelet needs that port");

    // What the machine is.
    let route = ["route", "add", "10.1.7.0/24", "dev", "eth0"];
    run(beta.command("ip").args(route)).must();
    let outcome = join(&beta, &line);
    run(beta.command("ip").args(["route", "delete", "10.1.7.0/24"])).must();
    refused(&outcome, "sends 10.1.7.0/24 by its link eth0", "ip route delete 10.1.7.0/24");
    for (config, reason, hint) in [
        ("[node]\nname = \"alpha\"\n".to_owned(), "there is a node alpha", "`node.name`"),
        (
            format!("[node]\nname = \"beta\"\naddress = \"{}\"\n", alpha.address()),
            "is the address of alpha",
            "`node.address`",
        ),
        (
            "[node]\nname = \"beta\"\n[network]\npod-cidr = \"10.9.0.0/16\"\n".to_owned(),
            "network.pod-cidr is 10.9.0.0/16 there",
            "take it out",
        ),
        // Nobody is at that address, and so this machine is not.
        (
            "[node]\nname = \"beta\"\naddress = \"10.77.0.200\"\n".to_owned(),
            "cannot reach TCP port 10250 at 10.77.0.200",
            "the request came from 10.77.0.2",
        ),
    ] {
        configure(&beta, &config);
        refused(&join(&beta, &line), reason, hint);
    }
    configure(&beta, "[node]\nname = \"beta\"\n");
    for (seconds, words) in [(11_000, "3 h"), (-930, "15 min"), (800 * 86_400 + 60, "800 days")] {
        let outcome = join_with_clock(&beta, &line, seconds);
        refused(&outcome, &format!("is {words} off"), "timedatectl");
    }

    a_join_that_takes_too_long_leaves_its_logs(&alpha, &beta, &line);
    // Nothing of all that has spoilt the token.
    join(&beta, &line).must();
    beta.skiff(&["reset", "--yes"]).must();
    assert_untouched(&beta);

    // A cluster that is another one by now, at the same address.
    let old = add_node(&alpha, &[]);
    alpha.skiff(&["reset", "--yes"]).must();
    alpha.start();
    add_node(&alpha, &[]);
    let outcome = join(&beta, &old);
    assert_eq!(outcome.code, 1, "{}", outcome.stderr);
    let reason = "its certificate is not of this cluster's authority";
    assert!(unfolded(&outcome).contains(reason), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("hint: is the token of this cluster?"), "{}", outcome.stderr);
    assert_untouched(&beta);
}

/// It is taken back, and says where the reasons are.
fn a_join_that_takes_too_long_leaves_its_logs(alpha: &TestNode, beta: &TestNode, line: &[String]) {
    let mut args: Vec<&str> = line.iter().map(String::as_str).collect();
    args.extend(["--timeout", "1"]);
    let outcome = beta.skiff(&args);
    assert_eq!(outcome.code, 1, "{}", outcome.stderr);
    let kept = beta.root().join("failed-join");
    let said = unfolded(&outcome);
    assert!(said.contains("the join was taken back"), "{said}");
    assert!(said.contains(&kept.display().to_string()), "{said}");
    let log = fs::read_to_string(kept.join("skiffd.log")).expect("skiffd's log");
    assert!(log.contains("\"level\""), "{log}");
    assert_eq!(beta.inventory(), Inventory::default());
    assert_eq!(state_of(alpha, "beta"), None);
}

/// What was said, without the ends of lines.
fn unfolded(outcome: &Outcome) -> String {
    outcome.stderr.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// What the cluster has of its tokens.
fn tokens(alpha: &TestNode) -> String {
    alpha.skiff(&["tokens", "list", "--output", "json"]).must()
}

fn configure(node: &TestNode, text: &str) {
    fs::write(node.root().join("skiff.toml"), text).expect("the configuration is written");
}

/// Sets the one rule of a packet filter that somebody put on the machine, or takes it away.
#[track_caller]
fn filter(node: &TestNode, rule: Option<&str>) {
    let script = match rule {
        Some(rule) => format!(
            "add table inet wall; add chain inet wall in {{ type filter hook input priority 0; }}; \
             add rule inet wall in {rule}"
        ),
        None => "delete table inet wall".into(),
    };
    run(node.command("nft").arg(script)).must();
}

/// Types the line on a machine whose clock is that far off.
fn join_with_clock(node: &TestNode, line: &[String], seconds: i64) -> Outcome {
    let library = shifted_clock(node.root());
    let mut command = node.command(skiff_binary());
    command.args(line).args(["--timeout", READY_TIMEOUT]);
    command.env("LD_PRELOAD", &library).env("CLOCK_SHIFT_S", seconds.to_string());
    let outcome = run(&mut command);
    fs::remove_dir_all(library.parent().expect("it is in a directory")).expect("it goes");
    outcome
}

/// A library that shifts the clock of whoever loads it, and no timer.
fn shifted_clock(beside: &Path) -> PathBuf {
    const SOURCE: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <time.h>
int clock_gettime(clockid_t clock, struct timespec *now) {
    int (*real)(clockid_t, struct timespec *) = dlsym(RTLD_NEXT, "clock_gettime");
    int outcome = real(clock, now);
    if (outcome == 0 && clock == CLOCK_REALTIME) now->tv_sec += atol(getenv("CLOCK_SHIFT_S"));
    return outcome;
}
"#;
    let dir = beside.with_extension("clock");
    fs::create_dir_all(&dir).expect("a directory");
    let (source, library) = (dir.join("clock.c"), dir.join("clock.so"));
    fs::write(&source, SOURCE).expect("the source is written");
    let mut compiler = Command::new("cc");
    compiler.args(["-shared", "-fPIC", "-o"]).args([&library, &source]).arg("-ldl");
    run(&mut compiler).must();
    library
}
