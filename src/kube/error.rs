//! Why the cluster did not do what was asked.

use std::time::Duration;

use super::client::ClientError;

/// A request to the API server that failed.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    #[error("the API server does not answer")]
    Unreachable(#[source] Box<kube::Error>),
    /// The API server's own sentence.
    #[error("{what}: {message}")]
    Refused { what: String, code: u16, message: String },
    #[error("{what}: no answer within {} s", bound.as_secs())]
    Timeout { what: String, bound: Duration },
    #[error("the cluster knows no {kind} of {api_version}")]
    UnknownKind { kind: String, api_version: String },
    #[error("{what}: the answer cannot be read")]
    Answer { what: String, source: Box<kube::Error> },
    #[error(transparent)]
    Client(#[from] ClientError),
}

impl ClusterError {
    /// Puts kube's error into the words of what was being done.
    pub fn new(what: impl Into<String>, error: kube::Error) -> Self {
        let what = what.into();
        match error {
            kube::Error::Api(status) => {
                Self::Refused { what, code: status.code, message: status.message.clone() }
            }
            kube::Error::HyperError(_) | kube::Error::Service(_) => {
                Self::Unreachable(Box::new(error))
            }
            other => Self::Answer { what, source: Box::new(other) },
        }
    }

    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused { code: 404, .. })
    }

    /// Somebody else changed the object in between.
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Refused { code: 409, .. })
    }
}
