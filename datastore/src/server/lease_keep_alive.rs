//! LeaseKeepAlive: gives leases their full time again, as long as one asks.

use futures::StreamExt;
use tonic::{Status, Streaming};

use super::Server;
use super::front::as_etcd_says;
use super::services::Answers;
use crate::error::RequestError;
use crate::proto::{LeaseKeepAliveRequest, LeaseKeepAliveResponse};
use crate::record::LeaseId;

/// Answers each request in turn; a lease that is gone has a time of 0.
pub fn lease_keep_alive(
    server: &Server,
    requests: Streaming<LeaseKeepAliveRequest>,
) -> Answers<LeaseKeepAliveResponse> {
    let mut stopping = server.stopping.clone();
    let server = server.clone();
    let answers = requests.then(move |request| renew(server.clone(), request));
    let stop = async move {
        // The sender lives as long as the server.
        let _ = stopping.wait_for(|stopping| *stopping).await;
    };
    Box::pin(answers.take_until(Box::pin(stop)))
}

async fn renew(
    server: Server,
    request: Result<LeaseKeepAliveRequest, Status>,
) -> Result<LeaseKeepAliveResponse, Status> {
    let request = request.map_err(as_etcd_says)?;
    if !server.engine.shared().is_sound() {
        return Err(RequestError::Corrupt.into());
    }
    let ttl = server.engine.renew(LeaseId(request.id)).await?.unwrap_or(0);
    let header = server.engine.identity().header(server.engine.revision());
    Ok(LeaseKeepAliveResponse { header, id: request.id, ttl })
}
