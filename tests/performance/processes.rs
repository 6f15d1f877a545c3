//! The peer's processes: started into control groups like those of our daemons, and ended.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Error, Result, anyhow};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use skiff::daemons::Context;
use skiff_supervisor::cgroup::Cgroups;
use tokio::time::sleep;

/// How long a process may take to end after SIGTERM.
const STOP_BOUND: Duration = Duration::from_secs(10);
/// Between two looks at whether a process has ended.
const LOOK_PAUSE: Duration = Duration::from_millis(50);

pub struct Processes {
    running: Mutex<Vec<(&'static str, Child)>>,
    cgroups: Cgroups,
    /// Of the node: `/skiff-0123abcd`.
    cgroup: String,
    logs: PathBuf,
    path_variable: String,
}

impl Processes {
    pub fn new(context: &Context) -> Self {
        let cgroups = Cgroups::detect();
        // Where the configuration of containerd puts the shims.
        if let Err(error) = cgroups.ensure(&format!("{}/shim", context.cgroup)) {
            eprintln!("no control group for the shims: {error}");
        }
        Self {
            running: Mutex::default(),
            cgroups,
            cgroup: context.cgroup.clone(),
            logs: context.paths.log(),
            path_variable: context.path_variable(),
        }
    }

    /// Starts one in the caller's network namespace, out of reach of the terminal's Ctrl-C.
    pub fn start(&self, name: &'static str, mut command: Command) -> Result<()> {
        let log = self.logs.join(format!("{name}.log"));
        let file = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let child = command
            .env_clear()
            .env("PATH", &self.path_variable)
            .current_dir("/")
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        let pid = child.id().to_string();
        self.lock().push((name, child));
        for procs in self.cgroups.ensure(&format!("{}/daemon/{name}", self.cgroup))? {
            fs::write(&procs, &pid)
                .with_context(|| format!("{name} cannot join {}", procs.display()))?;
        }
        Ok(())
    }

    /// Returns when one of them has ended, which none should.
    pub async fn first_end(&self) -> Error {
        loop {
            for (name, child) in self.lock().iter_mut() {
                if let Ok(Some(status)) = child.try_wait() {
                    let log = fs::read_to_string(self.logs.join(format!("{name}.log")));
                    let log = log.unwrap_or_default();
                    let last = log.lines().rev().take(5).collect::<Vec<_>>();
                    let last: Vec<_> = last.into_iter().rev().collect();
                    return anyhow!("{name} ended ({status})\n{}", last.join("\n"));
                }
            }
            sleep(LOOK_PAUSE).await;
        }
    }

    pub fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    pub fn stop(&self, name: &str) {
        let position = self.lock().iter().position(|(other, _)| *other == name);
        if let Some(position) = position {
            let (_, child) = self.lock().remove(position);
            end(child);
        }
    }

    /// The last that was started first.
    pub fn stop_all(&self) {
        while let Some((_, child)) = { self.lock().pop() } {
            end(child);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<(&'static str, Child)>> {
        // A holder that panicked left a list that is whole: each change is one push or removal.
        self.running.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// SIGTERM, and SIGKILL for what does not listen.
fn end(mut child: Child) {
    let Ok(pid) = i32::try_from(child.id()) else { return };
    let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
    let begun = Instant::now();
    while begun.elapsed() < STOP_BOUND {
        if !matches!(child.try_wait(), Ok(None)) {
            return;
        }
        std::thread::sleep(LOOK_PAUSE);
    }
    let _ = child.kill();
    let _ = child.wait();
}
