//! Snapshot: a verifiable copy of the whole datastore, while it goes on.

use std::sync::Arc;

use futures::StreamExt;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::Server;
use super::services::Answers;
use super::status::ETCD_STORAGE_VERSION;
use crate::error::RequestError;
use crate::key_range::KeyRange;
use crate::proto::{RangeRequest, SnapshotResponse};
use crate::record::{LeaseId, Record, Revision};
use crate::snapshot::Writer;

/// Pieces that wait for a client that reads slowly.
const PIECES_MAX: usize = 4;
/// Keys that are laid out before others get their turn: about a millisecond.
const KEYS_PER_TURN: usize = 64;
/// A compaction every few minutes is usual, one within milliseconds is not.
const ATTEMPTS_MAX: u32 = 3;

/// What a snapshot is made of; pointers into the index, so that it costs
/// little memory however slowly the client reads.
struct Contents {
    revision: Revision,
    leases: Vec<(LeaseId, i64)>,
    records: Vec<Arc<Record>>,
}

/// Copies everything at the newest revision.
pub async fn snapshot(server: &Server) -> Result<Answers<SnapshotResponse>, Status> {
    let contents = collect(server).await?;
    let cluster_id = server.engine.identity().cluster_id;
    let (pieces, receiver) = mpsc::channel(PIECES_MAX);
    tokio::spawn(send(contents, cluster_id, pieces));
    let mut stopping = server.stopping.clone();
    let stop = async move {
        // The sender lives as long as the server.
        let _ = stopping.wait_for(|stopping| *stopping).await;
    };
    Ok(Box::pin(ReceiverStream::new(receiver).take_until(Box::pin(stop))))
}

/// Begins anew when a compaction overtakes it.
async fn collect(server: &Server) -> Result<Contents, Status> {
    let mut attempt = 0;
    loop {
        match collect_once(server).await {
            Err(RequestError::Compacted) if attempt < ATTEMPTS_MAX => attempt += 1,
            result => return Ok(result?),
        }
    }
}

async fn collect_once(server: &Server) -> Result<Contents, RequestError> {
    let engine = &server.engine;
    let (revision, leases) = {
        let state = engine.shared().read();
        (state.index.committed(), state.leases.all().collect())
    };
    let (key, range_end) = KeyRange::all_on_wire();
    let request = RangeRequest { key, range_end, revision: revision.0, ..Default::default() };
    let found = engine.search(&request).await?;
    Ok(Contents { revision, leases, records: found.records })
}

/// Ends early when nobody takes the pieces any more.
async fn send(
    contents: Contents,
    cluster_id: u64,
    pieces: mpsc::Sender<Result<SnapshotResponse, Status>>,
) {
    let mut writer = Writer::new(cluster_id, contents.revision);
    for (lease, ttl_s) in contents.leases {
        writer.lease(lease, ttl_s);
    }
    let bytes = |record: &Arc<Record>| (record.key.len() + record.value.len()) as u64;
    let mut remaining: u64 = contents.records.iter().map(bytes).sum();
    for (position, record) in contents.records.iter().enumerate() {
        writer.key(record);
        remaining -= bytes(record);
        let blob = writer.take();
        if !blob.is_empty() && pieces.send(Ok(piece(blob, remaining.max(1)))).await.is_err() {
            return;
        }
        if position % KEYS_PER_TURN == 0 {
            tokio::task::yield_now().await;
        }
    }
    let _ = pieces.send(Ok(piece(writer.finish(), 0))).await;
}

/// `remaining_bytes` is an estimate: what is still to come, not compressed.
fn piece(blob: Vec<u8>, remaining_bytes: u64) -> SnapshotResponse {
    let version = ETCD_STORAGE_VERSION.to_owned();
    SnapshotResponse { header: None, remaining_bytes, blob: blob.into(), version }
}
