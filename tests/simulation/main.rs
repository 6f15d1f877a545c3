//! Several members in one thread, over a network, disks, a clock and SQL
//! nodes that a seed decides. See `docs/design/2026-11-23-simulation.md`.
//!
//! `SKIFF_TEST_SEED=7 cargo test -p datastore-simulation one_history -- --ignored --nocapture`
//! repeats the history of seed 7; `SKIFF_TEST_TRACE=1` tells all that happens.
#![allow(clippy::unwrap_used)] // a test that panics says where

mod boat;
mod clients;
mod cluster;
mod faults;
mod history;
mod links;
mod network;
mod node;
mod plant;
mod raft;
mod runs;
mod schemes;
mod trace;
mod truth;
mod watchers;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use skiff_datastore::Database;
use skiff_datastore::store::sql::SqlStore;
use skiff_datastore::suite::{self, Place};
use tempfile::TempDir;

use cluster::Cluster;
use datastore_history::chance::Chance;
use links::Links;
use node::SimNode;
use plant::Plant;
use runs::{Run, from_environment, run_all, run_one};
use trace::Trace;

/// Histories in the short form.
const HISTORIES: u64 = 120;
/// Seeds within which a planted bug must be found.
const SEEDS_PER_PLANT: u64 = 150;

#[test]
fn every_history_keeps_every_promise() {
    let count = from_environment("SKIFF_TEST_HISTORIES").unwrap_or(HISTORIES);
    let first = from_environment("SKIFF_TEST_SEED").unwrap_or(1);
    let runs = run_all(first..first + count, None, |run| !run.is_good());
    let bad: Vec<&Run> = runs.iter().filter(|run| !run.is_good()).collect();
    bad.iter().for_each(|run| println!("{run}"));
    let sum = |of: fn(&Run) -> u64| runs.iter().map(of).sum::<u64>();
    println!(
        "{} histories: {} requests, {} of them answered, {} revisions, {} events",
        runs.len(),
        sum(|run| run.requests),
        sum(|run| run.answered),
        sum(|run| run.revisions),
        sum(|run| run.events),
    );
    assert!(bad.is_empty(), "{} histories broke a promise", bad.len());
    assert!(sum(|run| run.answered) * 2 > sum(|run| run.requests), "most requests fail");
}

#[test]
fn one_seed_gives_one_trace() {
    for seed in [1, 2, 3, 4, 5] {
        let (first, second) = (run_one(seed, None), run_one(seed, None));
        assert_eq!(first.digest, second.digest, "seed {seed}");
        assert_ne!(first.digest, 0, "seed {seed}: {first}");
    }
}

#[test]
fn planted_bugs_are_found() {
    for (name, _) in Plant::ALL {
        let runs = run_all(1..SEEDS_PER_PLANT, Some(name), |run| !run.is_good());
        let found = runs.iter().find(|run| !run.is_good());
        let found = found.unwrap_or_else(|| panic!("{name} is not found"));
        println!("{name}: seed {} of {}, {}", found.seed, runs.len(), found.names().join(", "));
    }
}

/// One history, in a process of its own: see `runs.rs`.
#[test]
#[ignore = "the other tests start this, one process a history"]
fn one_history() {
    let seed = from_environment("SKIFF_TEST_SEED").unwrap_or(1);
    let plant = std::env::var("SKIFF_TEST_PLANT").ok();
    let plant = plant.map(|name| Plant::named(&name).expect("a planted bug of that name"));
    dqlite::model::begin(seed);
    // A new thread has asked for no chance yet.
    let run = std::thread::spawn(move || history::run(seed, plant));
    let judgement = run.join().expect("a history is judged whatever happens");
    runs::report(seed, &judgement);
    assert!(judgement.broken.is_empty(), "seed {seed} broke a promise");
}

/// A modelled node without others, whose disk outlives its process.
struct Alone {
    cluster: Arc<Cluster>,
    dir: Arc<TempDir>,
}

impl Place for Alone {
    type Store = SqlStore;

    async fn open(&self) -> SqlStore {
        SqlStore::alone(self.node(None), Database::Kube).ending_node()
    }
}

impl Alone {
    fn new() -> Alone {
        let links = Arc::new(Links::new(Chance::new(1, 2)));
        let sole = Arc::new(BTreeMap::from([(1, dqlite::Role::Voter)]));
        let cluster = Cluster::start(sole, links, Chance::new(1, 3), None, Trace::begin());
        Alone { cluster, dir: Arc::new(TempDir::new().expect("a directory can be made")) }
    }

    fn node(&self, plant: Option<Plant>) -> Arc<SimNode> {
        let (_, killed) = self.cluster.boot(1);
        let dir: PathBuf = self.dir.path().to_owned();
        Arc::new(SimNode {
            cluster: self.cluster.clone(),
            id: 1,
            killed,
            dir,
            chance: Arc::new(Mutex::new(Chance::new(1, 1))),
            busy: 20,
            plant,
        })
    }

    /// Two writers of one store.
    fn rivals(&self, plant: Option<Plant>) -> [SqlStore; 2] {
        let node = self.node(plant);
        [(); 2].map(|()| SqlStore::alone(node.clone(), Database::Kube))
    }
}

/// The suite that libdqlite passes in `sql_suite.rs`.
#[tokio::test(start_paused = true)]
async fn modelled_nodes_pass_the_suite_of_dqlite() {
    suite::run_all(Alone::new).await;
    suite::a_writer_that_was_replaced_changes_nothing(Alone::new().rivals(None)).await;
}

#[tokio::test(start_paused = true)]
#[should_panic = "a row of a writer that was replaced"]
async fn a_store_without_the_guard_of_the_epoch_fails_the_suite() {
    let rivals = Alone::new().rivals(Some(Plant::SkipEpochGuard));
    suite::a_writer_that_was_replaced_changes_nothing(rivals).await;
}
