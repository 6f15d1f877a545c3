//! LeaseTimeToLive: says how long a lease has, and which keys hang on it.

use tonic::Status;

use super::Server;
use crate::proto::{LeaseTimeToLiveRequest, LeaseTimeToLiveResponse};
use crate::record::LeaseId;

/// A lease that does not exist has a time of -1; that is no error.
pub async fn lease_time_to_live(
    server: &Server,
    request: &LeaseTimeToLiveRequest,
) -> Result<LeaseTimeToLiveResponse, Status> {
    let lease = LeaseId(request.id);
    let view = server.engine.lease(lease).await?;
    let header = server.engine.identity().header(server.engine.revision());
    let state = server.engine.shared().read();
    Ok(match view {
        None => LeaseTimeToLiveResponse { header, id: request.id, ttl: -1, ..Default::default() },
        Some(view) => LeaseTimeToLiveResponse {
            header,
            id: request.id,
            ttl: view.remaining_ttl_s,
            granted_ttl: view.granted_ttl_s,
            keys: if request.keys { state.leases.keys_of(lease) } else { Vec::new() },
        },
    })
}
