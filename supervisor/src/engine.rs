//! Decides: all daemons of a node, an event, a moment, and out come commands. No clock, no
//! processes, no randomness of its own.
//!
//! An event changes one daemon at most. What follows from that for all is not remembered but
//! derived anew from where everybody is: who may start, who may stop, who is to be replaced.
//! The order of daemons is therefore the same after a crash of the supervisor as before.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::command::Command;
use crate::daemon::{Daemon, Phase, Replace};
use crate::event::{Event, Moment, Run};
use crate::order::order;
use crate::spec::{DaemonName, DaemonSpec};
use crate::status::Snapshot;

/// All daemons of a node.
pub struct Engine {
    daemons: BTreeMap<DaemonName, Daemon>,
    /// Every name, what is needed first.
    order: Vec<DaemonName>,
    /// Whether daemons that join later are wanted.
    wanted: bool,
    next_run: u64,
}

impl Engine {
    /// An engine without daemons: they come with [`Event::Reconfigured`].
    pub fn new() -> Self {
        Self { daemons: BTreeMap::new(), order: Vec::new(), wanted: false, next_run: 1 }
    }

    /// A number for a process that was found.
    pub fn new_run(&mut self) -> Run {
        let run = Run(self.next_run);
        self.next_run += 1;
        run
    }

    /// Takes in one event and says what is to be done, in order.
    pub fn handle(&mut self, event: Event, now: &Moment) -> Vec<Command> {
        let mut commands = self.apply(event, now);
        // Each round moves at least one daemon forward, and none moves more than a few times
        // at the same moment: Backoff, Idle, Running, Stopping.
        let rounds_max = 4 * self.daemons.len() + 1;
        for _ in 0..rounds_max {
            let more = self.advance(now);
            if more.is_empty() {
                break;
            }
            commands.extend(more);
        }
        for daemon in self.daemons.values_mut() {
            daemon.settle(now);
        }
        commands
    }

    /// When [`Event::Tick`] is due at the latest.
    pub fn deadline(&self, now: &Moment) -> Option<Duration> {
        let stuck = |daemon: &&Daemon| !daemon.is_stuck(now);
        self.daemons.values().filter(stuck).filter_map(Daemon::deadline).min()
    }

    pub fn snapshot(&self) -> Snapshot {
        let status = |name| self.daemons.get(name).map(|d: &Daemon| d.status(self.waiting(d)));
        Snapshot { daemons: self.order.iter().filter_map(status).collect() }
    }

    pub fn contains(&self, name: &DaemonName) -> bool {
        self.daemons.contains_key(name)
    }

    pub fn spec(&self, name: &DaemonName) -> Option<&DaemonSpec> {
        self.daemons.get(name).map(|daemon| &daemon.spec)
    }

    /// The run whose process, or what it left, is there now.
    pub fn run_of(&self, name: &DaemonName) -> Option<Run> {
        self.daemons.get(name).and_then(Daemon::run)
    }

    pub fn restarts(&self, name: &DaemonName) -> u32 {
        self.daemons.get(name).map_or(0, |daemon| daemon.restarts)
    }

    /// Its process has ended and what it left is being ended.
    pub fn is_clearing(&self, name: &DaemonName) -> bool {
        self.daemons.get(name).is_some_and(|d| matches!(d.phase, Phase::Clearing { .. }))
    }

    /// Nothing of this daemon is alive.
    pub fn is_gone(&self, name: &DaemonName) -> bool {
        self.daemons.get(name).is_none_or(|daemon| !daemon.is_alive())
    }

    /// The processes of these did not end although they were killed.
    pub fn stuck(&self, now: &Moment) -> Vec<DaemonName> {
        self.daemons.values().filter(|d| d.is_stuck(now)).map(|d| d.name().clone()).collect()
    }

    /// Nothing is alive any more, or nothing that could be ended.
    pub fn all_gone(&self, now: &Moment) -> bool {
        self.daemons.values().all(|daemon| !daemon.is_alive() || daemon.is_stuck(now))
    }

    fn apply(&mut self, event: Event, now: &Moment) -> Vec<Command> {
        match event {
            Event::StartAll => self.want_all(true),
            Event::StopAll => self.want_all(false),
            Event::RestartAll => {
                for daemon in self.daemons.values_mut().filter(|daemon| daemon.wanted) {
                    daemon.retry_now();
                    if let Phase::Running(_) = daemon.phase {
                        daemon.replace = Some(Replace::InOrder);
                    }
                }
            }
            Event::Reconfigured(specs) => return self.reconfigure(specs, now),
            Event::Tick => {}
            Event::Found { name, run, found } => self.with(&name, |d| d.adopt(run, found, now)),
            Event::Start(name) => self.with(&name, |daemon| {
                daemon.wanted = true;
                daemon.retry_now();
            }),
            Event::Stop(name) => self.with(&name, |daemon| daemon.wanted = false),
            Event::Restart(name) => self.with(&name, |daemon| {
                daemon.wanted = true;
                daemon.retry_now();
                if let Phase::Running(_) = daemon.phase {
                    daemon.replace = Some(Replace::Now);
                }
            }),
            Event::Spawned { name, run, pid } => {
                return self.with(&name, |daemon| daemon.spawned(run, pid, now));
            }
            Event::SpawnFailed { name, run, reason } => {
                return self.with(&name, |daemon| daemon.spawn_failed(run, reason, now));
            }
            Event::Exited { name, run, exit, last_log } => {
                return self.with(&name, |daemon| daemon.exited(run, exit, last_log, now));
            }
            Event::Cleared { name, run } => self.with(&name, |d| d.cleared(run, now)),
            Event::Probed { name, run, answer } => {
                self.with(&name, |daemon| daemon.probed(run, answer, now));
            }
        }
        vec![]
    }

    fn with<T: Default>(&mut self, name: &DaemonName, f: impl FnOnce(&mut Daemon) -> T) -> T {
        self.daemons.get_mut(name).map(f).unwrap_or_default()
    }

    fn want_all(&mut self, wanted: bool) {
        self.wanted = wanted;
        for daemon in self.daemons.values_mut() {
            daemon.wanted = wanted && !daemon.removed;
            daemon.retry_now();
        }
    }

    /// Specifications that do not fit together change nothing; callers check before.
    fn reconfigure(&mut self, specs: Vec<DaemonSpec>, now: &Moment) -> Vec<Command> {
        let Ok(mut names) = order(&specs) else { return vec![] };
        for (name, daemon) in &mut self.daemons {
            if !names.contains(name) {
                daemon.removed = true;
                daemon.wanted = false;
            }
        }
        // What goes stays in the order, at its end, until it is forgotten.
        names.extend(
            self.order.iter().filter(|name| !names.contains(name)).cloned().collect::<Vec<_>>(),
        );
        self.order = names;
        let mut commands = Vec::new();
        for spec in specs {
            if let Some(daemon) = self.daemons.get_mut(&spec.name) {
                daemon.wanted |= daemon.removed && self.wanted;
                daemon.reconfigure(spec);
                continue;
            }
            let run = self.new_run();
            let mut daemon = Daemon::new(spec, run, now);
            daemon.wanted = self.wanted;
            commands.push(Command::Clear { name: daemon.name().clone(), run });
            self.daemons.insert(daemon.name().clone(), daemon);
        }
        commands
    }

    /// One round: every daemon does what it may do now.
    fn advance(&mut self, now: &Moment) -> Vec<Command> {
        let mut commands = Vec::new();
        for name in self.order.clone() {
            let Some(daemon) = self.daemons.get_mut(&name) else { continue };
            commands.extend(daemon.elapse(now));
            let daemon = &self.daemons[&name];
            match daemon.phase {
                Phase::Idle if daemon.removed => {
                    self.daemons.remove(&name);
                    self.order.retain(|other| *other != name);
                    commands.push(Command::Forget { name });
                }
                Phase::Idle if daemon.wanted && self.lacking(daemon).is_none() => {
                    let run = self.new_run();
                    commands.extend(self.daemons.get_mut(&name).map(|d| d.spawn(run, now)));
                }
                Phase::Running(_) if self.may_stop(daemon, now) => {
                    commands.extend(self.with(&name, |daemon| daemon.stop(None, now)));
                }
                _ => {}
            }
        }
        commands
    }

    fn may_stop(&self, daemon: &Daemon, now: &Moment) -> bool {
        if !daemon.wanted {
            // Those who need it and go as well go first.
            return !self.daemons.values().any(|other| {
                other.spec.needs.contains(daemon.name())
                    && !other.wanted
                    && other.is_alive()
                    && !other.is_stuck(now)
            });
        }
        match daemon.replace {
            Some(Replace::Now) => true,
            Some(Replace::InOrder) => self.lacking(daemon).is_none(),
            None => daemon.is_outdated() && self.lacking(daemon).is_none(),
        }
    }

    /// The first need that is not ready, or is about to be replaced.
    fn lacking(&self, daemon: &Daemon) -> Option<&Daemon> {
        let needs = daemon.spec.needs.iter().filter_map(|need| self.daemons.get(need));
        needs.into_iter().find(|need| !need.is_ready() || need.to_be_replaced())
    }

    fn waiting(&self, daemon: &Daemon) -> Option<String> {
        let need = self.lacking(daemon)?;
        Some(format!("waiting for {} ({})", need.name(), need.state()))
    }
}

impl Default for Engine {
    fn default() -> Self {
        Self::new()
    }
}
