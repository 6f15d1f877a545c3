//! Put: writes one key.

use tonic::Status;

use super::Server;
use crate::proto::{PutRequest, PutResponse};

/// Queues the write and answers when it is durable.
pub async fn put(server: &Server, request: PutRequest) -> Result<PutResponse, Status> {
    Ok(server.engine.put(request).await?)
}
