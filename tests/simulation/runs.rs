//! Histories in processes of their own: what a process does is decided by its
//! seed only when nothing has happened in it before.

use std::fmt;
use std::io::Read;
use std::ops::Range;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::history::Judgement;

/// A history that takes longer than this, by the clock on the wall, hangs.
const HANG: Duration = Duration::from_secs(120);
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
        let plant = self.plant.map_or(String::new(), |name| format!("SKIFF_TEST_PLANT={name} "));
        write!(
            f,
            "  again: SKIFF_TEST_SEED={} {plant}SKIFF_TEST_TRACE=1 cargo test -p datastore-simulation \
             one_history -- --ignored --nocapture",
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
    if std::env::var_os("SKIFF_TEST_TRACE").is_some() {
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
    command.env("SKIFF_TEST_SEED", seed.to_string()).env_remove("SKIFF_TEST_TRACE");
    match plant {
        Some(name) => command.env("SKIFF_TEST_PLANT", name),
        None => command.env_remove("SKIFF_TEST_PLANT"),
    };
    let mut run = Run { seed, plant, ..Run::default() };
    let (text, end) = output(&mut command);
    for line in text.lines().filter_map(|line| line.split_once(RESULT)).map(|(_, rest)| rest.trim())
    {
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
        run.broken.push(format!("ends: {end}"));
    }
    run
}

/// What a process says, and how it ends; one that does not is killed.
fn output(command: &mut Command) -> (String, String) {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let reading = std::thread::spawn(move || {
        let mut text = String::new();
        stdout.read_to_string(&mut text).map(|_| text)
    });
    let began = Instant::now();
    let end = loop {
        match child.try_wait().unwrap() {
            Some(status) => break status.to_string(),
            None if began.elapsed() > HANG => {
                child.kill().unwrap();
                child.wait().unwrap();
                break "the history hangs".to_owned();
            }
            None => std::thread::sleep(Duration::from_millis(5)),
        }
    };
    (reading.join().unwrap().unwrap(), end)
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
    let mut runs = runs.into_inner().unwrap_or_else(PoisonError::into_inner);
    runs.sort_by_key(|run| run.seed);
    runs
}
