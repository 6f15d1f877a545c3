//! LeaseLeases: lists every lease.

use super::Server;
use crate::proto::{LeaseLeasesResponse, LeaseStatus};

/// Every lease there is; those that end first come first, as with etcd.
pub fn lease_leases(server: &Server) -> LeaseLeasesResponse {
    let header = server.engine.identity().header(server.engine.revision());
    let state = server.engine.shared().read();
    let leases = state.leases.by_end().into_iter().map(|id| LeaseStatus { id: id.0 }).collect();
    LeaseLeasesResponse { header, leases }
}
