//! A load that creates and deletes config maps and pods, and remembers what was acknowledged.

use std::collections::BTreeSet;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use harness::{TestNode, eventually, run};

use crate::control_plane::curl;

const BOUND: Duration = Duration::from_secs(60);
/// Two cores carry three nodes: the load is there, and leaves them room.
const PAUSE: Duration = Duration::from_millis(200);
/// A pod lives for so many turns of the load.
const POD_TURNS: usize = 20;
const SERVER: &str = "https://127.0.0.1:6444/api/v1/namespaces/default";
const POD: &str = r#"{"terminationGracePeriodSeconds": 1, "containers": [{"name": "main",
    "image": "skiff.local/agnhost:1.36.3", "imagePullPolicy": "Never", "args": ["pause"]}]}"#;

/// What must be there, and what must not.
#[derive(Debug, Default)]
struct Known {
    there: BTreeSet<String>,
    gone: BTreeSet<String>,
}

/// The acknowledged writes of one load.
#[derive(Debug)]
pub struct Ledger {
    word: String,
    patience: Duration,
    known: Mutex<Known>,
}

impl Ledger {
    pub fn acknowledged(&self) -> usize {
        let known = self.known.lock().unwrap();
        known.there.len() + 2 * known.gone.len()
    }

    /// Asks that node for every config map that was acknowledged.
    #[track_caller]
    pub fn assert_all_there(&self, on: &TestNode) {
        // Before the list is asked for: what is acknowledged meanwhile is not in question. What
        // is remembered as there is never deleted.
        let (before, gone) = {
            let known = self.known.lock().unwrap();
            (known.there.clone(), known.gone.clone())
        };
        let found = eventually("the config maps are listed", BOUND, || {
            let outcome = on.kubectl(&["get", "configmaps", "--output", "name"]);
            if outcome.ok() { Ok(outcome.stdout) } else { Err(outcome.stderr) }
        });
        let found: BTreeSet<&str> =
            found.lines().filter_map(|line| line.strip_prefix("configmap/")).collect();
        let lost: Vec<_> = before.iter().filter(|name| !found.contains(&***name)).collect();
        let back: Vec<_> = gone.iter().filter(|name| found.contains(&***name)).collect();
        assert!(lost.is_empty(), "acknowledged, and lost: {lost:?}");
        assert!(back.is_empty(), "acknowledged as deleted, and there: {back:?}");
    }

    /// What failed is neither remembered as done nor as not done.
    fn is_acknowledged(&self, mut command: Command) -> bool {
        run(command.arg("--max-time").arg(self.patience.as_secs().to_string())).ok()
    }

    /// One turn: a config map comes, every other one goes again, a pod comes and an old one goes.
    fn turn(&self, on: &TestNode, turn: usize) {
        let name = format!("{}-{turn}", self.word);
        let object = format!(r#"{{"metadata":{{"name":"{name}"}}}}"#);
        if self.is_acknowledged(post(on, "configmaps", &object)) {
            if turn.is_multiple_of(2) {
                self.known.lock().unwrap().there.insert(name);
            } else if self.is_acknowledged(delete(on, "configmaps", &name)) {
                self.known.lock().unwrap().gone.insert(name);
            }
        }
        if turn.is_multiple_of(5) {
            let word = &self.word;
            let pod = format!(r#"{{"metadata":{{"name":"{word}-{turn}"}},"spec":{POD}}}"#);
            // Pods may be moved by the cluster itself: they are load, and nothing to remember.
            self.is_acknowledged(post(on, "pods", &pod));
            if let Some(old) = turn.checked_sub(POD_TURNS) {
                self.is_acknowledged(delete(on, "pods", &format!("{word}-{old}")));
            }
        }
    }
}

/// Does something while a load runs on that node; at the end all that was acknowledged is there.
#[track_caller]
pub fn under_load<T>(on: &TestNode, act: impl FnOnce(&Ledger) -> T) -> T {
    under_patient_load(on, Duration::from_secs(2), act)
}

/// The same with a client that waits so long for each answer.
#[track_caller]
pub fn under_patient_load<T>(
    on: &TestNode,
    patience: Duration,
    act: impl FnOnce(&Ledger) -> T,
) -> T {
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_millis();
    let ledger = Ledger { word: format!("load-{now}"), patience, known: Mutex::default() };
    let ended = AtomicBool::new(false);
    let answer = std::thread::scope(|scope| {
        let _end = EndOnDrop(&ended);
        scope.spawn(|| {
            for turn in 0.. {
                if ended.load(Ordering::Relaxed) {
                    return;
                }
                ledger.turn(on, turn);
                std::thread::sleep(PAUSE);
            }
        });
        act(&ledger)
    });
    assert!(ledger.acknowledged() > 0, "the load was never acknowledged");
    ledger.assert_all_there(on);
    on.kubectl(&["delete", "pods", "--selector=!app", "--wait=false"]).must();
    answer
}

/// The load ends also when the test fails in between.
struct EndOnDrop<'a>(&'a AtomicBool);

impl Drop for EndOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn post(on: &TestNode, kind: &str, object: &str) -> Command {
    let mut command = curl(on, &on.root().join("node/admin.pem"));
    command.args(["--fail", "--header", "Content-Type: application/json", "--data", object]);
    command.arg(format!("{SERVER}/{kind}"));
    command
}

fn delete(on: &TestNode, kind: &str, name: &str) -> Command {
    let mut command = curl(on, &on.root().join("node/admin.pem"));
    command.args(["--fail", "--request", "DELETE"]).arg(format!("{SERVER}/{kind}/{name}"));
    command
}
