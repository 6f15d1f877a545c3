//! Range: reads keys, now or at an older revision.

use tonic::Status;

use super::Server;
use crate::proto::RangeRequest;
use crate::range::Found;

/// Answers from the index, which holds whatever was acknowledged: at once with
/// one member or for a serializable read, else behind a shared barrier.
pub async fn range(server: &Server, request: &RangeRequest) -> Result<Found, Status> {
    server.engine.settle(request.serializable).await?;
    Ok(server.engine.search(request).await?)
}
