//! Asks a datastore whether it serves.

use std::path::PathBuf;
use std::time::Duration;

use tonic::transport::{Channel, Endpoint};

use crate::listen::Listen;
use crate::proto::StatusRequest;
use crate::proto::maintenance_client::MaintenanceClient;

/// What a probe waits for at most.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

/// What a serving datastore says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probed {
    pub revision: i64,
    pub size_bytes: u64,
    /// Alarms that are raised, as etcd words them.
    pub alarms: Vec<String>,
}

/// Why a datastore was not found to serve.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    #[error("can't connect to {listen}")]
    Connect {
        listen: Listen,
        #[source]
        source: tonic::transport::Error,
    },
    #[error("{listen} answered {code}: {message}")]
    Refused { listen: Listen, code: tonic::Code, message: String },
    #[error("{listen} did not answer within {} s", PROBE_TIMEOUT.as_secs())]
    TimedOut { listen: Listen },
}

/// Asks the datastore on the unix socket at `socket` for its status.
pub async fn probe(socket: impl Into<PathBuf>) -> Result<Probed, ProbeError> {
    probe_at(&Listen::Unix(socket.into())).await
}

/// Asks the datastore at `listen` for its status.
pub async fn probe_at(listen: &Listen) -> Result<Probed, ProbeError> {
    match tokio::time::timeout(PROBE_TIMEOUT, ask(listen)).await {
        Ok(result) => result,
        Err(_) => Err(ProbeError::TimedOut { listen: listen.clone() }),
    }
}

async fn ask(listen: &Listen) -> Result<Probed, ProbeError> {
    let channel = connect(listen)
        .await
        .map_err(|source| ProbeError::Connect { listen: listen.clone(), source })?;
    let answer = MaintenanceClient::new(channel).status(StatusRequest {}).await;
    let status = answer.map_err(|status| ProbeError::Refused {
        listen: listen.clone(),
        code: status.code(),
        message: status.message().to_owned(),
    })?;
    let status = status.into_inner();
    Ok(Probed {
        revision: status.header.map_or(0, |header| header.revision),
        size_bytes: u64::try_from(status.db_size).unwrap_or(0),
        alarms: status.errors,
    })
}

/// A channel for the generated clients.
pub async fn connect(listen: &Listen) -> Result<Channel, tonic::transport::Error> {
    endpoint(listen)?.connect().await
}

/// The same, which connects when it is first used, and again when the datastore
/// has gone and come back. To be called within a runtime.
pub fn connect_when_used(listen: &Listen) -> Result<Channel, tonic::transport::Error> {
    Ok(endpoint(listen)?.connect_lazy())
}

fn endpoint(listen: &Listen) -> Result<Endpoint, tonic::transport::Error> {
    let url = match listen {
        Listen::Unix(path) => format!("unix:{}", path.display()),
        Listen::Tcp(address) => format!("http://{address}"),
    };
    Endpoint::from_shared(url)
}
