//! Range: reads keys, now or at an older revision.

use tonic::Status;

use super::Server;
use crate::proto::RangeRequest;
use crate::range::Found;

/// Answers from the index; with one member every answer is linearizable, for
/// the index holds whatever was acknowledged.
pub async fn range(server: &Server, request: &RangeRequest) -> Result<Found, Status> {
    Ok(server.engine.search(request).await?)
}
