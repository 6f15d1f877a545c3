//! What others see of the supervisor, and how they ask it for something.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot, watch};

use crate::order::{SpecError, order};
use crate::spec::{DaemonName, DaemonSpec};
use crate::status::{DaemonStatus, Snapshot};

/// Requests that may wait for the supervisor; more callers than that wait to ask.
pub(crate) const REQUESTS_MAX: usize = 64;

/// Something that is asked of the supervisor.
#[derive(Debug)]
pub(crate) enum Request {
    StartAll(oneshot::Sender<()>),
    StopAll(oneshot::Sender<StopReport>),
    RestartAll(oneshot::Sender<()>),
    Start(DaemonName, oneshot::Sender<()>),
    Stop(DaemonName, oneshot::Sender<StopReport>),
    Restart(DaemonName, oneshot::Sender<StopReport>),
    Reconfigure(Vec<DaemonSpec>, oneshot::Sender<()>),
    Measure(oneshot::Sender<Vec<DaemonStatus>>),
    Detach(oneshot::Sender<()>),
    Shutdown(oneshot::Sender<StopReport>),
}

/// How a stop went.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StopReport {
    /// Killed, and still there: the kernel holds them.
    pub stuck: Vec<DaemonName>,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HandleError {
    #[error("there is no daemon named {0}")]
    Unknown(DaemonName),
    #[error("the supervisor has ended")]
    Ended,
    #[error("the specifications do not fit together")]
    Spec(#[from] SpecError),
}

/// Asks the supervisor. Clones speak to the same one; dropping all of them detaches it.
#[derive(Clone, Debug)]
pub struct Handle {
    pub(crate) requests: mpsc::Sender<Request>,
    pub(crate) snapshot: watch::Receiver<Arc<Snapshot>>,
}

impl Handle {
    /// How all daemons are now, without their usage.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.borrow().clone()
    }

    /// Changes whenever a daemon's state or message does.
    pub fn subscribe(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.snapshot.clone()
    }

    /// How all daemons are now, with what they use: some milliseconds of reading.
    pub async fn measure(&self) -> Result<Vec<DaemonStatus>, HandleError> {
        self.ask(Request::Measure).await
    }

    /// Waits until these daemons are ready, or all when none is named.
    pub async fn wait_ready(&self, names: &[DaemonName]) -> Result<(), HandleError> {
        let settled = |snapshot: &Arc<Snapshot>| match names {
            [] => snapshot.all_ready(),
            _ => names
                .iter()
                .all(|name| snapshot.get(name.as_str()).is_some_and(DaemonStatus::is_settled)),
        };
        self.subscribe().wait_for(settled).await.map(drop).map_err(|_| HandleError::Ended)
    }

    /// Wants all daemons to run; does not wait for them.
    pub async fn start_all(&self) -> Result<(), HandleError> {
        self.ask(Request::StartAll).await
    }

    /// Stops all, those that need others first. Returns when nothing is left, within the sum of
    /// the stop timeouts along the needs.
    pub async fn stop_all(&self) -> Result<StopReport, HandleError> {
        self.ask(Request::StopAll).await
    }

    /// Replaces all processes, each when what it needs is ready again; does not wait for it.
    pub async fn restart_all(&self) -> Result<(), HandleError> {
        self.ask(Request::RestartAll).await
    }

    /// Wants one daemon to run; does not wait for it.
    pub async fn start(&self, name: &DaemonName) -> Result<(), HandleError> {
        let name = self.known(name)?;
        self.ask(|reply| Request::Start(name, reply)).await
    }

    /// Stops one daemon; those that need it go on. Returns when nothing of it is left.
    pub async fn stop(&self, name: &DaemonName) -> Result<StopReport, HandleError> {
        let name = self.known(name)?;
        self.ask(|reply| Request::Stop(name, reply)).await
    }

    /// Replaces one daemon's process. Returns when nothing of the former one is left.
    pub async fn restart(&self, name: &DaemonName) -> Result<StopReport, HandleError> {
        let name = self.known(name)?;
        self.ask(|reply| Request::Restart(name, reply)).await
    }

    /// From now on these are the daemons. Those whose process would be made differently are
    /// replaced in order, new ones started, others stopped; does not wait for it.
    pub async fn reconfigure(&self, specs: Vec<DaemonSpec>) -> Result<(), HandleError> {
        order(&specs)?;
        self.ask(|reply| Request::Reconfigure(specs, reply)).await
    }

    /// Ends the supervisor and leaves the daemons running, for the next one to adopt.
    pub async fn detach(self) -> Result<(), HandleError> {
        self.ask(Request::Detach).await
    }

    /// Stops all daemons, then ends the supervisor.
    pub async fn shutdown(self) -> Result<StopReport, HandleError> {
        self.ask(Request::Shutdown).await
    }

    fn known(&self, name: &DaemonName) -> Result<DaemonName, HandleError> {
        match self.snapshot.borrow().get(name.as_str()) {
            Some(status) => Ok(status.name.clone()),
            None => Err(HandleError::Unknown(name.clone())),
        }
    }

    async fn ask<T>(
        &self,
        request: impl FnOnce(oneshot::Sender<T>) -> Request,
    ) -> Result<T, HandleError> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(request(reply)).await.map_err(|_| HandleError::Ended)?;
        answer.await.map_err(|_| HandleError::Ended)
    }
}
