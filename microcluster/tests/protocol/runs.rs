//! Many histories, one a thread at a time: nothing of one is in another.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::history::{Judgement, run};
use super::plant::Plant;

/// A number from the environment.
pub fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Runs the histories of many seeds, as many at a time as there are cores, until one is enough.
pub fn run_all(
    seeds: Range<u64>,
    plant: Option<Plant>,
    is_enough: impl Fn(&Judgement) -> bool + Sync,
) -> Vec<Judgement> {
    let (next, enough) = (AtomicU64::new(seeds.start), AtomicBool::new(false));
    let runs = Mutex::new(Vec::new());
    let work = || {
        while !enough.load(Ordering::SeqCst) {
            let seed = next.fetch_add(1, Ordering::SeqCst);
            if seed >= seeds.end {
                return;
            }
            let judgement = run(seed, plant, false);
            if is_enough(&judgement) {
                enough.store(true, Ordering::SeqCst);
            }
            runs.lock().unwrap().push(judgement);
        }
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| (0..cores).for_each(|_| drop(scope.spawn(work))));
    let mut runs = runs.into_inner().unwrap();
    runs.sort_by_key(|judgement| judgement.seed);
    runs
}

/// The promises that were broken, once each.
pub fn names(judgement: &Judgement) -> Vec<String> {
    let name = |text: &String| text.split(':').next().unwrap_or_default().to_owned();
    let mut names: Vec<String> = judgement.broken.iter().map(name).collect();
    names.sort();
    names.dedup();
    names
}

/// What broke, and how to see it again.
pub fn told(judgement: &Judgement, plant: Option<&str>) -> String {
    let mut text = format!("seed {} broke {}\n", judgement.seed, names(judgement).join(", "));
    for broken in judgement.broken.iter().take(6) {
        text += &format!("  {broken}\n");
    }
    let plant = plant.map_or(String::new(), |name| format!("SKIFF_TEST_PLANT={name} "));
    text += &format!(
        "  again: SKIFF_TEST_SEED={} {plant}SKIFF_TEST_TRACE=1 cargo test -p microcluster --test protocol \
         one_history -- --ignored --nocapture",
        judgement.seed
    );
    text
}

/// What many histories came to.
pub struct Sums {
    pub histories: usize,
    pub took: Duration,
    pub counts: BTreeMap<&'static str, u64>,
    pub steps: BTreeMap<&'static str, u64>,
    largest: usize,
    hours: u64,
}

impl Sums {
    pub fn of(runs: &[Judgement], began: Instant) -> Self {
        let mut counts: BTreeMap<&'static str, u64> = BTreeMap::new();
        let mut steps: BTreeMap<&'static str, u64> = BTreeMap::new();
        for run in runs {
            let load = run.load;
            let of_record = [
                ("messages", run.messages),
                ("changes", load.writes),
                ("collisions", load.collisions),
                ("unknown outcomes", load.unknown),
                ("changes made late", load.late),
                ("leaders gone", load.leaders),
            ];
            let all = run.counts.iter().map(|(name, count)| (*name, *count)).chain(of_record);
            all.for_each(|(name, count)| *counts.entry(name).or_default() += count);
            for (step, count) in &run.steps {
                *steps.entry(step).or_default() += count;
            }
        }
        let simulated_us = runs.iter().map(|run| run.simulated_us).sum::<u64>();
        Self {
            histories: runs.len(),
            took: began.elapsed(),
            counts,
            steps,
            largest: runs.iter().map(|run| run.machines).max().unwrap_or_default(),
            hours: simulated_us / 3_600_000_000,
        }
    }
}

impl fmt::Display for Sums {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.took.as_secs_f64().max(0.001);
        writeln!(
            f,
            "{} histories in {seconds:.1} s, {:.1} a second; {} h simulated, up to {} machines",
            self.histories,
            self.histories as f64 / seconds,
            self.hours,
            self.largest
        )?;
        for (name, count) in &self.counts {
            write!(f, "{count} {name}, ")?;
        }
        write!(f, "{} deaths at {} steps", self.steps.values().sum::<u64>(), self.steps.len())
    }
}
