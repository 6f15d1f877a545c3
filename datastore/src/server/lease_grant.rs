//! LeaseGrant: begins a lease.

use std::hash::{BuildHasher, RandomState};

use tonic::Status;

use super::Server;
use crate::proto::{LeaseGrantRequest, LeaseGrantResponse};
use crate::record::LeaseId;

/// Begins a lease under the name asked for, or under a random one.
pub async fn lease_grant(
    server: &Server,
    request: &LeaseGrantRequest,
) -> Result<LeaseGrantResponse, Status> {
    let lease = if request.id == 0 { random_lease() } else { LeaseId(request.id) };
    let (ttl, revision) = server.engine.grant(lease, request.ttl).await?;
    let header = server.engine.identity().header(revision);
    Ok(LeaseGrantResponse { header, id: lease.0, ttl, error: String::new() })
}

/// A positive number that nobody has yet, almost certainly; a clash is
/// refused by the writer.
fn random_lease() -> LeaseId {
    let random = RandomState::new().hash_one(std::process::id());
    LeaseId((random >> 1).max(1) as i64)
}
