//! Defragment: gives space back.

use crate::proto::DefragmentResponse;

/// Gives free memory back to the system. On disk there is nothing to wait
/// for: pages that were freed are reused, and dqlite's files follow with its
/// next snapshot. So this blocks nobody, unlike etcd's.
pub fn defragment() -> DefragmentResponse {
    dqlite::memory::trim();
    DefragmentResponse { header: None }
}
