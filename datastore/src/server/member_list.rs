//! MemberList: says who belongs to the cluster.

use tonic::Status;

use super::Server;
use crate::proto::peer::{MemberView, Role};
use crate::proto::{Member, MemberListResponse};

/// Every member; one without others knows itself.
pub async fn member_list(server: &Server) -> Result<MemberListResponse, Status> {
    let identity = server.engine.identity();
    let header = identity.header(server.engine.revision());
    if let Some(operator) = server.engine.shared().operator() {
        let listed = operator.list().await;
        let listed = listed.map_err(|error| Status::unavailable(error.to_string()))?;
        let members = listed.members.into_iter().map(etcd_member).collect();
        return Ok(MemberListResponse { header, members });
    }
    if !server.engine.is_alone() {
        return Err(Status::unavailable("the node is starting"));
    }
    let member = Member {
        id: identity.member_id,
        name: "skiff".to_owned(),
        peer_ur_ls: Vec::new(),
        client_ur_ls: Vec::new(),
        is_learner: false,
    };
    Ok(MemberListResponse { header, members: vec![member] })
}

/// Stand-bys and spares are what etcd calls learners: they don't vote.
fn etcd_member(member: MemberView) -> Member {
    Member {
        id: member.id,
        name: format!("skiff-{}", member.id),
        is_learner: member.role() != Role::Voter,
        peer_ur_ls: vec![format!("https://{}", member.address)],
        client_ur_ls: member.client_urls,
    }
}
