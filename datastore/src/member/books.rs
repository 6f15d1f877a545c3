//! What a follower keeps so that it can go on with the leader's compaction.
//!
//! A chunk is dirty when keys of its range were compacted since it was
//! written. The leader's compactor knows which; a follower learns the same
//! from the rows and from the leader's word about chunks that were written.
//! A word that was missed makes more chunks dirty, never fewer.

use std::collections::BTreeSet;
use std::ops::Bound;

use bytes::Bytes;

use crate::state::ChunkInfo;

/// Chunks by their first keys.
#[derive(Debug, Default)]
pub struct Books {
    chunks: BTreeSet<Bytes>,
    dirty: BTreeSet<Bytes>,
}

impl Books {
    /// The books of someone who knows of `chunks`, of which those that hold
    /// `touched` are dirty.
    pub fn new(chunks: impl IntoIterator<Item = Bytes>, touched: &[Bytes]) -> Books {
        let mut books = Books { chunks: chunks.into_iter().collect(), dirty: BTreeSet::new() };
        books.mark_dirty(touched);
        books
    }

    /// Notes keys whose past was compacted.
    pub fn mark_dirty(&mut self, keys: &[Bytes]) {
        for key in keys {
            let chunk = self.chunk_of(key);
            if !self.dirty.contains(&chunk) {
                self.dirty.insert(chunk);
            }
        }
    }

    /// Notes that the leader has written and removed chunks.
    pub fn note(&mut self, put: Vec<Bytes>, remove: &[Bytes]) {
        for key in remove {
            self.chunks.remove(key);
            if self.dirty.remove(key) {
                self.dirty.insert(self.chunk_of(key));
            }
        }
        for key in put {
            self.dirty.remove(&key);
            self.chunks.insert(key);
        }
    }

    /// What the store's chunks say about keys that were touched: those of
    /// dirty chunks, and of chunks that were divided without our knowledge.
    pub fn touched(&self, stored: &[ChunkInfo]) -> Vec<Bytes> {
        let unknown = stored
            .iter()
            .map(|chunk| &chunk.first_key)
            .filter(|key| !self.chunks.contains(*key))
            .filter(|key| self.dirty.contains(&self.chunk_of(key)));
        self.dirty.iter().chain(unknown).cloned().collect()
    }

    fn chunk_of(&self, key: &[u8]) -> Bytes {
        let upto = (Bound::Unbounded, Bound::Included(key));
        self.chunks.range::<[u8], _>(upto).next_back().cloned().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(first_key: &'static str) -> ChunkInfo {
        ChunkInfo { first_key: first_key.into(), bytes: 1 }
    }

    #[test]
    fn a_chunk_is_dirty_from_a_compaction_to_its_writing() {
        let mut books = Books::new(["".into(), "m".into()], &["b".into()]);
        assert_eq!(books.touched(&[info(""), info("m")]), [""]);
        books.mark_dirty(&["z".into()]);
        books.note(vec!["".into()], &[]);
        assert_eq!(books.touched(&[info(""), info("m")]), ["m"]);
        books.note(Vec::new(), &["m".into()]);
        assert_eq!(books.touched(&[info("")]), [""]);
    }

    #[test]
    fn a_division_that_was_missed_makes_every_part_dirty() {
        let books = Books::new(["".into()], &["b".into()]);
        assert_eq!(books.touched(&[info(""), info("f"), info("m")]), ["", "f", "m"]);
    }
}
