//! Random requests to our datastore and to a real etcd: every answer equal,
//! field by field, revisions included.
//!
//! The short form runs in every test run. `SKIFF_TEST_DIFFERENTIAL=full` runs
//! the long one, `SKIFF_TEST_SEED=N` runs the cases of one seed again, and
//! `SKIFF_TEST_CASES=N` says how many.
#![allow(clippy::unwrap_used)] // a test that panics says where

mod action;
mod compare;
mod lies;
mod ours;
mod peer;
mod side;
mod watching;
mod world;

use std::hash::{BuildHasher, RandomState};

use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};

use action::Action;
use lies::Lie;
use world::World;

/// Cases of the short form.
const CASES_SHORT: u32 = 96;
/// Cases of the long form.
const CASES_FULL: u32 = 10_000;

/// How many run side by side in the long form: a case mostly waits.
const WORKERS_FULL: u32 = 4;

/// Lies of the short form.
const LIES_SHORT: usize = 2;
/// Requests that a lie is boiled down to, from up to 60. Two to six would do,
/// but none is left out any more once others have been made smaller.
const LIE_REQUESTS_MAX: usize = 12;
/// What boiling a failed case down may take.
const SHRINK_MS_MAX: u32 = 40_000;

fn is_full() -> bool {
    std::env::var("SKIFF_TEST_DIFFERENTIAL").is_ok_and(|form| form == "full")
}

fn number_from(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is a number, not {text:?}")))
}

/// Runs cases until one fails; the shortest that fails, with its reason.
fn run(seed: u64, cases: u32, lie: Option<Lie>) -> Result<(), TestError<Vec<Action>>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let config = Config {
        cases,
        failure_persistence: None,
        max_shrink_iters: 400,
        max_shrink_time: SHRINK_MS_MAX,
        ..Config::default()
    };
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(config, rng);
    let world = std::cell::RefCell::new(None);
    let result = runner.run(&action::history(), |actions| {
        runtime.block_on(async {
            // After a difference the two go separate ways: the next case
            // begins with new ones.
            let mut at_hand = match world.take() {
                Some(world) => world,
                None => World::start(lie).await,
            };
            let result = at_hand.run(&actions).await;
            // A lie changes only what is told: both are still in step.
            if result.is_ok() || lie.is_some() {
                world.replace(Some(at_hand));
            }
            result.map_err(TestCaseError::fail)
        })
    });
    if let Some(world) = world.take() {
        runtime.block_on(world.stop());
    }
    result
}

#[test]
fn random_requests_are_answered_as_etcd_answers_them() {
    if peer::program("etcd").is_none() {
        println!("skipped: etcd is not built: cargo xtask components --test");
        return;
    }
    let (usual, mut workers) =
        if is_full() { (CASES_FULL, WORKERS_FULL) } else { (CASES_SHORT, 1) };
    let cases = number_from("SKIFF_TEST_CASES").map_or(usual, |cases| cases as u32);
    let given = number_from("SKIFF_TEST_SEED");
    if given.is_some() {
        // Each has a seed of its own.
        workers = 1;
    }
    let first = given.unwrap_or_else(|| RandomState::new().hash_one(std::process::id()) >> 1);
    let run_one = |worker: u32| {
        let (seed, cases) = (first + u64::from(worker), cases.div_ceil(workers));
        println!("SKIFF_TEST_SEED={seed}, {cases} cases");
        run(seed, cases, None).map_err(|error| format!("SKIFF_TEST_SEED={seed}: {error}"))
    };
    let failed: Vec<String> = std::thread::scope(|scope| {
        let running: Vec<_> =
            (0..workers).map(|worker| scope.spawn(move || run_one(worker))).collect();
        running.into_iter().filter_map(|one| one.join().unwrap().err()).collect()
    });
    assert!(failed.is_empty(), "{}", failed.join("\n\n"));
}

/// The test is worth what it finds: each of these lies is small, and told
/// seldom, and must be found and boiled down to a few requests.
#[test]
fn a_datastore_that_lies_is_found_out() {
    if peer::program("etcd").is_none() {
        println!("skipped: etcd is not built: cargo xtask components --test");
        return;
    }
    let lies = if is_full() { &Lie::ALL[..] } else { &Lie::ALL[..LIES_SHORT] };
    for lie in lies.iter().copied() {
        let found = run(7, 2000, Some(lie));
        let Err(TestError::Fail(reason, actions)) = found else {
            panic!("{lie:?} was not found out: {found:?}");
        };
        println!("{lie:?} was found out by {} requests: {reason}", actions.len());
        assert!(actions.len() <= LIE_REQUESTS_MAX, "{lie:?}: {actions:#?}");
    }
}

/// Time goes by here, so this is no part of the random cases.
#[tokio::test]
async fn a_lease_that_ends_takes_its_keys_in_one_revision_as_in_etcd() {
    if peer::program("etcd").is_none() {
        println!("skipped: etcd is not built: cargo xtask components --test");
        return;
    }
    let mut world = World::start(None).await;
    let expiry = action::expiry();
    world.run(&expiry).await.unwrap();
    world.stop().await;
}
