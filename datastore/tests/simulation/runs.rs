//! Histories in processes of their own: what a process does is decided by its
//! seed only when nothing has happened in it before.

use std::fmt;
use std::ops::Range;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use super::history::Judgement;

/// Begins the line that a history ends with.
const RESULT: &str = "simulation-result";

/// What a history reported.
#[derive(Clone, Debug, Default)]
pub struct Run {
    pub seed: u64,
    pub plant: Option<&'static str>,
    pub digest: u64,
    pub requests: u64,
    pub answered: u64,
    pub revisions: u64,
    pub events: u64,
    pub broken: Vec<String>,
}

impl Run {
    /// Whether every promise was kept.
    pub fn is_good(&self) -> bool {
        self.broken.is_empty()
    }

    /// The promises that were broken, once each.
    pub fn names(&self) -> Vec<String> {
        let name = |text: &String| text.split(':').next().unwrap_or_default().to_owned();
        let mut names: Vec<String> = self.broken.iter().map(name).collect();
        names.sort();
        names.dedup();
        names
    }
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {} broke {}", self.seed, self.names().join(", "))?;
        for text in self.broken.iter().take(8) {
            writeln!(f, "  {text}")?;
        }
        let plant = self.plant.map_or(String::new(), |name| format!("SIMULATION_PLANT={name} "));
        write!(
            f,
            "  again: SIMULATION_SEED={} {plant}SIMULATION_TRACE=1 cargo test -p skiff-datastore \
             --test simulation one_history -- --ignored --nocapture",
            self.seed
        )
    }
}

/// A number from the environment.
pub fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Says what came out, for the process that started this one.
pub fn report(seed: u64, judgement: &Judgement) {
    if std::env::var_os("SIMULATION_TRACE").is_some() {
        println!("{}", judgement.trace);
    }
    for text in &judgement.broken {
        println!("{RESULT} broken {}", text.replace('\n', " "));
    }
    let Judgement { digest, requests, answered, revisions, events, .. } = judgement;
    println!("{RESULT} {seed} {digest} {requests} {answered} {revisions} {events}");
}

/// Runs the history of one seed.
pub fn run_one(seed: u64, plant: Option<&'static str>) -> Run {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["one_history", "--exact", "--ignored", "--nocapture"]);
    command.env("SIMULATION_SEED", seed.to_string()).env_remove("SIMULATION_TRACE");
    match plant {
        Some(name) => command.env("SIMULATION_PLANT", name),
        None => command.env_remove("SIMULATION_PLANT"),
    };
    let output = command.output().unwrap();
    let mut run = Run { seed, plant, ..Run::default() };
    let text = String::from_utf8_lossy(&output.stdout);
    for line in text.lines().filter_map(|line| line.split_once(RESULT)).map(|(_, rest)| rest.trim()) {
        if let Some(broken) = line.strip_prefix("broken ") {
            run.broken.push(broken.to_owned());
            continue;
        }
        let numbers: Vec<u64> = line.split(' ').filter_map(|word| word.parse().ok()).collect();
        let [_, digest, requests, answered, revisions, events] = numbers[..] else { continue };
        (run.digest, run.requests, run.answered) = (digest, requests, answered);
        (run.revisions, run.events) = (revisions, events);
    }
    if run.digest == 0 {
        let error = String::from_utf8_lossy(&output.stderr);
        run.broken.push(format!("ends: {} {error}", output.status).replace('\n', " "));
    }
    run
}

/// Runs the histories of many seeds, as many at a time as there are cores,
/// until one is enough.
pub fn run_all(
    seeds: Range<u64>,
    plant: Option<&'static str>,
    is_enough: impl Fn(&Run) -> bool + Sync,
) -> Vec<Run> {
    let (next, enough) = (AtomicU64::new(seeds.start), AtomicBool::new(false));
    let runs = Mutex::new(Vec::new());
    let work = || {
        while !enough.load(Ordering::SeqCst) {
            let seed = next.fetch_add(1, Ordering::SeqCst);
            if seed >= seeds.end {
                return;
            }
            let run = run_one(seed, plant);
            if is_enough(&run) {
                enough.store(true, Ordering::SeqCst);
            }
            runs.lock().unwrap_or_else(PoisonError::into_inner).push(run);
        }
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| (0..cores).for_each(|_| drop(scope.spawn(work))));
    runs.into_inner().unwrap_or_else(PoisonError::into_inner)
}
