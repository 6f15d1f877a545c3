//! Compact: lets old revisions be forgotten.

use std::time::Duration;

use tonic::Status;

use super::Server;
use crate::proto::{CompactionRequest, CompactionResponse};
use crate::record::Revision;

/// How often a client who waits for a compaction to be done has it looked at.
const PHYSICAL_PAUSE: Duration = Duration::from_millis(2);

/// Answers when the compaction is durable. What nobody can read any more is
/// then freed in small steps; with `physical` the answer waits for them.
pub async fn compact(
    server: &Server,
    request: &CompactionRequest,
) -> Result<CompactionResponse, Status> {
    let revision = server.engine.compact(Revision(request.revision)).await?;
    let mut stopping = server.stopping.clone();
    while request.physical && !server.engine.shared().read().index.is_swept() {
        tokio::select! {
            () = tokio::time::sleep(PHYSICAL_PAUSE) => {}
            // It is durable, and is done with after the next start.
            _ = stopping.wait_for(|stopping| *stopping) => break,
        }
    }
    Ok(CompactionResponse { header: server.engine.identity().header(revision) })
}
