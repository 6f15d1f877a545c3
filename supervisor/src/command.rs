//! What the engine asks to be done.

use crate::event::Run;
use crate::spec::{DaemonName, StopSignal};

/// One thing to do, in the order given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Start a process. Answered by `Spawned` or `SpawnFailed`, later by `Exited`.
    /// Only ever asked when nothing of the daemon is left.
    Spawn { name: DaemonName, run: Run },
    /// Ask the readiness probe once. Answered by `Probed`.
    Probe { name: DaemonName, run: Run },
    /// Ask the process to end.
    Signal { name: DaemonName, run: Run, signal: StopSignal },
    /// End the process and everything that it started, survivors excepted.
    Kill { name: DaemonName, run: Run },
    /// The process has ended (or there never was one): end what it left behind. Answered by
    /// `Cleared` when nothing is left.
    Clear { name: DaemonName, run: Run },
    /// The daemon is no longer part of the node and nothing of it runs.
    Forget { name: DaemonName },
}

impl Command {
    /// The daemon that it is about.
    pub fn daemon(&self) -> &DaemonName {
        match self {
            Self::Spawn { name, .. }
            | Self::Probe { name, .. }
            | Self::Signal { name, .. }
            | Self::Kill { name, .. }
            | Self::Clear { name, .. }
            | Self::Forget { name } => name,
        }
    }
}
