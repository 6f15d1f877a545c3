//! The one place where what is observed becomes what is published.

use std::sync::Mutex;
use std::time::Instant;

use skiff_api::{Phase, Status};
use skiff_supervisor::{DaemonStatus, State};
use tokio::sync::watch;

use super::observed::Observed;
use super::plan;

/// What of a status does not change while skiffd runs.
#[derive(Clone, Debug)]
pub struct Identity {
    pub node: String,
    pub skiff_version: String,
    pub kubernetes_version: String,
}

/// Keeps the observed facts and publishes the status made from them at each change.
#[derive(Debug)]
pub struct Board {
    identity: Identity,
    started: Instant,
    observed: Mutex<(Observed, Option<String>)>,
    published: watch::Sender<Status>,
}

impl Board {
    pub fn new(identity: Identity) -> Self {
        let started = Instant::now();
        let first = status(&identity, started, &Observed::default(), None);
        Self { identity, started, observed: Mutex::default(), published: watch::Sender::new(first) }
    }

    /// Changes the facts; publishes when the status is another one.
    pub fn update(&self, change: impl FnOnce(&mut Observed)) {
        let mut guard = self.observed.lock().expect("no holder of this lock panics");
        change(&mut guard.0);
        let mut fresh = status(&self.identity, self.started, &guard.0, guard.1.as_deref());
        if fresh.phase == Phase::Ready {
            guard.0.was_ready = true;
        }
        self.published.send_if_modified(|current| {
            fresh.uptime_s = current.uptime_s;
            let changed = *current != fresh;
            if changed {
                fresh.uptime_s = self.started.elapsed().as_secs();
                *current = fresh;
            }
            changed
        });
    }

    pub fn set_address(&self, address: Option<String>) {
        self.observed.lock().expect("no holder of this lock panics").1 = address;
        self.update(|_| {});
    }

    /// The status now.
    pub fn status(&self) -> Status {
        let mut status = self.published.borrow().clone();
        status.uptime_s = self.started.elapsed().as_secs();
        status
    }

    /// The status now and at each change.
    pub fn watch(&self) -> watch::Receiver<Status> {
        self.published.subscribe()
    }
}

fn status(
    identity: &Identity,
    started: Instant,
    observed: &Observed,
    address: Option<&str>,
) -> Status {
    let conditions = plan::conditions(observed);
    Status {
        phase: plan::phase(observed, &conditions),
        node: identity.node.clone(),
        address: address.map(str::to_owned),
        version: identity.skiff_version.clone(),
        kubernetes: identity.kubernetes_version.clone(),
        conditions,
        notices: observed.notices.clone(),
        services: observed.services.clone(),
        addons: observed.addons.clone(),
        cluster: observed.cluster.clone(),
        datastore: observed.external.as_ref().map(|external| external.what.clone()),
        backup: observed.backup.clone(),
        uptime_s: started.elapsed().as_secs(),
    }
}

/// A daemon as the API shows it.
pub fn service(daemon: &DaemonStatus) -> skiff_api::Service {
    use skiff_api::ServiceState;
    let state = match daemon.state {
        State::Stopped => ServiceState::Stopped,
        State::Waiting => ServiceState::Waiting,
        State::Starting => ServiceState::Starting,
        State::Ready => ServiceState::Ready,
        State::Unready => ServiceState::Unready,
        State::Stopping => ServiceState::Stopping,
        State::Backoff => ServiceState::BackOff,
        State::CrashLoop => ServiceState::CrashLoop,
    };
    let since = daemon.since.format(&time::format_description::well_known::Rfc3339);
    skiff_api::Service {
        name: daemon.name.to_string(),
        state,
        message: daemon.message.clone(),
        last_log: daemon.failure.as_ref().map(|f| f.last_log.clone()).unwrap_or_default(),
        pid: daemon.pid,
        since: since.unwrap_or_default(),
        restarts: daemon.restarts,
        cpu_s: daemon.usage.as_ref().map(|usage| usage.cpu_seconds),
        memory_bytes: daemon.usage.as_ref().map(|usage| usage.pss_bytes),
    }
}
