//! Starting, watching and ending one daemon's processes.

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal, waitid,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::cgroup::{CgroupError, Cgroups, Mode};
use crate::event::Run;
use crate::output;
use crate::process::{self, Identity};
use crate::spec::{DaemonName, DaemonSpec, StopSignal};
use crate::status::Exit;

/// Environment variable that every process of a daemon carries: `<supervisor>/<daemon>`.
pub const MARKER: &str = "SKIFF_DAEMON";

#[derive(Debug, thiserror::Error)]
pub(crate) enum LaunchError {
    #[error("its control group cannot be made")]
    Cgroup(#[from] CgroupError),
    #[error("its log {} cannot be opened", path.display())]
    Log { path: PathBuf, source: io::Error },
    #[error("{program} cannot be executed")]
    Execute { program: String, source: io::Error },
    #[error("its process cannot be watched")]
    Watch(#[source] io::Error),
}

/// How all daemons of a node are started.
#[derive(Clone, Debug)]
pub(crate) struct Launcher {
    /// Program and first arguments that confine what follows them.
    pub(crate) command: Vec<String>,
    pub(crate) cgroups: Cgroups,
    /// Names this supervisor among others on the machine, in markers.
    pub(crate) instance: String,
}

/// A daemon's process, ours or adopted.
#[derive(Clone, Debug)]
pub(crate) struct Live {
    pub(crate) run: Run,
    pub(crate) identity: Identity,
    pub(crate) descriptor: Arc<OwnedFd>,
}

/// Everything by which the processes of one daemon are known.
#[derive(Clone, Debug)]
pub(crate) struct Territory {
    pub(crate) name: DaemonName,
    /// The group of the specification, and the one that an adopted process is in.
    pub(crate) cgroups: Vec<String>,
    pub(crate) survivors: Vec<String>,
}

impl Launcher {
    pub(crate) fn start(
        &self,
        spec: &DaemonSpec,
        cgroup: &str,
        run: Run,
    ) -> Result<Live, LaunchError> {
        // A new group counts from zero; one that survivors are in stays as it is.
        let _ = self.cgroups.remove(cgroup);
        let marker = format!("{}/{}", self.instance, spec.name);
        let mut profile = spec.profile.clone();
        profile.environment.extend(spec.env.iter().cloned());
        profile.environment.push((MARKER.into(), marker.clone()));
        profile.cgroups = self.cgroups.ensure(cgroup)?;
        let failed = |source| LaunchError::Log { path: spec.log.path.clone(), source };
        let log = output::open(&spec.log).map_err(failed)?;
        let errors = log.try_clone().map_err(failed)?;
        let (program, first) = self.command.split_first().expect("start refuses an empty launcher");
        let child = Command::new(program)
            .args(first)
            .arg("--profile")
            .arg(serde_json::to_string(&profile).expect("a profile is plain data"))
            .arg("--")
            .arg(&spec.program)
            .args(&spec.args)
            .env_clear()
            .env(MARKER, marker)
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            .spawn()
            .map_err(|source| LaunchError::Execute { program: program.clone(), source })?;
        // Its exit is waited for by descriptor; until then the process id stays taken.
        Live::watch(child.id(), run).map_err(LaunchError::Watch)
    }

    /// Living processes of the daemon, survivors excepted.
    pub(crate) fn processes(&self, territory: &Territory) -> Vec<u32> {
        let mut found: Vec<u32> =
            territory.cgroups.iter().flat_map(|path| self.cgroups.processes(path)).collect();
        found.extend(self.marked(&territory.name));
        found.sort_unstable();
        found.dedup();
        found.retain(|pid| !process::descends_from(*pid, &territory.survivors));
        found
    }

    fn marked(&self, name: &DaemonName) -> Vec<u32> {
        let prefix = format!("{}/", self.instance);
        let marked = process::marked(MARKER, &prefix).into_iter();
        marked.filter(|(_, of)| of == name.as_str()).map(|(pid, _)| pid).collect()
    }

    /// Those whose use is counted: by group where there are groups, which costs less.
    pub(crate) fn counted(&self, territory: &Territory) -> Vec<u32> {
        match (self.cgroups.mode(), territory.cgroups.first()) {
            (Mode::V1 | Mode::V2, Some(path)) => self.cgroups.processes(path),
            _ => self.processes(territory),
        }
    }

    /// Kills whatever is alive now; what is forked meanwhile is left for the next look.
    pub(crate) fn kill(&self, territory: &Territory) -> usize {
        let alive = self.processes(territory);
        for pid in &alive {
            process::kill(*pid);
        }
        alive.len()
    }

    /// Kills until nothing is left, then removes the groups.
    pub(crate) async fn clear(&self, territory: &Territory) {
        const FIRST: Duration = Duration::from_millis(2);
        const LAST: Duration = Duration::from_secs(1);
        let mut wait = FIRST;
        while self.kill(territory) > 0 {
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(LAST);
        }
        for path in &territory.cgroups {
            // Survivors keep it busy: then it stays.
            let _ = self.cgroups.remove(path);
        }
    }
}

impl Live {
    /// The process must be a child, or its identity be checked after this.
    pub(crate) fn watch(pid: u32, run: Run) -> io::Result<Self> {
        let raw = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::NotFound)?;
        let descriptor = Arc::new(pidfd_open(raw, PidfdFlags::empty())?);
        Ok(Self { run, identity: Identity::of(pid)?, descriptor })
    }

    /// By descriptor, so that it can reach nobody else.
    pub(crate) fn signal(&self, signal: Signal) {
        // It may have ended just now, which is what was asked for.
        let _ = pidfd_send_signal(&self.descriptor, signal);
    }

    /// Waits until it has ended, and reaps it when it is a child.
    pub(crate) async fn exit(&self) -> Exit {
        #[expect(
            deprecated,
            reason = "its replacement is unsafe; this is sound since the shared descriptor is \
                      owned by what is registered and never replaced"
        )]
        let watched = AsyncFd::with_interest(Arc::clone(&self.descriptor), Interest::READABLE);
        if let Ok(watched) = watched {
            // Readable means ended; an error can only be that the runtime ends.
            let _ = watched.readable().await;
        }
        reap(&self.descriptor)
    }
}

fn reap(descriptor: &OwnedFd) -> Exit {
    use std::os::fd::AsFd;
    match waitid(WaitId::PidFd(descriptor.as_fd()), WaitIdOptions::EXITED) {
        Ok(Some(status)) => match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => Exit::Code(code),
            (None, Some(signal)) => Exit::Signal(signal),
            (None, None) => Exit::Unknown,
        },
        // Not our child.
        Ok(None) | Err(_) => Exit::Unknown,
    }
}

impl From<StopSignal> for Signal {
    fn from(signal: StopSignal) -> Self {
        match signal {
            StopSignal::Term => Self::TERM,
            StopSignal::Int => Self::INT,
            StopSignal::Quit => Self::QUIT,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where control groups may not be written, the marker alone tells who belongs to whom.
    #[tokio::test]
    async fn without_control_groups_the_marker_finds_everything_that_a_daemon_started() {
        let launcher = Launcher {
            command: vec!["/bin/false".into()],
            cgroups: Cgroups::unavailable(),
            instance: format!("test-{}", std::process::id()),
        };
        let territory = |name: &str| Territory {
            name: name.into(),
            cgroups: vec!["/none".into()],
            survivors: vec![],
        };
        let mut child = Command::new("/bin/sh")
            .args(["-c", "setsid sleep 600 & exec sleep 600"])
            .env(MARKER, format!("{}/a", launcher.instance))
            .spawn()
            .expect("a shell can be started");
        while launcher.processes(&territory("a")).len() < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(launcher.processes(&territory("b")), Vec::<u32>::new());
        launcher.clear(&territory("a")).await;
        assert_eq!(launcher.processes(&territory("a")), Vec::<u32>::new());
        child.wait().expect("reaped");
    }
}
