//! Status: says how the datastore is.

use super::Server;
use crate::proto::StatusResponse;

/// The version of etcd whose behaviour clients may count on. Kubernetes asks
/// for it to know whether progress of a watch can be requested.
pub const ETCD_VERSION: &str = "3.6.8";
/// The version of etcd's stored form that goes with it.
pub const ETCD_STORAGE_VERSION: &str = "3.6.0";

/// Size, leader and alarms of this member.
pub fn status(server: &Server) -> StatusResponse {
    let identity = server.engine.identity();
    let shared = server.engine.shared();
    let size = shared.size();
    let sequence = shared.sequence() as u64;
    let alarms = [("NOSPACE", shared.no_space()), ("CORRUPT", shared.is_corrupt())];
    let raised = alarms.into_iter().filter(|(_, is_raised)| *is_raised);
    let errors = raised.map(|(name, _)| format!("memberID:{} alarm:{name} ", identity.member_id));
    let errors = errors.collect();
    StatusResponse {
        header: identity.header(server.engine.revision()),
        version: ETCD_VERSION.to_owned(),
        db_size: size.total_bytes as i64,
        db_size_in_use: size.used_bytes as i64,
        db_size_quota: shared.limits.quota_bytes as i64,
        leader: shared.leader().unwrap_or(0),
        raft_index: sequence,
        raft_applied_index: sequence,
        raft_term: identity.epoch,
        errors,
        is_learner: false,
        storage_version: ETCD_STORAGE_VERSION.to_owned(),
    }
}
