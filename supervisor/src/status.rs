//! What the supervisor tells about its daemons.

use std::fmt;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::spec::DaemonName;
use crate::usage::Usage;

/// Where a daemon is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// It does not run and nobody wants it to.
    Stopped,
    /// It is wanted; something it needs is not ready.
    Waiting,
    /// It runs and was never ready.
    Starting,
    Ready,
    /// It was ready and does not answer now.
    Unready,
    Stopping,
    /// It failed and is started again in a moment.
    Backoff,
    /// It keeps failing; it is still started again, seldom.
    CrashLoop,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stopped => "stopped",
            Self::Waiting => "waiting",
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Unready => "unready",
            Self::Stopping => "stopping",
            Self::Backoff => "backoff",
            Self::CrashLoop => "crash-loop",
        })
    }
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Exit {
    Code(i32),
    Signal(i32),
    /// A former supervisor's child: the kernel tells its status to nobody else.
    Unknown,
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(number) => match nix::sys::signal::Signal::try_from(*number) {
                Ok(signal) => write!(f, "signal {number} ({signal})"),
                Err(_) => write!(f, "signal {number}"),
            },
            Self::Unknown => f.write_str("unknown exit status"),
        }
    }
}

/// Why a daemon failed last, kept until it has been well for a while.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// `exit code 1 after 0.3 s`, `not ready within 120 s: connection refused`
    pub reason: String,
    /// Last lines of its log at that time.
    pub last_log: Vec<String>,
    /// Failures in a row.
    pub count: u32,
}

/// Something that happened to a daemon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DaemonEvent {
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    pub message: String,
}

/// One daemon now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DaemonStatus {
    pub name: DaemonName,
    pub state: State,
    /// What it waits for or why it failed: a sentence; empty when all is well.
    pub message: String,
    pub pid: Option<u32>,
    /// When it came into this state.
    #[serde(with = "time::serde::rfc3339")]
    pub since: OffsetDateTime,
    /// Starts after failures, also those that a former supervisor made.
    pub restarts: u32,
    pub last_exit: Option<Exit>,
    pub failure: Option<Failure>,
    pub needs: Vec<DaemonName>,
    /// A former supervisor started the process.
    pub adopted: bool,
    /// The process was made from another specification and is about to be replaced.
    pub outdated: bool,
    /// Filled in by [`crate::Handle::measure`] alone.
    pub usage: Option<Usage>,
    /// The last ones, oldest first.
    pub events: Vec<DaemonEvent>,
}

/// All daemons at one moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// In the order in which they start.
    pub daemons: Vec<DaemonStatus>,
}

impl Snapshot {
    pub fn get(&self, name: &str) -> Option<&DaemonStatus> {
        self.daemons.iter().find(|daemon| daemon.name.as_str() == name)
    }

    /// Every daemon is ready, and none is about to be replaced.
    pub fn all_ready(&self) -> bool {
        self.daemons.iter().all(DaemonStatus::is_settled)
    }

    /// What is waited for, as a sentence: the first daemon in start order that is not ready.
    pub fn waiting_for(&self) -> Option<String> {
        let daemon = self.daemons.iter().find(|daemon| !daemon.is_settled())?;
        Some(match daemon.message.as_str() {
            "" => format!("{} is {}", daemon.name, daemon.state),
            message => format!("{}: {message}", daemon.name),
        })
    }
}

impl DaemonStatus {
    /// Ready, and with the process that it should have.
    pub fn is_settled(&self) -> bool {
        self.state == State::Ready && !self.outdated
    }
}
