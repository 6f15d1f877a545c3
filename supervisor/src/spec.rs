//! What a daemon is: the program, what it needs, how one sees that it is well, how it ends.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use skiff_confine::{Profile, User};

use crate::probe::{Probe, ProbeTiming};

/// Name of a daemon: `datastore`, `kube-control`, …
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DaemonName(String);

impl DaemonName {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for DaemonName {
    fn from(name: &str) -> Self {
        Self(name.to_owned())
    }
}

impl From<String> for DaemonName {
    fn from(name: String) -> Self {
        Self(name)
    }
}

impl From<&DaemonName> for DaemonName {
    fn from(name: &DaemonName) -> Self {
        name.clone()
    }
}

impl AsRef<str> for DaemonName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for DaemonName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A daemon as it should be. Made with [`DaemonSpec::builder`].
#[derive(Clone, Debug)]
pub struct DaemonSpec {
    pub name: DaemonName,
    pub program: PathBuf,
    pub args: Vec<String>,
    /// The whole environment, but for the marker that the supervisor adds.
    pub env: Vec<(String, String)>,
    /// Hashes of what the daemon reads when it starts, by label: a change means a restart.
    pub inputs: BTreeMap<String, String>,
    /// Daemons that must be ready before this one starts.
    pub needs: Vec<DaemonName>,
    pub readiness: Probe,
    pub probe_timing: ProbeTiming,
    /// Not ready after this long is a failure.
    pub start_timeout: Duration,
    /// Unready for this long is a failure; never when absent.
    pub unready_timeout: Option<Duration>,
    pub stop: StopPolicy,
    pub backoff: Backoff,
    pub profile: Profile,
    pub log: LogPolicy,
    /// From the root of each hierarchy; `<group of the supervisor>/daemon/<name>` when absent.
    pub cgroup: Option<String>,
    /// Names of executables whose processes outlive this daemon.
    pub survivors: Vec<String>,
}

/// How a daemon is asked to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StopPolicy {
    pub signal: StopSignal,
    /// After this long everything in its control group is killed.
    pub timeout: Duration,
}

/// The signal that asks a daemon to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopSignal {
    Term,
    Int,
    Quit,
}

/// How long to wait before a daemon that failed is started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    pub initial: Duration,
    pub max: Duration,
    /// Ready for this long, and the failures before are forgotten.
    pub reset_after: Duration,
    /// This many failures in a row are called a crash loop; retries go on.
    pub crash_loop_after: u32,
}

/// Where a daemon's output goes and how much of it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogPolicy {
    pub path: PathBuf,
    /// The file is rotated when it is larger.
    pub bytes_max: u64,
    /// Rotated files that are kept beside the current one.
    pub files_max: u32,
    /// Group that may read it; root's when absent.
    pub gid: Option<u32>,
}

impl Default for StopPolicy {
    fn default() -> Self {
        Self { signal: StopSignal::Term, timeout: Duration::from_secs(10) }
    }
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            initial: Duration::from_millis(500),
            max: Duration::from_secs(30),
            reset_after: Duration::from_secs(60),
            crash_loop_after: 5,
        }
    }
}

impl LogPolicy {
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), bytes_max: 10 << 20, files_max: 3, gid: None }
    }
}

impl DaemonSpec {
    /// A daemon that needs nothing, is ready as soon as it runs, and is not confined.
    pub fn builder(
        name: impl Into<DaemonName>,
        program: impl Into<PathBuf>,
        log: impl Into<PathBuf>,
    ) -> DaemonSpecBuilder {
        DaemonSpecBuilder(Self {
            name: name.into(),
            program: program.into(),
            args: Vec::new(),
            env: Vec::new(),
            inputs: BTreeMap::new(),
            needs: Vec::new(),
            readiness: Probe::None,
            probe_timing: ProbeTiming::default(),
            start_timeout: Duration::from_secs(120),
            unready_timeout: None,
            stop: StopPolicy::default(),
            backoff: Backoff::default(),
            profile: Profile::default(),
            log: LogPolicy::new(log),
            cgroup: None,
            survivors: Vec::new(),
        })
    }

    /// Names everything that a running process is made of. Two specifications with the same
    /// digest may share a process; needs, probes and timings are the supervisor's own affair and
    /// change without a restart.
    pub fn digest(&self) -> String {
        let made_of = serde_json::json!([
            self.program,
            self.args,
            self.env,
            self.inputs,
            self.profile,
            self.cgroup,
            self.log.path,
        ]);
        hex(&Sha256::digest(made_of.to_string()))
    }
}

/// Builds a [`DaemonSpec`]; every method may be called in any order.
#[derive(Clone, Debug)]
pub struct DaemonSpecBuilder(DaemonSpec);

impl DaemonSpecBuilder {
    pub fn arg(mut self, arg: impl Into<String>) -> Self {
        self.0.args.push(arg.into());
        self
    }

    pub fn args(mut self, args: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.0.args.extend(args.into_iter().map(Into::into));
        self
    }

    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.0.env.push((name.into(), value.into()));
        self
    }

    /// Something that the daemon reads when it starts: a change of it restarts the daemon.
    pub fn input(mut self, label: impl Into<String>, content: impl AsRef<[u8]>) -> Self {
        self.0.inputs.insert(label.into(), hex(&Sha256::digest(content)));
        self
    }

    pub fn needs(mut self, name: impl Into<DaemonName>) -> Self {
        self.0.needs.push(name.into());
        self
    }

    pub fn readiness(mut self, probe: Probe) -> Self {
        self.0.readiness = probe;
        self
    }

    pub fn probe_timing(mut self, timing: ProbeTiming) -> Self {
        self.0.probe_timing = timing;
        self
    }

    pub fn start_timeout(mut self, timeout: Duration) -> Self {
        self.0.start_timeout = timeout;
        self
    }

    pub fn unready_timeout(mut self, timeout: Option<Duration>) -> Self {
        self.0.unready_timeout = timeout;
        self
    }

    pub fn stop_timeout(mut self, timeout: Duration) -> Self {
        self.0.stop.timeout = timeout;
        self
    }

    pub fn stop_signal(mut self, signal: StopSignal) -> Self {
        self.0.stop.signal = signal;
        self
    }

    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.0.backoff = backoff;
        self
    }

    /// Replaces the profile, but for a user that was named before.
    pub fn profile(mut self, profile: Profile) -> Self {
        let user = self.0.profile.user.take();
        self.0.profile = profile;
        self.0.profile.user = self.0.profile.user.or(user);
        self
    }

    pub fn profile_edit(mut self, edit: impl FnOnce(&mut Profile)) -> Self {
        edit(&mut self.0.profile);
        self
    }

    pub fn user(mut self, user: impl Into<User>) -> Self {
        self.0.profile.user = Some(user.into());
        self
    }

    pub fn log_policy(mut self, policy: LogPolicy) -> Self {
        self.0.log = policy;
        self
    }

    pub fn cgroup(mut self, path: impl Into<String>) -> Self {
        self.0.cgroup = Some(path.into());
        self
    }

    /// Processes of this executable (the last part of its path) outlive the daemon.
    pub fn survivor(mut self, executable: impl Into<String>) -> Self {
        self.0.survivors.push(executable.into());
        self
    }

    pub fn build(self) -> DaemonSpec {
        self.0
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> DaemonSpecBuilder {
        DaemonSpec::builder("a", "/bin/a", "/log/a.log").args(["--x"]).input("config", "one")
    }

    #[test]
    fn the_digest_changes_with_what_the_process_is_made_of() {
        let digest = spec().build().digest();
        assert_eq!(digest, spec().build().digest());
        assert_ne!(digest, spec().arg("--y").build().digest());
        assert_ne!(digest, spec().env("A", "b").build().digest());
        assert_ne!(digest, spec().input("config", "two").build().digest());
        assert_ne!(digest, spec().profile_edit(|p| p.umask = 0o077).build().digest());
    }

    #[test]
    fn the_digest_stays_when_only_timings_change() {
        let changed = spec().stop_timeout(Duration::from_secs(99)).needs("b").build();
        assert_eq!(changed.digest(), spec().build().digest());
    }

    #[test]
    fn a_profile_keeps_the_user_that_was_named() {
        let user = User { uid: 1, gid: 2, groups: vec![] };
        let spec = spec().user(user.clone()).profile(Profile::default()).build();
        assert_eq!(spec.profile.user, Some(user));
    }
}
