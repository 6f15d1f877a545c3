//! LeaseTimeToLive: says how long a lease has, and which keys hang on it.

use super::Server;
use crate::proto::{LeaseTimeToLiveRequest, LeaseTimeToLiveResponse};
use crate::record::LeaseId;

/// A lease that does not exist has a time of -1; that is no error.
pub fn lease_time_to_live(
    server: &Server,
    request: &LeaseTimeToLiveRequest,
) -> LeaseTimeToLiveResponse {
    let shared = server.engine.shared();
    let now = (shared.clock)();
    let header = server.engine.identity().header(server.engine.revision());
    let state = shared.read();
    let lease = LeaseId(request.id);
    match state.leases.view(lease, now) {
        None => LeaseTimeToLiveResponse { header, id: request.id, ttl: -1, ..Default::default() },
        Some(view) => LeaseTimeToLiveResponse {
            header,
            id: request.id,
            ttl: view.remaining_ttl_s,
            granted_ttl: view.granted_ttl_s,
            keys: if request.keys { state.leases.keys_of(lease) } else { Vec::new() },
        },
    }
}
