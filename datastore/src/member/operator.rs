//! What operators may ask any member, on the port of clients.

use std::time::Duration;

use dqlite::{MemberId, Role};
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

use super::channel::{is_passed_on, pass_on};
use super::keeper::{Keeper, RemoveError};
use crate::proto::peer::members_client::MembersClient;
use crate::proto::peer::members_server::Members;
use crate::proto::peer::{
    ListRequest, ListResponse, MemberView, RemoveRequest, RemoveResponse, Role as WireRole,
};
use crate::shared::Shared;

/// A removal is tried again while leadership moves.
const REMOVE_ATTEMPTS_MAX: u32 = 20;
/// Pause between two attempts.
const REMOVE_PAUSE: Duration = Duration::from_millis(100);

/// What the leader may take to say who belongs to the cluster.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// See the module's words. The same service answers operators at any member,
/// and other members at the leader.
#[derive(Clone)]
pub struct Operator {
    pub keeper: Keeper,
}

/// The client of an operator.
pub type Client = MembersClient<Channel>;

impl Operator {
    /// Who leads, as this member knows.
    pub fn leader(&self) -> Option<MemberId> {
        *self.keeper.leader.borrow()
    }

    /// The members as this one sees them.
    pub async fn list(&self) -> Result<ListResponse, dqlite::Error> {
        let keeper = &self.keeper;
        let now = crate::clock::now();
        let own = keeper.roster.own();
        let leader = *keeper.leader.borrow();
        let engine = &keeper.engines.kube;
        let shared = engine.shared();
        let view = |member: &dqlite::MemberInfo| {
            let peer = keeper.roster.peer(member.id).unwrap_or_default();
            let health = keeper.health.get(member.id);
            let is_own = member.id == own;
            let (revision, sequence, size_bytes) = match (is_own, &health) {
                (true, _) => {
                    let size = shared.size().total_bytes;
                    (engine.revision().0, shared.sequence(), size)
                }
                (false, Some(one)) => {
                    let kube = &one.standing.kube;
                    (kube.revision, kube.sequence, one.size_bytes)
                }
                (false, None) => (0, 0, 0),
            };
            MemberView {
                id: member.id.0,
                address: peer.address,
                failure_domain: peer.failure_domain,
                role: wire_role(member.role).into(),
                is_leader: leader == Some(member.id),
                reachable: is_own || health.as_ref().is_some_and(|one| one.is_reachable(now)),
                revision,
                sequence,
                size_bytes,
                round_trip_us: us(keeper.health.round_trip(member.id)),
                client_urls: peer.client_urls,
                node: peer.node,
                latency_us: us(match is_own {
                    true => Some(keeper.roster.latency()),
                    false => health.as_ref().and_then(|one| one.latency),
                }),
            }
        };
        let members = keeper.members().await?;
        if let Some(told) = self.ask_leader(&members).await {
            return Ok(told);
        }
        let members = members.iter().map(view).collect();
        Ok(ListResponse {
            cluster_id: keeper.roster.cluster_id().unwrap_or(0),
            answered_by: own.0,
            leader: leader.map_or(0, |id| id.0),
            members,
        })
    }

    /// What the leader says, if raft has not told this member that it is one.
    async fn ask_leader(&self, members: &[dqlite::MemberInfo]) -> Option<ListResponse> {
        let own = self.keeper.roster.own();
        let leader = self.leader().filter(|leader| *leader != own)?;
        if members.iter().any(|member| member.id == own) {
            return None;
        }
        let mut client = self.keeper.channels.operator(leader);
        let told = tokio::time::timeout(ANSWER_TIMEOUT, client.list(ListRequest {})).await;
        let told = told.ok()?.ok()?.into_inner();
        Some(ListResponse { answered_by: own.0, ..told })
    }

    async fn remove_here(&self, id: MemberId) -> Result<(), Status> {
        self.keeper.remove(id).await.map_err(|error| match error {
            RemoveError::Unknown(_) => Status::not_found(error.to_string()),
            RemoveError::Majority(_) => Status::failed_precondition(error.to_string()),
            error => Status::unavailable(error.to_string()),
        })
    }
}

fn us(duration: Option<Duration>) -> u64 {
    duration.map_or(0, |duration| duration.as_micros() as u64)
}

fn wire_role(role: Role) -> WireRole {
    match role {
        Role::Voter => WireRole::Voter,
        Role::Standby => WireRole::Standby,
        Role::Spare => WireRole::Spare,
    }
}

/// Where operators ask: finds the operator of the node that runs now.
#[derive(Clone)]
pub struct Desk(pub std::sync::Arc<Shared>);

impl Desk {
    fn operator(&self) -> Result<Operator, Status> {
        self.0.operator().ok_or_else(|| Status::unavailable("the node is starting"))
    }
}

#[tonic::async_trait]
impl Members for Desk {
    async fn list(&self, request: Request<ListRequest>) -> Result<Response<ListResponse>, Status> {
        Members::list(&self.operator()?, request).await
    }

    async fn remove(
        &self,
        request: Request<RemoveRequest>,
    ) -> Result<Response<RemoveResponse>, Status> {
        self.operator()?.remove(request).await
    }
}

#[tonic::async_trait]
impl Members for Operator {
    async fn list(&self, _: Request<ListRequest>) -> Result<Response<ListResponse>, Status> {
        let listed = Operator::list(self).await;
        listed.map(Response::new).map_err(|error| Status::unavailable(error.to_string()))
    }

    async fn remove(
        &self,
        request: Request<RemoveRequest>,
    ) -> Result<Response<RemoveResponse>, Status> {
        // Whoever passed it on asks again.
        let attempts = if is_passed_on(&request) { 1 } else { REMOVE_ATTEMPTS_MAX };
        let id = request.into_inner().id;
        let mut last = Status::unavailable("no member leads at the moment");
        for _ in 0..attempts {
            let leader = *self.keeper.leader.borrow();
            let result = match leader {
                Some(leader) if leader == self.keeper.roster.own() => {
                    self.remove_here(MemberId(id)).await
                }
                Some(leader) => {
                    let mut client = self.keeper.channels.operator(leader);
                    client.remove(pass_on(RemoveRequest { id })).await.map(drop)
                }
                None => Err(last.clone()),
            };
            match result {
                Ok(()) => return Ok(Response::new(RemoveResponse {})),
                Err(status) if status.code() == tonic::Code::Unavailable => last = status,
                Err(status) => return Err(status),
            }
            tokio::time::sleep(REMOVE_PAUSE).await;
        }
        Err(last)
    }
}
