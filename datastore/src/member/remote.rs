//! The leader as a follower sees it.

use std::error::Error;

use dqlite::MemberId;
use tonic::transport::Channel;
use tonic::{Request, Status};

use super::convert::{error_of, from_wire, view_of, wish_of};
use crate::command::{Change, Outcome};
use crate::error::RequestError;
use crate::lease::LeaseView;
use crate::proto::peer::forward_request::Wish;
use crate::proto::peer::forward_response::Outcome as WireOutcome;
use crate::proto::peer::peer_client::PeerClient;
use crate::proto::peer::{BarrierRequest, ForwardRequest};
use crate::record::{LeaseId, Revision};
use crate::route::{LEADER_TIMEOUT, Leader};
use crate::trace;

/// The leader behind a channel.
pub struct Remote {
    /// This member, in whose name answers go out.
    pub own: MemberId,
    pub client: PeerClient<Channel>,
}

impl Remote {
    async fn forward(&self, wish: Wish) -> Result<Option<WireOutcome>, RequestError> {
        let mut request = Request::new(ForwardRequest { wish: Some(wish) });
        trace::inject(request.metadata_mut().as_mut());
        let mut client = self.client.clone();
        let answer = tokio::time::timeout(LEADER_TIMEOUT, client.forward(request)).await;
        match answer {
            Ok(Ok(answer)) => Ok(answer.into_inner().outcome),
            Ok(Err(status)) => Err(lost(&status)),
            Err(_) => Err(RequestError::TimedOut),
        }
    }
}

/// What a failed call means: nothing was done only if there was no connection
/// to send it over.
fn lost(status: &Status) -> RequestError {
    let mut source = status.source();
    while let Some(error) = source {
        if error.is::<tonic::ConnectError>() {
            return RequestError::LeaderChanged;
        }
        source = error.source();
    }
    RequestError::TimedOut
}

#[tonic::async_trait]
impl Leader for Remote {
    async fn change(&self, change: Change) -> Result<Outcome, RequestError> {
        let wish = wish_of(change).ok_or(RequestError::NotSupported)?;
        let mut outcome = from_wire(self.forward(wish).await?)?;
        let header = match &mut outcome {
            Outcome::Put(put) => &mut put.header,
            Outcome::DeleteRange(delete) => &mut delete.header,
            Outcome::Txn(txn) => &mut txn.header,
            Outcome::Done(_) => &mut None,
        };
        if let Some(header) = header {
            header.member_id = self.own.0;
        }
        Ok(outcome)
    }

    async fn barrier(&self) -> Result<Revision, RequestError> {
        let mut client = self.client.clone();
        let answer = tokio::time::timeout(LEADER_TIMEOUT, client.barrier(BarrierRequest {}));
        match answer.await {
            Ok(Ok(answer)) => {
                let answer = answer.into_inner();
                match answer.refused.as_str() {
                    "" => Ok(Revision(answer.revision)),
                    text => Err(error_of(text)),
                }
            }
            // A read may be asked again whatever happened to the first one.
            Ok(Err(_)) => Err(RequestError::LeaderChanged),
            Err(_) => Err(RequestError::TimedOut),
        }
    }

    async fn renew(&self, lease: LeaseId) -> Result<Option<i64>, RequestError> {
        match self.forward(Wish::Renew(lease.0)).await? {
            Some(WireOutcome::Lease(times)) => Ok(times.exists.then_some(times.granted_ttl_s)),
            Some(WireOutcome::Refused(text)) => Err(error_of(&text)),
            _ => Err(RequestError::TimedOut),
        }
    }

    async fn view(&self, lease: LeaseId) -> Result<Option<LeaseView>, RequestError> {
        match self.forward(Wish::View(lease.0)).await? {
            Some(WireOutcome::Lease(times)) => Ok(view_of(&times)),
            Some(WireOutcome::Refused(text)) => Err(error_of(&text)),
            _ => Err(RequestError::TimedOut),
        }
    }
}
