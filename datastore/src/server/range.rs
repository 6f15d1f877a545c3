//! Range: reads keys, now or at an older revision.

use tonic::Status;

use super::Server;
use crate::proto::{RangeRequest, RangeResponse};

/// Answers from the index; with one member every answer is linearizable, for
/// the index holds whatever was acknowledged.
pub fn range(server: &Server, request: &RangeRequest) -> Result<RangeResponse, Status> {
    Ok(server.engine.range(request)?)
}
