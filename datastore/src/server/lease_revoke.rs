//! LeaseRevoke: ends a lease and deletes its keys.

use tonic::Status;

use super::Server;
use crate::proto::{LeaseRevokeRequest, LeaseRevokeResponse};
use crate::record::LeaseId;

/// Answers when the keys are gone for good.
pub async fn lease_revoke(
    server: &Server,
    request: &LeaseRevokeRequest,
) -> Result<LeaseRevokeResponse, Status> {
    let revision = server.engine.revoke(LeaseId(request.id)).await?;
    Ok(LeaseRevokeResponse { header: server.engine.identity().header(revision) })
}
