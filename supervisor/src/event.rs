//! What happens to daemons: everything that the engine is told.

use std::time::Duration;

use time::OffsetDateTime;

use crate::spec::{DaemonName, DaemonSpec};
use crate::status::Exit;

/// One start of one daemon. Never used twice, so that late news of a former process is known
/// for what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Run(pub u64);

/// What the engine may not find out by itself.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Moment {
    /// Monotonic, since any fixed point: decisions are made by it.
    pub elapsed: Duration,
    /// What the clock on the wall says: shown, never decided by.
    pub wall: OffsetDateTime,
    /// At random, from 0 up to 1: spreads retries.
    pub jitter: f64,
}

/// A process that a former supervisor left running, known by its record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    pub pid: u32,
    /// Of the specification that it was made from.
    pub digest: String,
    pub restarts: u32,
}

/// One thing that happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// At the beginning only: a former process is alive and is ours from now on.
    Found {
        name: DaemonName,
        run: Run,
        found: Found,
    },
    StartAll,
    /// In reverse order of needs.
    StopAll,
    /// One after the other in order of needs, each when what it needs is ready again.
    RestartAll,
    Start(DaemonName),
    /// This one only: what needs it goes on without.
    Stop(DaemonName),
    /// This one only, at once.
    Restart(DaemonName),
    /// The specifications changed, the daemons do accordingly. They are valid together.
    Reconfigured(Vec<DaemonSpec>),
    Spawned {
        name: DaemonName,
        run: Run,
        pid: u32,
    },
    SpawnFailed {
        name: DaemonName,
        run: Run,
        reason: String,
    },
    Exited {
        name: DaemonName,
        run: Run,
        exit: Exit,
        last_log: Vec<String>,
    },
    /// Nothing that the daemon started is left, but for its survivors.
    Cleared {
        name: DaemonName,
        run: Run,
    },
    Probed {
        name: DaemonName,
        run: Run,
        answer: Result<(), String>,
    },
    /// Time went on.
    Tick,
}
