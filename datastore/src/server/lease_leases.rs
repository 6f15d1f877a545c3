//! LeaseLeases: lists every lease.

use super::Server;
use crate::proto::{LeaseLeasesResponse, LeaseStatus};

/// Every lease there is, by name.
pub fn lease_leases(server: &Server) -> LeaseLeasesResponse {
    let header = server.engine.identity().header(server.engine.revision());
    let state = server.engine.shared().read();
    let leases = state.leases.all().map(|(id, _)| LeaseStatus { id: id.0 }).collect();
    LeaseLeasesResponse { header, leases }
}
