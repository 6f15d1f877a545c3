//! Keeps daemons running.
//!
//! What comes in: specifications ([`DaemonSpec`]) and wishes (start, stop, restart). What goes
//! out: processes, each confined and in a control group of its own, their logs, and a
//! [`Snapshot`] of how they are, published at every change.
//!
//! [`Engine`] decides and does nothing else: events in, commands out. [`Supervisor::start`] runs
//! one task that does what the engine says and tells it what happened; beneath it live short
//! tasks that wait for one exit, ask one probe or end what one daemon left. All of them end with
//! the supervisor.
//!
//! The daemons do not depend on the supervisor's life: they hold no pipe of it, are in a session
//! of their own and are not killed with it. The next supervisor adopts each whose record names
//! a process that is still the same (process id, start time, boot) and ends everything else that
//! is left, found by control group and by the marker in the environment.

mod adopt;
mod backoff;
pub mod cgroup;
mod command;
mod daemon;
mod engine;
mod event;
mod handle;
mod launch;
mod order;
pub mod output;
mod probe;
mod process;
mod record;
mod runtime;
mod spec;
mod status;
mod supervisor;
pub mod usage;

pub use cgroup::{CgroupError, Cgroups, Mode};
pub use command::Command;
pub use daemon::EVENTS_MAX;
pub use engine::Engine;
pub use event::{Event, Found, Moment, Run};
pub use handle::{Handle, HandleError, StopReport};
pub use launch::MARKER;
pub use order::{SpecError, order};
pub use output::LogReader;
pub use probe::{CustomProbe, Probe, ProbeTiming};
pub use process::Identity;
pub use spec::{
    Backoff, DaemonName, DaemonSpec, DaemonSpecBuilder, LogPolicy, StopPolicy, StopSignal,
};
pub use status::{DaemonEvent, DaemonStatus, Exit, Failure, Snapshot, State};
pub use supervisor::{Config, StartError, Supervisor};
pub use usage::Usage;

#[cfg(test)]
mod engine_test;
