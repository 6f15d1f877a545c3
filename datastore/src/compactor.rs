//! Keeps the stored form small, in steps that are each over in milliseconds.
//!
//! Two jobs. *Merging* turns many small rows of the log into one, with or
//! without a compaction, so that a start reads few rows ([`Merger`]). *Folding* follows a
//! compaction: rows that only speak of the compacted past are replaced by
//! chunks of what was living then, a chunk at a time:
//!
//! ```text
//! 1  write each chunk anew whose range was changed in those rows
//! 2  advance the base over the rows
//! 3  remove the rows, a few at a time
//! ```
//!
//! A crash between steps is harmless: a chunk may be newer than the base, and
//! replaying the log over it ends where the log ends. Dead pages are reused.
//!
//! Pure: it says what to do next; the writer does it and says that it is done.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;

use bytes::Bytes;

use crate::batch::Encoder;
use crate::index::Index;
use crate::key_range::{End, KeyRange};
use crate::merger::Merger;
use crate::record::Revision;
use crate::state::{Layout, RowInfo};
use crate::store::{Chunk, Fold, LogRow, Sequence};

/// Rows removed in one step.
const TRIM_ROWS_MAX: u32 = 256;

/// When what is rearranged. Tests make everything small.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayoutLimits {
    /// When its content would exceed this, a chunk is divided.
    pub chunk_bytes_max: usize,
    /// Chunks written in one step.
    pub chunks_per_step: usize,
    /// Rows below this are worth merging,
    pub small_row_bytes_max: usize,
    /// when so many of them follow each other.
    pub merge_rows_min: usize,
    /// Rows merged into one.
    pub merge_rows_max: usize,
    /// Bytes merged into one.
    pub merge_bytes_max: usize,
    /// Folding waits until so much of the log is in the compacted past,
    pub fold_bytes_min: usize,
    /// or until so many rows are.
    pub fold_rows_min: usize,
}

impl LayoutLimits {
    /// What production uses.
    pub const DEFAULT: LayoutLimits = LayoutLimits {
        chunk_bytes_max: 128 << 10,
        chunks_per_step: 4,
        small_row_bytes_max: 8 << 10,
        merge_rows_min: 16,
        merge_rows_max: 512,
        merge_bytes_max: 256 << 10,
        fold_bytes_min: 128 << 10,
        fold_rows_min: 512,
    };
}

impl Default for LayoutLimits {
    fn default() -> Self {
        LayoutLimits::DEFAULT
    }
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Write one row for many, or a range's chunks.
    Write(Fold),
    /// Advance the base to here; the writer adds the base's data.
    Advance { sequence: Sequence, revision: Revision },
    /// Remove rows that the base contains.
    Trim { rows_max: u32 },
}

#[derive(Debug, PartialEq, Eq)]
enum Phase {
    Idle,
    /// Chunks are being written so that the base can advance to `target`.
    Folding {
        target: RowInfo,
        left: BTreeSet<Bytes>,
    },
    Trimming,
}

/// Knows where the stored rows are and which are worth rearranging.
#[derive(Debug)]
pub struct Compactor {
    limits: LayoutLimits,
    rows: VecDeque<RowInfo>,
    merger: Merger,
    /// Chunks by first key; the first one's range begins at the empty key.
    chunks: BTreeMap<Bytes, usize>,
    /// Chunks whose range changed before the compacted revision.
    dirty: BTreeSet<Bytes>,
    phase: Phase,
}

impl Compactor {
    /// Takes over what was found at start.
    pub fn new(layout: Layout, limits: LayoutLimits) -> Compactor {
        let chunks =
            layout.chunks.into_iter().map(|chunk| (chunk.first_key, chunk.bytes)).collect();
        let mut compactor = Compactor {
            limits,
            rows: layout.rows.into(),
            merger: Merger::default(),
            chunks,
            dirty: BTreeSet::new(),
            phase: Phase::Trimming,
        };
        compactor.mark_dirty(&layout.touched);
        compactor
    }

    /// The chunks, and the first keys of those to be written anew: what is
    /// kept of this when somebody else goes on.
    pub fn into_dirty(self) -> (Vec<Bytes>, Vec<Bytes>) {
        let mut dirty: Vec<Bytes> = self.dirty.into_iter().collect();
        if let Phase::Folding { left, .. } = self.phase {
            dirty.extend(left);
        }
        (self.chunks.into_keys().collect(), dirty)
    }

    /// Notes a row that was appended.
    pub fn appended(&mut self, row: &LogRow) {
        self.merger.appended(row, &self.limits);
        self.rows.push_back(RowInfo::from(row));
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

    fn chunk_of(&self, key: &[u8]) -> Bytes {
        let upto = (Bound::Unbounded, Bound::Included(key));
        self.chunks
            .range::<[u8], _>(upto)
            .next_back()
            .map(|(key, _)| key.clone())
            .unwrap_or_default()
    }

    /// Whether small rows have piled up.
    pub fn wants_merge(&self) -> bool {
        self.merger.is_due()
    }

    /// What is to be done, if anything is worth doing.
    pub fn next_step(&mut self, index: &Index) -> Option<Step> {
        if self.phase == Phase::Idle {
            self.begin_fold(index.compacted());
        }
        match &self.phase {
            Phase::Trimming => Some(Step::Trim { rows_max: TRIM_ROWS_MAX }),
            Phase::Folding { target, left } => Some(match left.first() {
                Some(chunk) => Step::Write(self.write_chunk(chunk, index)),
                None => Step::Advance { sequence: target.sequence, revision: target.last },
            }),
            Phase::Idle => self.merger.take().map(Step::Write),
        }
    }

    /// Notes that a step was done; `more` when the same step is to follow.
    pub fn done(&mut self, step: &Step, more: bool) {
        match step {
            Step::Write(Fold::Merge { from, row }) => self.replace_rows(*from, RowInfo::from(row)),
            Step::Write(fold) => self.note_chunks(fold),
            Step::Advance { sequence, .. } => {
                let kept = self.rows.partition_point(|row| row.sequence <= *sequence);
                self.rows.drain(..kept);
                self.merger.forget(*sequence);
                self.phase = Phase::Trimming;
            }
            Step::Trim { .. } if !more => self.phase = Phase::Idle,
            Step::Trim { .. } => {}
        }
    }

    /// Starts folding when enough rows speak only of the compacted past. The
    /// row with the compacted revision itself stays: a watch may start there.
    fn begin_fold(&mut self, compacted: Revision) {
        let past = self.rows.iter().take_while(|row| row.last < compacted);
        let (mut rows, mut bytes, mut target) = (0, 0, None);
        for row in past {
            rows += 1;
            bytes += row.bytes;
            target = Some(*row);
        }
        let Some(target) = target else { return };
        // Writing chunks costs more the more there are of them.
        let chunk_bytes: usize = self.chunks.values().sum();
        if bytes >= self.limits.fold_bytes_min.max(chunk_bytes / 8)
            || rows >= self.limits.fold_rows_min
        {
            self.phase = Phase::Folding { target, left: std::mem::take(&mut self.dirty) };
        }
    }

    /// Lays out the range of `chunk` as it is at the compacted revision. When
    /// that makes many chunks, only the last of them are written now: the
    /// chunk itself still holds the rest, and what it holds behind the next
    /// chunk's first key counts no more.
    fn write_chunk(&self, chunk: &Bytes, index: &Index) -> Fold {
        let after = (Bound::Excluded(chunk.as_ref()), Bound::Unbounded);
        let end = match self.chunks.range::<[u8], _>(after).next() {
            Some((next, _)) => End::Before(next.clone()),
            None => End::Open,
        };
        let range = KeyRange { start: chunk.clone(), end: end.clone() };
        let first_keys = last_chunks(index, &range, &self.limits);
        if first_keys.is_empty() {
            // Without this chunk its range belongs to the one before.
            return Fold::Chunks { put: Vec::new(), remove: vec![chunk.clone()] };
        }
        let ends = first_keys.iter().skip(1).cloned().map(End::Before).chain([end]);
        let put = first_keys
            .iter()
            .zip(ends)
            .map(|(first_key, end)| lay_out(index, KeyRange { start: first_key.clone(), end }))
            .collect();
        Fold::Chunks { put, remove: Vec::new() }
    }

    fn note_chunks(&mut self, fold: &Fold) {
        let Fold::Chunks { put, remove } = fold else { return };
        for key in remove {
            self.chunks.remove(key);
            // Later changes of this range now concern the chunk before.
            if self.dirty.remove(key) {
                self.dirty.insert(self.chunk_of(key));
            }
        }
        for chunk in put {
            // A range was divided while changes in it were noted: which part
            // they concern is not known any more.
            if !self.chunks.contains_key(&chunk.first_key)
                && self.dirty.contains(&self.chunk_of(&chunk.first_key))
            {
                self.dirty.insert(chunk.first_key.clone());
            }
            self.chunks.insert(chunk.first_key.clone(), chunk.data.len());
        }
        if let Phase::Folding { left, .. } = &mut self.phase {
            for key in remove.iter().chain(put.iter().map(|chunk| &chunk.first_key)) {
                left.remove(key);
            }
        }
    }

    fn replace_rows(&mut self, from: Sequence, merged: RowInfo) {
        let start = self.rows.partition_point(|row| row.sequence < from);
        let end = self.rows.partition_point(|row| row.sequence <= merged.sequence);
        self.rows.drain(start..end);
        self.rows.insert(start, merged);
    }
}

/// The first keys of the last chunks that a range needs, as many as one step
/// writes; none if nothing lives in it. It looks at no more than those hold, so
/// that dividing a range costs no more than its length. When it comes to the
/// range's beginning, the first one is the range's own.
fn last_chunks(index: &Index, range: &KeyRange, limits: &LayoutLimits) -> Vec<Bytes> {
    let mut first_keys = VecDeque::new();
    let mut chunk: Option<(&Bytes, usize)> = None;
    for (key, length) in index.lengths_back(range, index.compacted()) {
        chunk = match chunk {
            Some((first, bytes)) if bytes + length > limits.chunk_bytes_max => {
                first_keys.push_front(first.clone());
                if first_keys.len() == limits.chunks_per_step {
                    return first_keys.into();
                }
                Some((key, length))
            }
            Some((_, bytes)) => Some((key, bytes + length)),
            None => Some((key, length)),
        };
    }
    if chunk.is_some() {
        first_keys.push_front(range.start.clone());
    }
    first_keys.into()
}

fn lay_out(index: &Index, range: KeyRange) -> Chunk {
    let mut encoder = Encoder::default();
    for record in index.range(&range, index.compacted()) {
        encoder.version(&record);
    }
    Chunk { first_key: range.start, data: encoder.finish() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::LeaseId;

    #[test]
    fn a_range_is_divided_from_its_end_a_step_at_a_time() {
        let mut index = Index::default();
        for number in 0..10 {
            index.stage_revision();
            index.stage_put(format!("key{number}").as_bytes(), b"123456", LeaseId::NONE);
            index.commit();
        }
        index.compact(index.committed());
        // Three keys of ten bytes in a chunk, two chunks in a step.
        let limits =
            LayoutLimits { chunk_bytes_max: 30, chunks_per_step: 2, ..LayoutLimits::default() };
        let mut range = KeyRange::all();
        let mut steps = Vec::new();
        loop {
            let first_keys = last_chunks(&index, &range, &limits);
            range.end = End::Before(first_keys[0].clone());
            steps.push(first_keys);
            if steps.last().is_some_and(|keys| keys[0] == range.start) {
                break;
            }
        }
        let start = range.start.clone();
        let expected: [Vec<Bytes>; 2] =
            [vec!["key4".into(), "key7".into()], vec![start, "key1".into()]];
        assert_eq!(steps, expected);
        let nothing = KeyRange { start: "x".into(), end: End::Open };
        assert!(last_chunks(&index, &nothing, &limits).is_empty());
    }
}
