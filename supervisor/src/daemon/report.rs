//! What a daemon's phase and history amount to: yes or no, in a word, in a sentence.

use super::{Daemon, Health, KILL_WAIT, Phase, Process, Running};
use crate::event::{Moment, Run};
use crate::status::{DaemonStatus, State};

impl Daemon {
    pub(crate) fn run(&self) -> Option<Run> {
        match &self.phase {
            Phase::Running(Running { process, .. }) | Phase::Stopping { process, .. } => {
                Some(process.run)
            }
            Phase::Clearing { run, .. } => Some(*run),
            Phase::Idle | Phase::Backoff { .. } => None,
        }
    }

    pub(super) fn process(&self) -> Option<&Process> {
        match &self.phase {
            Phase::Running(Running { process, .. }) | Phase::Stopping { process, .. } => {
                Some(process)
            }
            _ => None,
        }
    }

    pub(crate) fn is_ready(&self) -> bool {
        matches!(&self.phase, Phase::Running(Running { health: Health::Ready { .. }, .. }))
    }

    /// The process runs and was made from another specification.
    pub(crate) fn is_outdated(&self) -> bool {
        matches!(&self.phase, Phase::Running(running) if running.process.digest != self.digest)
    }

    pub(crate) fn to_be_replaced(&self) -> bool {
        self.replace.is_some() || self.is_outdated()
    }

    /// Something of it may be alive.
    pub(crate) fn is_alive(&self) -> bool {
        !matches!(self.phase, Phase::Idle | Phase::Backoff { .. })
    }

    /// Killed, and still there long after: nobody waits for it any more.
    pub(crate) fn is_stuck(&self, now: &Moment) -> bool {
        match self.phase {
            Phase::Stopping { kill_at, killed: true, .. } => kill_at + KILL_WAIT <= now.elapsed,
            Phase::Clearing { since, .. } => since + KILL_WAIT <= now.elapsed,
            _ => false,
        }
    }

    /// Derived, never stored: what the phase and the history amount to.
    pub(crate) fn state(&self) -> State {
        let looping = self.failures >= self.spec.backoff.crash_loop_after;
        match &self.phase {
            Phase::Idle if self.wanted => State::Waiting,
            Phase::Idle => State::Stopped,
            Phase::Running(running) => match running.health {
                Health::Starting if looping => State::CrashLoop,
                Health::Starting => State::Starting,
                Health::Ready { .. } => State::Ready,
                Health::Unready { .. } => State::Unready,
            },
            Phase::Backoff { .. }
            | Phase::Stopping { failed: true, .. }
            | Phase::Clearing { failed: true, .. }
                if self.wanted && looping =>
            {
                State::CrashLoop
            }
            Phase::Backoff { .. } | Phase::Clearing { failed: true, .. } if self.wanted => {
                State::Backoff
            }
            Phase::Backoff { .. } => State::Stopped,
            Phase::Stopping { .. } | Phase::Clearing { .. } => State::Stopping,
        }
    }

    /// Remembers when the state became another one; true when it did.
    pub(crate) fn settle(&mut self, now: &Moment) -> bool {
        let state = self.state();
        let changed = state != self.shown;
        if changed {
            self.shown = state;
            self.since = now.wall;
        }
        changed
    }

    /// `waiting` is the sentence on what it needs and lacks.
    pub(crate) fn status(&self, waiting: Option<String>) -> DaemonStatus {
        DaemonStatus {
            name: self.name().clone(),
            state: self.state(),
            message: self.message(waiting),
            pid: self.process().and_then(|process| process.pid),
            since: self.since,
            restarts: self.restarts,
            last_exit: self.last_exit,
            failure: self.failure.clone(),
            needs: self.spec.needs.clone(),
            adopted: self.process().is_some_and(|process| process.adopted),
            outdated: self.to_be_replaced(),
            usage: None,
            events: self.events.iter().cloned().collect(),
        }
    }

    fn message(&self, waiting: Option<String>) -> String {
        let what = self.spec.readiness.describe();
        let failed = self.failure.as_ref().map(|failure| failure.reason.as_str());
        match self.state() {
            State::Waiting => waiting.unwrap_or_default(),
            State::Starting | State::Unready => match &self.phase {
                Phase::Running(Running { complaint: Some(complaint), .. }) => {
                    format!("waiting for {what} ({complaint})")
                }
                _ => format!("waiting for {what}"),
            },
            State::Backoff => failed.unwrap_or_default().to_owned(),
            State::CrashLoop => {
                format!("failed {} times, last: {}", self.failures, failed.unwrap_or_default())
            }
            State::Ready if self.to_be_replaced() => match waiting {
                Some(waiting) => format!("to be replaced, {waiting}"),
                None => "to be replaced".into(),
            },
            State::Stopping => match &self.phase {
                Phase::Stopping { process: Process { pid: Some(pid), .. }, killed, .. } => {
                    let how = if *killed { "killed, waiting" } else { "waiting" };
                    format!("{how} for process {pid} to end")
                }
                _ => "waiting for what it started to end".into(),
            },
            State::Ready | State::Stopped => String::new(),
        }
    }
}
