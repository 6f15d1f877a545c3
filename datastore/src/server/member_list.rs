//! MemberList: says who belongs to the cluster.

use super::Server;
use crate::proto::{Member, MemberListResponse};

/// One member so far: this one.
pub fn member_list(server: &Server) -> MemberListResponse {
    let identity = server.engine.identity();
    let member = Member {
        id: identity.member_id,
        name: "skiff".to_owned(),
        peer_ur_ls: Vec::new(),
        client_ur_ls: Vec::new(),
        is_learner: false,
    };
    MemberListResponse { header: identity.header(server.engine.revision()), members: vec![member] }
}
