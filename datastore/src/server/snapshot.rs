//! Snapshot: a verifiable copy of the whole datastore, while it goes on.
//!
//! etcd's request has no fields. Ours may name an older revision in its
//! metadata; etcd's clients don't, and get the newest.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use futures::StreamExt;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tonic::metadata::MetadataMap;

use super::Server;
use super::services::Answers;
use super::status::ETCD_STORAGE_VERSION;
use crate::error::RequestError;
use crate::key_range::KeyRange;
use crate::lease::LEASE_TTL_MIN_S;
use crate::proto::{RangeRequest, SnapshotResponse};
use crate::record::{LeaseId, Record, Revision};
use crate::snapshot::{Summary, Writer, milliseconds};

/// Pieces that wait for a client that reads slowly.
const PIECES_MAX: usize = 4;
/// Keys that are laid out before others get their turn: about a millisecond.
const KEYS_PER_TURN: usize = 64;
/// A compaction every few minutes is usual, one within milliseconds is not.
const ATTEMPTS_MAX: u32 = 3;
/// The metadata that asks for an older revision.
pub const REVISION_METADATA: &str = "skiff-revision";

/// What a snapshot is made of; pointers into the index, so that it costs
/// little memory however slowly the client reads.
struct Contents {
    taken: SystemTime,
    revision: Revision,
    leases: BTreeMap<LeaseId, i64>,
    records: Vec<Arc<Record>>,
}

/// Copies everything at the newest revision, or at the one that is asked for.
pub async fn snapshot(
    server: &Server,
    metadata: &MetadataMap,
) -> Result<Answers<SnapshotResponse>, Status> {
    let contents = match wanted(metadata)? {
        Some(revision) => collect_once(server, Some(revision)).await?,
        None => collect(server).await?,
    };
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

fn wanted(metadata: &MetadataMap) -> Result<Option<Revision>, Status> {
    let Some(value) = metadata.get(REVISION_METADATA) else { return Ok(None) };
    let number = value.to_str().ok().and_then(|text| text.parse().ok()).filter(|n| *n > 0);
    let bad = || Status::invalid_argument(format!("{REVISION_METADATA} is no revision"));
    number.map(|number| Some(Revision(number))).ok_or_else(bad)
}

/// Begins anew when a compaction overtakes it.
async fn collect(server: &Server) -> Result<Contents, Status> {
    let mut attempt = 0;
    loop {
        match collect_once(server, None).await {
            Err(RequestError::Compacted) if attempt < ATTEMPTS_MAX => attempt += 1,
            result => return Ok(result?),
        }
    }
}

async fn collect_once(server: &Server, at: Option<Revision>) -> Result<Contents, RequestError> {
    let engine = &server.engine;
    let taken = SystemTime::now();
    let (revision, mut leases) = {
        let state = engine.shared().read();
        let leases: BTreeMap<_, _> = state.leases.all().collect();
        (at.unwrap_or(state.index.committed()), leases)
    };
    let (key, range_end) = KeyRange::all_on_wire();
    let request = RangeRequest { key, range_end, revision: revision.0, ..Default::default() };
    let found = engine.search(&request).await?;
    for lease in found.records.iter().map(|record| record.lease).filter(|lease| lease.is_some()) {
        // Leases have no history. One that has ended since then, and would
        // have taken its keys along, does so soon after a restore.
        leases.entry(lease).or_insert(LEASE_TTL_MIN_S);
    }
    Ok(Contents { taken, revision, leases, records: found.records })
}

/// Ends early when nobody takes the pieces any more.
async fn send(
    contents: Contents,
    cluster_id: u64,
    pieces: mpsc::Sender<Result<SnapshotResponse, Status>>,
) {
    let mut writer = Writer::new(&Summary {
        revision: contents.revision,
        cluster_id,
        taken_ms: milliseconds(contents.taken),
        leases: contents.leases.len() as u64,
        keys: contents.records.len() as u64,
        ..Summary::default()
    });
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
