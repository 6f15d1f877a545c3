//! Does what the engine says and tells it what happened. Decides nothing.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use time::OffsetDateTime;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::adopt;
use crate::command::Command;
use crate::engine::Engine;
use crate::event::{Event, Found, Moment, Run};
use crate::handle::{Request, StopReport};
use crate::launch::{Launcher, Live, Territory};
use crate::output;
use crate::record::{self, Record};
use crate::spec::{DaemonName, DaemonSpec, LogPolicy};
use crate::status::{DaemonStatus, Snapshot};
use crate::supervisor::Config;
use crate::usage::Usage;

/// News of short tasks that may wait: each daemon has at most three (exit, probe, clearing).
const EVENTS_MAX: usize = 64;
/// Between two looks at the size of the logs.
const ROTATION_INTERVAL: Duration = Duration::from_secs(10);
/// Lines of a log that explain a failure.
const LAST_LOG_LINES: usize = 12;

pub(crate) struct Runtime {
    config: Config,
    launcher: Launcher,
    engine: Engine,
    began: Instant,
    jitter: Jitter,
    live: BTreeMap<DaemonName, Live>,
    /// Where processes were put that a former supervisor started.
    former_cgroups: BTreeMap<DaemonName, String>,
    requests: mpsc::Receiver<Request>,
    events: mpsc::Receiver<Event>,
    news: mpsc::Sender<Event>,
    snapshot: watch::Sender<Arc<Snapshot>>,
    /// Ended when the supervisor ends.
    tasks: JoinSet<()>,
    waiters: Vec<Waiter>,
    /// Set while everything is stopped for good.
    ending: bool,
}

/// Somebody who waits for runs to be gone.
struct Waiter {
    runs: Vec<(DaemonName, Option<Run>)>,
    reply: oneshot::Sender<StopReport>,
}

impl Runtime {
    pub(crate) fn new(
        config: Config,
        launcher: Launcher,
        requests: mpsc::Receiver<Request>,
        snapshot: watch::Sender<Arc<Snapshot>>,
    ) -> Self {
        let (news, events) = mpsc::channel(EVENTS_MAX);
        Self {
            config,
            launcher,
            engine: Engine::new(),
            began: Instant::now(),
            jitter: Jitter::new(),
            live: BTreeMap::new(),
            former_cgroups: BTreeMap::new(),
            requests,
            events,
            news,
            snapshot,
            tasks: JoinSet::new(),
            waiters: Vec::new(),
            ending: false,
        }
    }

    /// Brings the engine to where the machine is.
    pub(crate) fn begin(&mut self, specs: Vec<DaemonSpec>, left: Vec<Record>) {
        let now = self.moment();
        let mut commands = self.engine.handle(Event::Reconfigured(specs), &now);
        for record in left {
            let run = self.engine.new_run();
            let Some(live) = adopt::hold(&record, run) else { continue };
            let name = record.name.clone();
            let found = Found {
                pid: record.identity.pid,
                digest: record.digest,
                restarts: record.restarts,
            };
            self.former_cgroups.insert(name.clone(), record.cgroup);
            self.watch(name.clone(), live);
            // What was to be cleared is adopted instead.
            commands.retain(|command| *command.daemon() != name);
            commands.extend(self.engine.handle(Event::Found { name, run, found }, &now));
        }
        self.execute(commands);
        if self.config.start {
            self.handle(Event::StartAll);
        }
        self.publish();
    }

    /// Until somebody detaches it, shuts it down or drops every handle.
    pub(crate) async fn run(mut self) {
        let mut rotation = tokio::time::interval(ROTATION_INTERVAL);
        rotation.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let now = self.moment();
            let deadline = self.engine.deadline(&now).map(|elapsed| self.began + elapsed);
            tokio::select! {
                request = self.requests.recv() => match request {
                    None => return,
                    Some(Request::Detach(reply)) => {
                        let _ = reply.send(());
                        return;
                    }
                    Some(request) => self.serve(request),
                },
                Some(event) = self.events.recv() => self.handle(event),
                () = sleep_until(deadline) => self.handle(Event::Tick),
                Some(_) = self.tasks.join_next() => {}
                _ = rotation.tick() => self.rotate(),
            }
            self.publish();
            let now = self.moment();
            let over = self.ending && self.engine.all_gone(&now);
            if over {
                self.remove_cgroups();
            }
            self.answer_waiters();
            if over {
                return;
            }
        }
    }

    fn moment(&mut self) -> Moment {
        Moment {
            elapsed: self.began.elapsed(),
            wall: OffsetDateTime::now_utc(),
            jitter: self.jitter.next(),
        }
    }

    fn serve(&mut self, request: Request) {
        match request {
            Request::StartAll(reply) => self.accept(Event::StartAll, reply),
            Request::RestartAll(reply) => self.accept(Event::RestartAll, reply),
            Request::Start(name, reply) => self.accept(Event::Start(name), reply),
            Request::Reconfigure(specs, reply) => self.accept(Event::Reconfigured(specs), reply),
            Request::StopAll(reply) => {
                let names: Vec<DaemonName> = self.names();
                self.await_gone(names, reply);
                self.handle(Event::StopAll);
            }
            Request::Shutdown(reply) => {
                let names: Vec<DaemonName> = self.names();
                self.await_gone(names, reply);
                self.ending = true;
                self.handle(Event::StopAll);
            }
            Request::Stop(name, reply) => {
                self.await_gone(vec![name.clone()], reply);
                self.handle(Event::Stop(name));
            }
            Request::Restart(name, reply) => {
                self.await_gone(vec![name.clone()], reply);
                self.handle(Event::Restart(name));
            }
            Request::Measure(reply) => self.measure(reply),
            Request::Detach(_) => unreachable!("the loop ends with it"),
        }
    }

    fn accept(&mut self, event: Event, reply: oneshot::Sender<()>) {
        self.handle(event);
        // Published first, so that the caller sees what it caused.
        self.publish();
        let _ = reply.send(());
    }

    fn names(&self) -> Vec<DaemonName> {
        self.engine.snapshot().daemons.into_iter().map(|daemon| daemon.name).collect()
    }

    fn await_gone(&mut self, names: Vec<DaemonName>, reply: oneshot::Sender<StopReport>) {
        let runs = names.into_iter().map(|name| (name.clone(), self.engine.run_of(&name)));
        self.waiters.push(Waiter { runs: runs.collect(), reply });
    }

    fn answer_waiters(&mut self) {
        let now = self.moment();
        let stuck = self.engine.stuck(&now);
        let engine = &self.engine;
        let is_over = |(name, run): &(DaemonName, Option<Run>)| {
            engine.is_gone(name) || engine.run_of(name) != *run || stuck.contains(name)
        };
        let waiters = std::mem::take(&mut self.waiters);
        for waiter in waiters {
            if !waiter.runs.iter().all(is_over) {
                self.waiters.push(waiter);
                continue;
            }
            let held = |(name, _): &(DaemonName, _)| stuck.contains(name).then(|| name.clone());
            let report = StopReport { stuck: waiter.runs.iter().filter_map(held).collect() };
            let _ = waiter.reply.send(report);
        }
    }

    fn handle(&mut self, event: Event) {
        let now = self.moment();
        if let Event::Cleared { name, run } = &event
            && self.live.get(name).is_some_and(|live| live.run == *run)
        {
            self.live.remove(name);
            self.former_cgroups.remove(name);
            record::remove(&self.config.records, name);
        }
        let commands = self.engine.handle(event, &now);
        self.execute(commands);
    }

    /// A start answers at once, and its answer may ask for more.
    fn execute(&mut self, commands: Vec<Command>) {
        let mut queue: VecDeque<Command> = commands.into();
        while let Some(command) = queue.pop_front() {
            tracing::debug!(?command, "doing");
            match command {
                Command::Spawn { name, run } => {
                    let event = self.spawn(name, run);
                    let now = self.moment();
                    queue.extend(self.engine.handle(event, &now));
                }
                Command::Probe { name, run } => self.probe(name, run),
                Command::Signal { name, run, signal } => {
                    if let Some(live) = self.live.get(&name).filter(|live| live.run == run) {
                        live.signal(signal.into());
                    }
                }
                Command::Kill { name, run } => {
                    if let Some(live) = self.live.get(&name).filter(|live| live.run == run) {
                        live.signal(rustix::process::Signal::KILL);
                    }
                    self.launcher.kill(&self.territory(&name));
                }
                Command::Clear { name, run } => self.clear(name, run),
                Command::Forget { name } => record::remove(&self.config.records, &name),
            }
        }
    }

    fn spawn(&mut self, name: DaemonName, run: Run) -> Event {
        let Some(spec) = self.engine.spec(&name).cloned() else {
            return Event::Tick;
        };
        let cgroup = self.cgroup(&spec);
        match self.launcher.start(&spec, &cgroup, run) {
            Ok(live) => {
                let pid = live.identity.pid;
                let record = Record {
                    name: name.clone(),
                    identity: live.identity.clone(),
                    digest: spec.digest(),
                    cgroup,
                    restarts: self.engine.restarts(&name),
                };
                if let Err(error) = record.write(&self.config.records) {
                    // It runs; a next supervisor would start it anew instead of adopting it.
                    tracing::warn!(daemon = %name, %error, "a daemon's record cannot be written");
                }
                tracing::info!(daemon = %name, pid, "started");
                self.watch(name.clone(), live);
                Event::Spawned { name, run, pid }
            }
            Err(error) => {
                let mut reason = error.to_string();
                let mut source = std::error::Error::source(&error);
                while let Some(cause) = source {
                    reason.push_str(&format!(": {cause}"));
                    source = cause.source();
                }
                Event::SpawnFailed { name, run, reason }
            }
        }
    }

    fn watch(&mut self, name: DaemonName, live: Live) {
        self.live.insert(name.clone(), live.clone());
        let news = self.news.clone();
        let log = self.engine.spec(&name).map(|spec| spec.log.path.clone());
        self.tasks.spawn(async move {
            let exit = live.exit().await;
            let last_log = log.map(|log| output::tail(&log, LAST_LOG_LINES)).unwrap_or_default();
            tracing::info!(daemon = %name, %exit, "ended");
            // Nobody listens any more: the supervisor ends.
            let _ = news.send(Event::Exited { name, run: live.run, exit, last_log }).await;
        });
    }

    fn probe(&mut self, name: DaemonName, run: Run) {
        let Some(spec) = self.engine.spec(&name) else { return };
        let (probe, timeout) = (spec.readiness.clone(), spec.probe_timing.timeout);
        let news = self.news.clone();
        self.tasks.spawn(async move {
            let answer = probe.ask(timeout).await;
            let _ = news.send(Event::Probed { name, run, answer }).await;
        });
    }

    fn clear(&mut self, name: DaemonName, run: Run) {
        let territory = self.territory(&name);
        let launcher = self.launcher.clone();
        let news = self.news.clone();
        self.tasks.spawn(async move {
            launcher.clear(&territory).await;
            let _ = news.send(Event::Cleared { name, run }).await;
        });
    }

    fn cgroup(&self, spec: &DaemonSpec) -> String {
        let own = || format!("{}/daemon/{}", self.config.cgroup, spec.name);
        spec.cgroup.clone().unwrap_or_else(own)
    }

    fn territory(&self, name: &DaemonName) -> Territory {
        let spec = self.engine.spec(name);
        let mut cgroups: Vec<String> = spec.map(|spec| self.cgroup(spec)).into_iter().collect();
        cgroups.extend(self.former_cgroups.get(name).cloned());
        cgroups.dedup();
        let survivors = spec.map(|spec| spec.survivors.clone()).unwrap_or_default();
        Territory { name: name.clone(), cgroups, survivors }
    }

    fn publish(&mut self) {
        let fresh = self.engine.snapshot();
        self.snapshot.send_if_modified(|known| {
            let changed = **known != fresh;
            if changed {
                *known = Arc::new(fresh);
            }
            changed
        });
    }

    fn measure(&mut self, reply: oneshot::Sender<Vec<DaemonStatus>>) {
        let mut daemons = self.engine.snapshot().daemons;
        let territories: Vec<Territory> =
            daemons.iter().map(|daemon| self.territory(&daemon.name)).collect();
        let launcher = self.launcher.clone();
        // Reading the memory map of a large process takes milliseconds, of several at once no more.
        self.tasks.spawn_blocking(move || {
            std::thread::scope(|scope| {
                let running =
                    daemons.iter_mut().zip(&territories).filter(|(daemon, _)| daemon.pid.is_some());
                for (daemon, territory) in running {
                    let launcher = &launcher;
                    scope.spawn(move || {
                        let group = territory.cgroups.first();
                        let cpu_time = group.and_then(|path| launcher.cgroups.cpu_time(path));
                        daemon.usage = Some(Usage::of(&launcher.counted(territory), cpu_time));
                    });
                }
            });
            let _ = reply.send(daemons);
        });
    }

    fn rotate(&mut self) {
        let policies: Vec<(DaemonName, LogPolicy)> = self
            .names()
            .into_iter()
            .filter_map(|name| Some((name.clone(), self.engine.spec(&name)?.log.clone())))
            .collect();
        self.tasks.spawn_blocking(move || {
            for (daemon, policy) in policies {
                match output::rotate(&policy) {
                    Ok(output::Rotation::Dropped) => {
                        tracing::warn!(%daemon, "no room to rotate a log: its oldest lines are gone");
                    }
                    Ok(_) => {}
                    Err(error) => tracing::warn!(%daemon, %error, "a log cannot be rotated"),
                }
            }
        });
    }

    fn remove_cgroups(&self) {
        // Whoever else uses the node's group (pods, shims) keeps it.
        let _ = self.launcher.cgroups.remove(&format!("{}/daemon", self.config.cgroup));
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// Chance that is good enough to spread retries: xorshift, seeded by time and process.
struct Jitter(u64);

impl Jitter {
    fn new() -> Self {
        let nanoseconds = OffsetDateTime::now_utc().unix_timestamp_nanos() as u64;
        Self(nanoseconds ^ (u64::from(std::process::id()) << 32) | 1)
    }

    fn next(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as f64 / (1_u64 << 53) as f64
    }
}
