//! The protocol of a cluster under everything that goes wrong: production's desks, decisions,
//! messages, tokens and certificates, on a network, disks, clocks and a replicated record that a seed
//! decides. See `docs/design/2026-11-27-cluster-simulation.md`.
//!
//! `SKIFF_TEST_SEED=7 cargo test -p microcluster --test protocol one_history -- --ignored --nocapture`
//! repeats the history of seed 7; `SKIFF_TEST_TRACE=1` tells all that happens.
#![allow(clippy::unwrap_used)] // a test that panics says where

#[allow(dead_code)] // shared with other simulations
#[path = "../../../tests/history/src/chance.rs"]
mod chance;
mod daemon;
mod executor;
mod faults;
mod figures;
mod form;
mod history;
mod join;
mod keys;
mod leaf;
mod leave;
mod ledger;
mod links;
mod machine;
mod people;
mod plant;
mod promises;
mod runs;
mod store;
mod trace;
mod world;

use std::time::Instant;

use history::{Judgement, run};
use plant::Plant;
use runs::{Sums, from_environment, names, run_all, told};

/// Histories in the short form.
const HISTORIES: u64 = 60;
/// Seeds within which a planted bug must be found.
const SEEDS_PER_PLANT: u64 = 150;
/// So many histories that somebody has died at each step.
const HISTORIES_FOR_STEPS: u64 = 40;

fn is_good(judgement: &Judgement) -> bool {
    judgement.broken.is_empty()
}

#[test]
fn every_history_keeps_every_promise() {
    let count = from_environment("SKIFF_TEST_HISTORIES").unwrap_or(HISTORIES);
    let first = from_environment("SKIFF_TEST_SEED").unwrap_or(1);
    let began = Instant::now();
    let runs = run_all(first..first + count, None, |run| !is_good(run));
    let bad: Vec<&Judgement> = runs.iter().filter(|run| !is_good(run)).collect();
    bad.iter().for_each(|run| println!("{}", told(run, None)));
    let sums = Sums::of(&runs, began);
    println!("{sums}");
    assert!(bad.is_empty(), "{} histories broke a promise", bad.len());
    let of = |name: &str| sums.counts.get(name).copied().unwrap_or_default();
    assert!(of("joins done") * 8 > of("joins begun"), "most joins fail: nothing is tried");
    if count >= HISTORIES_FOR_STEPS {
        for what in [
            "collisions",
            "unknown outcomes",
            "changes made late",
            "renewals",
            "replays",
            "leaves done",
        ] {
            assert!(of(what) > 0, "there were no {what}");
        }
        println!("{:?}", sums.steps);
    }
}

#[test]
fn one_seed_gives_one_history() {
    for seed in 1..=8 {
        let (first, second) = (run(seed, None, false), run(seed, None, false));
        assert_eq!(first.digest, second.digest, "seed {seed}");
        assert_ne!(first.digest, 0, "seed {seed}");
    }
}

#[test]
fn planted_bugs_are_found() {
    let mut missed = Vec::new();
    for (name, plant) in Plant::ALL {
        let runs = run_all(1..SEEDS_PER_PLANT, Some(plant), |run| !is_good(run));
        match runs.iter().find(|run| !is_good(run)) {
            Some(found) => println!("{name}: {} seeds, {}", runs.len(), names(found).join(", ")),
            None => missed.push(name),
        }
    }
    assert!(missed.is_empty(), "not found: {}", missed.join(", "));
}

/// One history, to look at.
#[test]
#[ignore = "it is for looking at the history of one seed"]
fn one_history() {
    let seed = from_environment("SKIFF_TEST_SEED").unwrap_or(1);
    let name = std::env::var("SKIFF_TEST_PLANT").ok();
    let plant = name.as_ref().map(|name| Plant::named(name).expect("a planted bug of that name"));
    let judgement = run(seed, plant, std::env::var_os("SKIFF_TEST_TRACE").is_some());
    print!("{}", judgement.words);
    let Judgement { digest, machines, .. } = judgement;
    println!("seed {seed}: {machines} machines, digest {digest:016x}");
    assert!(is_good(&judgement), "{}", told(&judgement, name.as_deref()));
}
