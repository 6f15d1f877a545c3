//! Snapshot: a copy of the whole store.

use tonic::{Response, Status};

use super::services::Answers;
use crate::error::RequestError;
use crate::proto::SnapshotResponse;

/// Deliberately not served: a copy in etcd's own file format would be of no
/// use here.
pub fn snapshot() -> Result<Response<Answers<SnapshotResponse>>, Status> {
    Err(RequestError::NotSupported.into())
}
