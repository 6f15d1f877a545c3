//! One daemon's life: the phases that it goes through and what each event does to it.
//!
//! ```text
//!            needs ready            probe answers
//!   Idle ───────────────> Starting ───────────────> Ready <───> Unready
//!    ^ ^                     │ exit, timeout          │ exit       │ exit, timeout
//!    │ │   nothing left      v                        v            v
//!    │ └──────────────── Clearing <──────────── Stopping (signal, later kill)
//!    │  time is up           │ after a failure
//!    └────────── Backoff <───┘
//! ```

mod report;

use std::collections::VecDeque;
use std::time::Duration;

use time::OffsetDateTime;

use crate::command::Command;
use crate::event::{Found, Moment, Run};
use crate::spec::{DaemonName, DaemonSpec};
use crate::status::{DaemonEvent, Exit, Failure, State};

/// Events that are kept of each daemon.
pub const EVENTS_MAX: usize = 64;
/// A killed process is gone at once unless the kernel holds it: after this long others stop
/// waiting for it.
pub const KILL_WAIT: Duration = Duration::from_secs(5);
/// Between questions to a daemon that gave a bad answer after it had been ready.
const DOUBT_INTERVAL: Duration = Duration::from_secs(1);

/// Where a daemon is, with what belongs to that place.
#[derive(Clone, Debug)]
pub(crate) enum Phase {
    /// No process, nothing left of one.
    Idle,
    Backoff {
        until: Duration,
    },
    Running(Running),
    Stopping {
        process: Process,
        kill_at: Duration,
        killed: bool,
        failed: bool,
    },
    /// The process is gone; what it left behind is being ended.
    Clearing {
        run: Run,
        since: Duration,
        failed: bool,
    },
}

#[derive(Clone, Debug)]
pub(crate) struct Process {
    pub(crate) run: Run,
    pub(crate) pid: Option<u32>,
    /// Of the specification that it was made from.
    pub(crate) digest: String,
    pub(crate) adopted: bool,
    pub(crate) started: Duration,
}

#[derive(Clone, Debug)]
pub(crate) struct Running {
    pub(crate) process: Process,
    pub(crate) health: Health,
    /// Absent while an answer is awaited, and when there is nothing to ask.
    pub(crate) probe_at: Option<Duration>,
    /// Bad answers in a row, and what the last one said.
    bad_answers: u32,
    complaint: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Health {
    /// Never ready so far.
    Starting,
    Ready {
        since: Duration,
    },
    Unready {
        since: Duration,
    },
}

/// A process is to be replaced although it is what it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Replace {
    Now,
    /// When everything that it needs is ready and has been replaced itself.
    InOrder,
}

pub(crate) struct Daemon {
    pub(crate) spec: DaemonSpec,
    pub(crate) digest: String,
    pub(crate) wanted: bool,
    /// No longer part of the node: forgotten when it is idle.
    pub(crate) removed: bool,
    pub(crate) replace: Option<Replace>,
    pub(crate) phase: Phase,
    failures: u32,
    failure: Option<Failure>,
    pub(crate) restarts: u32,
    last_exit: Option<Exit>,
    since: OffsetDateTime,
    shown: State,
    events: VecDeque<DaemonEvent>,
}

impl Daemon {
    /// Begins with clearing: nothing is known of what a former supervisor left.
    pub(crate) fn new(spec: DaemonSpec, run: Run, now: &Moment) -> Self {
        Self {
            digest: spec.digest(),
            spec,
            wanted: false,
            removed: false,
            replace: None,
            phase: Phase::Clearing { run, since: now.elapsed, failed: false },
            failures: 0,
            failure: None,
            restarts: 0,
            last_exit: None,
            since: now.wall,
            shown: State::Stopped,
            events: VecDeque::new(),
        }
    }

    pub(crate) fn name(&self) -> &DaemonName {
        &self.spec.name
    }

    pub(crate) fn adopt(&mut self, run: Run, found: Found, now: &Moment) {
        // It was wanted when it was started.
        self.wanted = true;
        self.restarts = found.restarts;
        self.note(now, format!("adopted process {}", found.pid));
        let process = Process {
            run,
            pid: Some(found.pid),
            digest: found.digest,
            adopted: true,
            started: now.elapsed,
        };
        self.phase = Phase::Running(Running::new(process, now.elapsed));
    }

    pub(crate) fn reconfigure(&mut self, spec: DaemonSpec) {
        let digest = spec.digest();
        if digest != self.digest {
            // Failures of the former specification say nothing about this one.
            self.failures = 0;
            self.retry_now();
        }
        self.spec = spec;
        self.digest = digest;
        self.removed = false;
    }

    /// Ends a pause before the next start.
    pub(crate) fn retry_now(&mut self) {
        if let Phase::Backoff { .. } = self.phase {
            self.phase = Phase::Idle;
        }
    }

    pub(crate) fn spawn(&mut self, run: Run, now: &Moment) -> Command {
        if self.failures > 0 {
            self.restarts += 1;
        }
        let process = Process {
            run,
            pid: None,
            digest: self.digest.clone(),
            adopted: false,
            started: now.elapsed,
        };
        let mut running =
            Running::new(process, now.elapsed + self.spec.probe_timing.start_interval);
        running.probe_at = None;
        self.phase = Phase::Running(running);
        Command::Spawn { name: self.name().clone(), run }
    }

    pub(crate) fn spawned(&mut self, run: Run, pid: u32, now: &Moment) -> Vec<Command> {
        let signal = self.spec.stop.signal;
        let interval = self.spec.probe_timing.start_interval;
        match &mut self.phase {
            Phase::Running(running) if running.process.awaits_start(run) => {
                running.process.pid = Some(pid);
                running.probe_at = Some(now.elapsed + interval);
                self.note(now, format!("started process {pid}"));
                vec![]
            }
            // Asked to stop before the process was there.
            Phase::Stopping { process, .. } if process.awaits_start(run) => {
                process.pid = Some(pid);
                vec![Command::Signal { name: self.name().clone(), run, signal }]
            }
            _ => vec![],
        }
    }

    pub(crate) fn spawn_failed(&mut self, run: Run, reason: String, now: &Moment) -> Vec<Command> {
        if !self.process().is_some_and(|process| process.awaits_start(run)) {
            return vec![];
        }
        self.fail(format!("cannot be started: {reason}"), vec![], now);
        self.phase = Phase::Clearing { run, since: now.elapsed, failed: true };
        vec![Command::Clear { name: self.name().clone(), run }]
    }

    pub(crate) fn exited(
        &mut self,
        run: Run,
        exit: Exit,
        last_log: Vec<String>,
        now: &Moment,
    ) -> Vec<Command> {
        let failed = match &self.phase {
            Phase::Running(Running { process, .. }) if process.run == run => {
                let after = (now.elapsed.saturating_sub(process.started)).as_secs_f64();
                let reason = match process.adopted {
                    true => format!("{exit}"),
                    false => format!("{exit} after {after:.1} s"),
                };
                self.fail(reason, last_log, now);
                true
            }
            Phase::Stopping { process, failed, .. } if process.run == run => {
                let failed = *failed;
                if failed && let Some(failure) = &mut self.failure {
                    failure.last_log = last_log;
                }
                self.note(now, format!("ended: {exit}"));
                failed
            }
            _ => return vec![],
        };
        self.last_exit = Some(exit);
        self.phase = Phase::Clearing { run, since: now.elapsed, failed };
        vec![Command::Clear { name: self.name().clone(), run }]
    }

    pub(crate) fn cleared(&mut self, run: Run, now: &Moment) {
        match self.phase {
            Phase::Clearing { run: clearing, failed, .. } if clearing == run => {
                self.phase = if failed && self.wanted && self.failures > 0 {
                    let delay = self.spec.backoff.delay(self.failures, now.jitter);
                    Phase::Backoff { until: now.elapsed + delay }
                } else {
                    Phase::Idle
                };
            }
            _ => {}
        }
    }

    pub(crate) fn probed(&mut self, run: Run, answer: Result<(), String>, now: &Moment) {
        let timing = self.spec.probe_timing;
        let asks_again = !matches!(self.spec.readiness, crate::probe::Probe::None);
        let Phase::Running(running) = &mut self.phase else { return };
        if running.process.run != run {
            return;
        }
        let doubt = DOUBT_INTERVAL.min(timing.interval);
        match answer {
            Ok(()) => {
                running.bad_answers = 0;
                running.complaint = None;
                running.probe_at = asks_again.then_some(now.elapsed + timing.interval);
                if !matches!(running.health, Health::Ready { .. }) {
                    running.health = Health::Ready { since: now.elapsed };
                    let after = now.elapsed.saturating_sub(running.process.started).as_secs_f64();
                    self.note(now, format!("ready, {after:.1} s after it was started or adopted"));
                }
            }
            Err(complaint) => {
                running.bad_answers = running.bad_answers.saturating_add(1);
                let starting = running.health == Health::Starting;
                let wait = if starting { timing.start_interval } else { doubt };
                running.probe_at = Some(now.elapsed + wait);
                let ready = matches!(running.health, Health::Ready { .. });
                running.complaint = Some(complaint.clone());
                if ready && running.bad_answers >= timing.failures_max {
                    running.health = Health::Unready { since: now.elapsed };
                    self.note(now, format!("unready: {complaint}"));
                }
            }
        }
    }

    /// Begins the end of the process; `failure` says why when nobody asked for it.
    pub(crate) fn stop(&mut self, failure: Option<String>, now: &Moment) -> Vec<Command> {
        let Phase::Running(running) = &self.phase else { return vec![] };
        let process = running.process.clone();
        let (run, known) = (process.run, process.pid.is_some());
        let failed = failure.is_some();
        match failure {
            Some(reason) => self.fail(reason, vec![], now),
            None => self.note(now, format!("asked to end ({:?})", self.spec.stop.signal)),
        }
        self.replace = None;
        let kill_at = now.elapsed + self.spec.stop.timeout;
        self.phase = Phase::Stopping { process, kill_at, killed: false, failed };
        let signal = self.spec.stop.signal;
        known
            .then(|| Command::Signal { name: self.name().clone(), run, signal })
            .into_iter()
            .collect()
    }

    /// What time alone brings about.
    pub(crate) fn elapse(&mut self, now: &Moment) -> Vec<Command> {
        let name = self.name().clone();
        if let Some(failure) = self.lateness(now) {
            return self.stop(Some(failure), now);
        }
        let reset_after = self.spec.backoff.reset_after;
        match &mut self.phase {
            Phase::Backoff { until } if *until <= now.elapsed || !self.wanted => {
                self.phase = Phase::Idle;
            }
            Phase::Running(running) => {
                if let Health::Ready { since } = running.health
                    && since + reset_after <= now.elapsed
                {
                    self.failures = 0;
                    self.failure = None;
                }
                if running.probe_at.is_some_and(|at| at <= now.elapsed) {
                    running.probe_at = None;
                    return vec![Command::Probe { name, run: running.process.run }];
                }
            }
            Phase::Stopping { process, kill_at, killed, .. }
                if !*killed && *kill_at <= now.elapsed =>
            {
                *killed = true;
                let run = process.run;
                self.note(now, "killed: it did not end in time".into());
                return vec![Command::Kill { name, run }];
            }
            _ => {}
        }
        vec![]
    }

    /// Why it has had enough time to become ready.
    fn lateness(&self, now: &Moment) -> Option<String> {
        let Phase::Running(running) = &self.phase else { return None };
        let said = running.complaint.as_deref().unwrap_or("no answer yet");
        let what = self.spec.readiness.describe();
        let (verb, since, limit) = match running.health {
            Health::Starting => {
                ("not ready", running.process.started, Some(self.spec.start_timeout))
            }
            Health::Unready { since } => ("unready", since, self.spec.unready_timeout),
            Health::Ready { .. } => return None,
        };
        let limit = limit.filter(|limit| since + *limit <= now.elapsed)?;
        Some(format!("{verb} for {} s: {what}: {said}", limit.as_secs_f64()))
    }

    /// The next time at which [`Self::elapse`] may have something to do.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        match &self.phase {
            Phase::Idle => None,
            Phase::Backoff { until } => Some(*until),
            Phase::Running(running) => {
                let limit = match running.health {
                    Health::Starting => Some(running.process.started + self.spec.start_timeout),
                    Health::Unready { since } => self.spec.unready_timeout.map(|t| since + t),
                    Health::Ready { since } => {
                        self.failure.is_some().then_some(since + self.spec.backoff.reset_after)
                    }
                };
                [limit, running.probe_at].into_iter().flatten().min()
            }
            Phase::Stopping { kill_at, killed: false, .. } => Some(*kill_at),
            Phase::Stopping { kill_at, .. } => Some(*kill_at + KILL_WAIT),
            Phase::Clearing { since, .. } => Some(*since + KILL_WAIT),
        }
    }

    fn fail(&mut self, reason: String, last_log: Vec<String>, now: &Moment) {
        self.failures = self.failures.saturating_add(1);
        self.note(now, format!("failed: {reason}"));
        self.failure = Some(Failure { reason, last_log, count: self.failures });
    }

    fn note(&mut self, now: &Moment, message: String) {
        if self.events.len() == EVENTS_MAX {
            self.events.pop_front();
        }
        self.events.push_back(DaemonEvent { at: now.wall, message });
    }
}

impl Process {
    fn awaits_start(&self, run: Run) -> bool {
        self.run == run && self.pid.is_none()
    }
}

impl Running {
    fn new(process: Process, probe_at: Duration) -> Self {
        Self {
            process,
            health: Health::Starting,
            probe_at: Some(probe_at),
            bad_answers: 0,
            complaint: None,
        }
    }
}
