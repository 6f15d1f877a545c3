//! DeleteRange: deletes keys.

use tonic::Status;

use super::Server;
use crate::proto::{DeleteRangeRequest, DeleteRangeResponse};

/// Queues the deletion and answers when it is durable.
pub async fn delete_range(
    server: &Server,
    request: DeleteRangeRequest,
) -> Result<DeleteRangeResponse, Status> {
    Ok(server.engine.delete_range(request).await?)
}
