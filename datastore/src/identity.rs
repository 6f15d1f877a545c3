//! Who answers: the numbers that etcd's clients find in every header.

use crate::proto::ResponseHeader;
use crate::record::Revision;

/// Names of the cluster and of this member, and the writer's epoch, which
/// stands where etcd has its raft term.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    pub cluster_id: u64,
    pub member_id: u64,
    pub epoch: u64,
}

impl Identity {
    /// Nobody: operations within a transaction are answered without names.
    pub const UNNAMED: Identity = Identity { cluster_id: 0, member_id: 0, epoch: 0 };

    /// The header of an answer that reflects `revision`.
    pub fn header(&self, revision: Revision) -> Option<ResponseHeader> {
        Some(ResponseHeader {
            cluster_id: self.cluster_id,
            member_id: self.member_id,
            revision: revision.0,
            raft_term: self.epoch,
        })
    }
}
