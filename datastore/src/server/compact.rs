//! Compact: lets old revisions be forgotten.

use tonic::Status;

use super::Server;
use crate::proto::{CompactionRequest, CompactionResponse};
use crate::record::Revision;

/// Answers when the compaction is durable; space is freed in small steps
/// behind it, so `physical` does not wait for more.
pub async fn compact(
    server: &Server,
    request: &CompactionRequest,
) -> Result<CompactionResponse, Status> {
    let revision = server.engine.compact(Revision(request.revision)).await?;
    Ok(CompactionResponse { header: server.engine.identity().header(revision) })
}
