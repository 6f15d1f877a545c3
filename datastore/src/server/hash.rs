//! Hash and HashKV: a short number for what is stored, to compare members by.

use tonic::Status;

use super::Server;
use crate::index::Index;
use crate::key_range::KeyRange;
use crate::proto::{HashKvRequest, HashKvResponse, HashResponse};
use crate::record::Revision;

/// The hash of everything readable at the newest revision.
pub fn hash(server: &Server) -> Result<HashResponse, Status> {
    let state = server.engine.shared().read();
    let revision = state.index.committed();
    let header = server.engine.identity().header(revision);
    Ok(HashResponse { header, hash: hash_at(&state.index, revision) })
}

/// The hash of what is readable at a revision; 0 means the newest.
pub fn hash_kv(server: &Server, request: &HashKvRequest) -> Result<HashKvResponse, Status> {
    let state = server.engine.shared().read();
    let newest = state.index.committed();
    let at = if request.revision <= 0 { newest } else { Revision(request.revision) };
    state.index.check_readable(at, newest).map_err(crate::error::RequestError::from)?;
    Ok(HashKvResponse {
        header: server.engine.identity().header(newest),
        hash: hash_at(&state.index, at),
        compact_revision: state.index.compacted().0,
        hash_revision: at.0,
    })
}

/// FNV-1a over every living key, its numbers and its value. Members of one
/// cluster agree on it; it is not etcd's number.
fn hash_at(index: &Index, revision: Revision) -> u32 {
    let mut hash = 0x811c_9dc5_u32;
    let mut add = |bytes: &[u8]| {
        for byte in bytes {
            hash = (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
        }
    };
    for record in index.range(&KeyRange::all(), revision) {
        add(&record.key);
        let numbers = [record.created.0, record.modified.0, record.version, record.lease.0];
        numbers.iter().for_each(|number| add(&number.to_be_bytes()));
        add(&record.value);
    }
    hash
}
