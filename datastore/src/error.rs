//! Refusals, in the words and with the codes that etcd's clients know.

use tonic::{Code, Status};

use crate::index::RevisionError;

/// Why a request was refused. Clients map code and text back to an error of
/// their own, so neither may differ from etcd's by a letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    #[error("etcdserver: key is not provided")]
    EmptyKey,
    #[error("etcdserver: key not found")]
    KeyNotFound,
    #[error("etcdserver: value is provided")]
    ValueProvided,
    #[error("etcdserver: lease is provided")]
    LeaseProvided,
    #[error("etcdserver: too many operations in txn request")]
    TooManyOps,
    #[error("etcdserver: duplicate key given in txn request")]
    DuplicateKey,
    #[error("etcdserver: invalid sort option")]
    InvalidSortOption,
    #[error("etcdserver: mvcc: required revision has been compacted")]
    Compacted,
    #[error("etcdserver: mvcc: required revision is a future revision")]
    FutureRevision,
    #[error("etcdserver: mvcc: database space exceeded")]
    NoSpace,
    #[error("etcdserver: requested lease not found")]
    LeaseNotFound,
    #[error("etcdserver: lease already exists")]
    LeaseExists,
    #[error("etcdserver: too large lease TTL")]
    LeaseTtlTooLarge,
    #[error("etcdserver: request is too large")]
    TooLarge,
    #[error("etcdserver: too many requests")]
    TooManyRequests,
    #[error("etcdserver: leader changed")]
    LeaderChanged,
    #[error("etcdserver: request timed out")]
    TimedOut,
    #[error("etcdserver: server stopped")]
    Stopped,
    #[error("etcdserver: corrupt cluster")]
    Corrupt,
    #[error("etcdserver: not supported")]
    NotSupported,
}

impl RequestError {
    /// Every error there is: for the page that lists them, and for members,
    /// which tell each other by their texts.
    pub const ALL: [RequestError; 20] = [
        RequestError::EmptyKey,
        RequestError::KeyNotFound,
        RequestError::ValueProvided,
        RequestError::LeaseProvided,
        RequestError::TooManyOps,
        RequestError::DuplicateKey,
        RequestError::InvalidSortOption,
        RequestError::Compacted,
        RequestError::FutureRevision,
        RequestError::NoSpace,
        RequestError::LeaseNotFound,
        RequestError::LeaseExists,
        RequestError::LeaseTtlTooLarge,
        RequestError::TooLarge,
        RequestError::TooManyRequests,
        RequestError::LeaderChanged,
        RequestError::TimedOut,
        RequestError::Stopped,
        RequestError::Corrupt,
        RequestError::NotSupported,
    ];

    /// The error with this text.
    pub fn from_text(text: &str) -> Option<RequestError> {
        Self::ALL.iter().copied().find(|error| error.to_string() == text)
    }

    /// The gRPC code that goes with the text.
    pub fn code(self) -> Code {
        match self {
            RequestError::EmptyKey
            | RequestError::KeyNotFound
            | RequestError::ValueProvided
            | RequestError::LeaseProvided
            | RequestError::TooManyOps
            | RequestError::DuplicateKey
            | RequestError::InvalidSortOption
            | RequestError::TooLarge => Code::InvalidArgument,
            RequestError::Compacted
            | RequestError::FutureRevision
            | RequestError::LeaseTtlTooLarge => Code::OutOfRange,
            RequestError::NoSpace | RequestError::TooManyRequests => Code::ResourceExhausted,
            RequestError::LeaseNotFound => Code::NotFound,
            RequestError::LeaseExists => Code::FailedPrecondition,
            // Another member may be asked: only this one is damaged.
            RequestError::Corrupt
            | RequestError::LeaderChanged
            | RequestError::TimedOut
            | RequestError::Stopped => Code::Unavailable,
            RequestError::NotSupported => Code::Unimplemented,
        }
    }
}

impl From<RequestError> for Status {
    fn from(error: RequestError) -> Status {
        Status::new(error.code(), error.to_string())
    }
}

impl From<RevisionError> for RequestError {
    fn from(error: RevisionError) -> RequestError {
        match error {
            RevisionError::Compacted { .. } => RequestError::Compacted,
            RevisionError::Future { .. } => RequestError::FutureRevision,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_is_known_by_its_text() {
        // A new error does not compile here until it stands in the list above.
        let listed = |error: &RequestError| match error {
            RequestError::EmptyKey
            | RequestError::KeyNotFound
            | RequestError::ValueProvided
            | RequestError::LeaseProvided
            | RequestError::TooManyOps
            | RequestError::DuplicateKey
            | RequestError::InvalidSortOption
            | RequestError::Compacted
            | RequestError::FutureRevision
            | RequestError::NoSpace
            | RequestError::LeaseNotFound
            | RequestError::LeaseExists
            | RequestError::LeaseTtlTooLarge
            | RequestError::TooLarge
            | RequestError::TooManyRequests
            | RequestError::LeaderChanged
            | RequestError::TimedOut
            | RequestError::Stopped
            | RequestError::Corrupt
            | RequestError::NotSupported => true,
        };
        assert!(RequestError::ALL.iter().all(listed));
        for error in RequestError::ALL {
            assert_eq!(RequestError::from_text(&error.to_string()), Some(error));
        }
    }
}
