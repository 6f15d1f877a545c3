//! Hash and HashKV: a short number for what is stored, to compare members by.
//!
//! The walk over everything goes step by step, so that writers have their turn
//! in between: versions at a revision stay as they are until it is compacted.

use std::sync::Arc;

use tonic::Status;

use super::Server;
use crate::error::RequestError;
use crate::key_range::KeyRange;
use crate::proto::{HashKvRequest, HashKvResponse, HashResponse};
use crate::range::STEP_KEYS_MAX;
use crate::record::{Record, Revision};
use crate::shared::Shared;

/// The hash of everything readable at the newest revision. Begins anew when
/// that one is compacted meanwhile.
pub async fn hash(server: &Server) -> Result<HashResponse, Status> {
    let shared = server.engine.shared();
    loop {
        let revision = shared.read().index.committed();
        match hash_at(shared, revision).await {
            Ok(hash) => {
                let header = server.engine.identity().header(revision);
                return Ok(HashResponse { header, hash });
            }
            Err(RequestError::Compacted) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// The hash of what is readable at a revision; 0 means the newest.
pub async fn hash_kv(server: &Server, request: &HashKvRequest) -> Result<HashKvResponse, Status> {
    let shared = server.engine.shared();
    let newest = shared.read().index.committed();
    let at = if request.revision <= 0 { newest } else { Revision(request.revision) };
    let hash = hash_at(shared, at).await?;
    Ok(HashKvResponse {
        header: server.engine.identity().header(newest),
        hash,
        compact_revision: shared.read().index.compacted().0,
        hash_revision: at.0,
    })
}

async fn hash_at(shared: &Shared, at: Revision) -> Result<u32, RequestError> {
    let mut hash = Fnv::default();
    let mut rest = Some(KeyRange::all());
    let mut records: Vec<Arc<Record>> = Vec::with_capacity(STEP_KEYS_MAX);
    while let Some(range) = rest.take() {
        {
            let state = shared.read();
            state.index.check_readable(at, state.index.committed())?;
            let next = state.index.walk(&range, at, STEP_KEYS_MAX, |record| {
                records.push(record);
                true
            });
            rest = next.map(|start| KeyRange { start, end: range.end });
        }
        records.drain(..).for_each(|record| hash.add_record(&record));
        tokio::task::yield_now().await;
    }
    Ok(hash.0)
}

/// FNV-1a over every living key, its numbers and its value. Members of one
/// cluster agree on it; it is not etcd's number.
struct Fnv(u32);

impl Default for Fnv {
    fn default() -> Fnv {
        Fnv(0x811c_9dc5)
    }
}

impl Fnv {
    fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
        }
    }

    fn add_record(&mut self, record: &Record) {
        self.add(&record.key);
        let numbers = [record.created.0, record.modified.0, record.version, record.lease.0];
        numbers.iter().for_each(|number| self.add(&number.to_be_bytes()));
        self.add(&record.value);
    }
}
