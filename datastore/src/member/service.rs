//! What other members may ask this one.

use std::pin::Pin;
use std::sync::Arc;

use dqlite::MemberId;
use futures::Stream;
use tokio::sync::{Notify, watch};
use tonic::{Code, Request, Response, Status};

use super::channel::{Channels, is_passed_on, pass_on};
use super::convert::{change_of, times_of, to_wire};
use super::gossip::{HealthTable, message};
use super::keeper::{AdmitError, admit};
use super::nodes::Visitor;
use super::roster::Roster;
use super::{VERSION, is_understood};
use super::{refusals, source};
use crate::clock;
use crate::command::{Change, Outcome};
use crate::database::{Database, Databases};
use crate::engine::Engine;
use crate::error::RequestError;
use crate::proto::peer::forward_request::Wish;
use crate::proto::peer::forward_response::Outcome as WireOutcome;
use crate::proto::peer::peer_server::Peer;
use crate::proto::peer::*;
use crate::record::LeaseId;
use crate::store::Sequence;
use crate::store::node::SqlNode;
use crate::trace;

/// See the module's words. What concerns a database is about that of `engine`,
/// so that there is one of this for each.
#[derive(Clone)]
pub struct PeerService {
    pub database: Database,
    pub engine: Engine,
    /// All of this node.
    pub engines: Databases<Engine>,
    pub node: Arc<dyn SqlNode>,
    pub roster: Arc<Roster>,
    pub channels: Arc<Channels>,
    pub leader: watch::Receiver<Option<MemberId>>,
    pub health: Arc<HealthTable>,
    /// Rung when the node has to start again.
    pub restart: Arc<Notify>,
}

/// What a forwarded write is called in traces.
const FORWARD: &str = "skiff.datastore.Peer/Forward";

type Answer<T> = Result<Response<T>, Status>;
type Parts = Pin<Box<dyn Stream<Item = Result<FollowResponse, Status>> + Send>>;

impl PeerService {
    fn check(&self, version: u32, cluster_id: u64, from: u64) -> Result<(), Status> {
        if !is_understood(version) {
            let text = format!("this member speaks version {VERSION} of the protocol");
            return Err(Status::failed_precondition(text));
        }
        match self.roster.cluster_id() {
            None => return Err(Status::unavailable("this member has not joined yet")),
            Some(own) if own != cluster_id => {
                return Err(refusals::foreign());
            }
            Some(_) => {}
        }
        if self.roster.is_removed(MemberId(from)) {
            return Err(Status::permission_denied("you were removed from this cluster"));
        }
        Ok(())
    }

    /// Passes a request to join on to the leader, once.
    async fn join_at_leader(&self, request: Request<JoinRequest>) -> Answer<JoinResponse> {
        let leader = *self.leader.borrow();
        let leader = leader.filter(|leader| *leader != self.roster.own());
        let Some(leader) = leader.filter(|_| !is_passed_on(&request)) else {
            return Err(Status::unavailable("no member leads at the moment"));
        };
        self.channels.to(leader).join(pass_on(request.into_inner())).await
    }

    async fn renew(&self, lease: i64) -> WireOutcome {
        if !self.engine.leads() {
            return WireOutcome::Refused(RequestError::LeaderChanged.to_string());
        }
        let ttl_s = self.engine.renew_here(LeaseId(lease));
        WireOutcome::Lease(LeaseTimes {
            exists: ttl_s.is_some(),
            granted_ttl_s: ttl_s.unwrap_or(0),
            ..LeaseTimes::default()
        })
    }

    fn view(&self, lease: i64) -> WireOutcome {
        if !self.engine.leads() {
            return WireOutcome::Refused(RequestError::LeaderChanged.to_string());
        }
        WireOutcome::Lease(times_of(self.engine.lease_here(LeaseId(lease))))
    }

    /// Does what another member's client wished for.
    async fn fulfil(&self, request: ForwardRequest) -> Answer<ForwardResponse> {
        let outcome = match request.wish {
            Some(_) if !self.engine.shared().is_sound() => {
                WireOutcome::Refused(RequestError::LeaderChanged.to_string())
            }
            None => return Err(Status::invalid_argument("a wish of an unknown kind")),
            Some(Wish::Renew(lease)) => self.renew(lease).await,
            Some(Wish::View(lease)) => self.view(lease),
            Some(wish) => match change_of(wish) {
                Some(change) => to_wire(self.engine.change_here(change).await),
                None => return Err(Status::invalid_argument("that is no change")),
            },
        };
        Ok(Response::new(ForwardResponse { outcome: Some(outcome) }))
    }
}

#[tonic::async_trait]
impl Peer for PeerService {
    type FollowStream = Parts;

    async fn join(&self, request: Request<JoinRequest>) -> Answer<JoinResponse> {
        let asked = request.get_ref();
        if !is_understood(asked.version) {
            let text = format!("this member speaks version {VERSION} of the protocol");
            return Err(Status::invalid_argument(text));
        }
        let Some(member) = asked.member.clone().filter(|member| member.id > 1) else {
            return Err(Status::invalid_argument("the request names no member"));
        };
        // Whoever passes it on has looked, and shows its own certificate.
        let shown = request.extensions().get::<Visitor>().and_then(|one| one.node.as_deref());
        if shown.is_some_and(|shown| shown != member.node) && !is_passed_on(&request) {
            return Err(Status::permission_denied("the certificate is that of another node"));
        }
        if !self.engine.leads() {
            return self.join_at_leader(request).await;
        }
        match admit(&*self.node, &self.roster, member).await {
            Ok(()) => Ok(Response::new(JoinResponse {
                version: VERSION,
                cluster_id: self.roster.cluster_id().unwrap_or(0),
                peers: self.roster.entries(),
                round_trip_us: self
                    .health
                    .round_trip_max(clock::now())
                    .map_or(0, |round_trip| round_trip.as_micros() as u64),
            })),
            Err(error @ AdmitError::Removed) => Err(Status::permission_denied(error.to_string())),
            Err(error) => Err(Status::unavailable(error.to_string())),
        }
    }

    async fn gossip(&self, request: Request<GossipMessage>) -> Answer<GossipMessage> {
        let told = request.into_inner();
        // Whoever was removed is told so by the table.
        match self.check(told.version, told.cluster_id, told.from) {
            Err(status) if !self.roster.is_removed(MemberId(told.from)) => return Err(status),
            _ => {}
        }
        let merged = self.roster.merge(told.peers);
        merged.map_err(|error| Status::internal(error.to_string()))?;
        Ok(Response::new(message(&self.engines, &self.roster, &self.health)))
    }

    async fn follow(&self, request: Request<FollowRequest>) -> Answer<Self::FollowStream> {
        let request = request.into_inner();
        self.check(request.version, request.cluster_id, request.from)?;
        if !self.engine.leads() || !self.engine.shared().is_sound() {
            return Err(Status::unavailable("this member does not lead"));
        }
        let shared = self.engine.shared().clone();
        let after = request.after.map(Sequence);
        Ok(Response::new(Box::pin(source::follow(shared, self.database, self.node.clone(), after))))
    }

    async fn forward(&self, request: Request<ForwardRequest>) -> Answer<ForwardResponse> {
        let Some(traced) = trace::begin(request.metadata().as_ref(), FORWARD) else {
            return self.fulfil(request.into_inner()).await;
        };
        let answer = traced.within(self.fulfil(request.into_inner())).await;
        traced.end(answer.as_ref().map_or_else(Status::code, |_| Code::Ok));
        answer
    }

    async fn retune(&self, request: Request<RetuneRequest>) -> Answer<RetuneResponse> {
        let request = request.into_inner();
        self.check(request.version, request.cluster_id, request.from)?;
        let noted = self.roster.set_round_trip_us(request.round_trip_us);
        noted.map_err(|error| Status::internal(error.to_string()))?;
        self.restart.notify_one();
        Ok(Response::new(RetuneResponse {}))
    }

    async fn barrier(&self, _request: Request<BarrierRequest>) -> Answer<BarrierResponse> {
        let result = if !self.engine.leads() || !self.engine.shared().is_sound() {
            Err(RequestError::LeaderChanged)
        } else if self.engine.shared().is_sole_voter() {
            Ok(Outcome::Done(self.engine.revision()))
        } else {
            self.engine.change_here(Change::Barrier).await
        };
        let answer = match result {
            Ok(Outcome::Done(revision)) => {
                BarrierResponse { revision: revision.0, refused: String::new() }
            }
            Ok(_) => return Err(Status::internal("a barrier has no such outcome")),
            Err(error) => BarrierResponse { revision: 0, refused: error.to_string() },
        };
        Ok(Response::new(answer))
    }
}
