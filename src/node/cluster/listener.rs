//! Answers what the agent passes on: requests of other nodes and of machines that would be one, on
//! a socket that serves nothing else.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use microcluster::message::{
    Answer, LeaveStep, Message, REQUEST_MESSAGE_BYTES_MAX, Refusal, Request as Asked,
};
use microcluster::protocol::Caller;
use microcluster::record::{MemberState, NodeRole};
use microcluster::tls::Standing;
use microcluster::{caller, reach};
use serde::{Deserialize, Serialize};
use skiff_api::ErrorBody;
use time::OffsetDateTime;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;

use super::ask::PATH;
use super::{Cluster, ClusterDesk, GroundError, peers, quorum};
use crate::node::{account, server};
use crate::paths::Paths;

/// Requests at once: the agent itself passes on 80 at most.
const CONNECTIONS_MAX: usize = 96;
/// Pause after a failed accept, which is for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What anybody is told: enough to see whether the clocks agree.
#[derive(Debug, Serialize, Deserialize)]
pub struct Greeting {
    #[serde(with = "time::serde::rfc3339")]
    pub now: OffsetDateTime,
}

/// Root's, and the agent may open it.
pub fn bind(paths: &Paths) -> Result<UnixListener, GroundError> {
    let agent = account::ensure_agent()?;
    let socket = paths.skiffd_cluster_socket();
    server::bind(&socket, agent.gid).map_err(|e| GroundError::Listen(socket, e))
}

/// Serves until the task is dropped.
pub async fn serve(listener: UnixListener, cluster: Arc<Cluster>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let place = places.clone().acquire_owned().await.expect("the semaphore is never closed");
        match listener.accept().await {
            Ok((stream, _)) => {
                let cluster = cluster.clone();
                tokio::spawn(async move {
                    connection(stream, &cluster).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection of the agent");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn connection(stream: UnixStream, cluster: &Cluster) {
    let service =
        service_fn(|request| async move { Ok::<_, Infallible>(answer(request, cluster).await) });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a connection of the agent ended early");
    }
}

async fn answer(request: Request<Incoming>, cluster: &Cluster) -> Response<Full<Bytes>> {
    let (parts, body) = request.into_parts();
    if parts.uri.path() != PATH {
        return refused(StatusCode::NOT_FOUND, "there is nothing at this path");
    }
    if parts.method == Method::GET {
        return json(&Greeting { now: OffsetDateTime::now_utc() });
    }
    let Some(desk) = &cluster.desk else {
        return refused(StatusCode::NOT_FOUND, "this node runs no control plane");
    };
    let shown = match caller::Caller::read(&parts.headers) {
        Ok(caller) => caller,
        Err(error) => return refused(StatusCode::BAD_REQUEST, &error.to_string()),
    };
    let from = shown.address;
    // One that has expired counts, too: who may still use it is decided by the protocol.
    let caller = match &shown.certificate {
        Some(shown) if shown.standing == Standing::Former => Caller::of_former(&shown.der),
        shown => Caller::of(shown.as_ref().map(|shown| &shown.der[..])),
    };
    let answer = match caller {
        Err(refusal) => Answer::Refused(refusal),
        Ok(caller) => match Limited::new(body, REQUEST_MESSAGE_BYTES_MAX).collect().await {
            Ok(body) => {
                let bytes = body.to_bytes();
                if let Some(refusal) = quorum::refusal_of_others(cluster) {
                    return Response::new(Full::new(Answer::Refused(refusal).to_bytes().into()));
                }
                match release_peer(cluster, desk, &bytes, &caller).await {
                    Ok(()) => {
                        let answer = desk.answer(&bytes, &caller).await;
                        reached(desk, &bytes, answer, from.ip()).await
                    }
                    Err(refusal) => Answer::Refused(refusal),
                }
            }
            Err(error) => return refused(StatusCode::BAD_REQUEST, &error.to_string()),
        },
    };
    match &answer {
        Answer::Asked(_) | Answer::Members { .. } => {}
        Answer::Refused(refusal) => tracing::info!(%from, reason = %refusal, "told no"),
        _ => cluster.wake(),
    }
    Response::new(Full::new(answer.to_bytes().into()))
}

/// Whoever would be let in must also be there, where it says that it is.
async fn reached(desk: &ClusterDesk, body: &[u8], answer: Answer, from: IpAddr) -> Answer {
    let Answer::Asked(_) = answer else { return answer };
    let tried = async {
        let message = Message::parse(body)?;
        reach::try_joiner(&desk.record().await?, &message, from).await
    };
    match tried.await {
        Ok(()) => answer,
        Err(refusal) => Answer::Refused(refusal),
    }
}

/// Before a control-plane node has left the record, its member must have left the datastore: from
/// then on it is cut off, and where it still votes, a majority may go with it.
async fn release_peer(
    cluster: &Cluster,
    desk: &ClusterDesk,
    bytes: &[u8],
    caller: &Caller,
) -> Result<(), Refusal> {
    // What is wrong with a request is told by the desk.
    let Ok(Message { request: Asked::Leave(LeaveStep::Finish), .. }) = Message::parse(bytes) else {
        return Ok(());
    };
    let record = desk.record().await?;
    let Ok(member) = caller.identify(&record, OffsetDateTime::now_utc()) else { return Ok(()) };
    let (role, state) = (member.value.role, &member.value.state);
    if role != NodeRole::ControlPlane || !matches!(state, MemberState::Leaving) {
        return Ok(());
    }
    let removed = peers::remove(&cluster.paths, member.value.id).await;
    removed.map_err(|error| peers::refusal(&error))
}

fn json<T: Serialize>(value: &T) -> Response<Full<Bytes>> {
    let bytes = serde_json::to_vec(value).expect("texts and times can be written");
    Response::new(Full::new(bytes.into()))
}

fn refused(status: StatusCode, message: &str) -> Response<Full<Bytes>> {
    let mut response = json(&ErrorBody { message: message.into(), causes: vec![], hint: None });
    *response.status_mut() = status;
    response
}
