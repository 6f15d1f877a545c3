//! Small rows of the log that follow each other, to be made into one.
//!
//! A store with one client writes a row for each of its commits, and a start would read them one by one.
//! They are kept as they are written until there are enough of them, so that merging reads nothing:
//!
//! ```text
//! log    s s s s s L s s s s s s s s s │
//!        └ few: left    └ merged when they are many, or when a large row ends them
//! ```
//!
//! Each row is looked at once and merged at most once. Rows of an earlier life stay as they are, until a compaction folds
//! them. Pure.

use std::collections::VecDeque;

use crate::batch::{Encoder, decompress};
use crate::compactor::LayoutLimits;
use crate::store::{Fold, LogRow, Sequence};

/// Runs that may wait; what comes on top is left as it is.
const WAITING_MAX: usize = 4;

/// Keeps the newest run of small rows, and those that are ready.
#[derive(Debug, Default)]
pub struct Merger {
    run: Vec<LogRow>,
    bytes: usize,
    waiting: VecDeque<Vec<LogRow>>,
}

impl Merger {
    /// Notes a row that was appended.
    pub fn appended(&mut self, row: &LogRow, limits: &LayoutLimits) {
        let bytes = row.data.len();
        if bytes >= limits.small_row_bytes_max {
            self.end_run(limits);
            return;
        }
        if self.bytes + bytes > limits.merge_bytes_max {
            self.end_run(limits);
        }
        self.run.push(row.clone());
        self.bytes += bytes;
        if self.run.len() >= limits.merge_rows_max {
            self.end_run(limits);
        }
    }

    fn end_run(&mut self, limits: &LayoutLimits) {
        let run = std::mem::take(&mut self.run);
        self.bytes = 0;
        if run.len() >= limits.merge_rows_min && self.waiting.len() < WAITING_MAX {
            self.waiting.push_back(run);
        }
    }

    /// Whether something is ready.
    pub fn is_due(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// The oldest rows that are ready, as one.
    pub fn take(&mut self) -> Option<Fold> {
        let run = self.waiting.pop_front()?;
        let (first, last) = (run.first()?, run.last()?);
        let mut encoder = Encoder::default();
        for row in &run {
            // They were made in this process: they can be read.
            encoder.append(&decompress(&row.data).ok()?);
        }
        let row = LogRow { first: first.first, data: encoder.finish(), ..*last };
        Some(Fold::Merge { from: first.sequence, row })
    }

    /// Forgets rows that are about to be removed.
    pub fn forget(&mut self, upto: Sequence) {
        self.waiting.retain(|run| run.first().is_some_and(|row| row.sequence > upto));
        if self.run.first().is_some_and(|row| row.sequence <= upto) {
            self.run.retain(|row| row.sequence > upto);
            self.bytes = self.run.iter().map(|row| row.data.len()).sum();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{Entry, decode};
    use crate::record::{LeaseId, Revision};

    const LIMITS: LayoutLimits = LayoutLimits {
        small_row_bytes_max: 200,
        merge_rows_min: 3,
        merge_rows_max: 5,
        ..LayoutLimits::DEFAULT
    };

    /// A row that grants a lease, and begins and ends at its own revision.
    fn row(sequence: i64, is_small: bool) -> LogRow {
        let mut encoder = Encoder::default();
        encoder.grant(LeaseId(sequence), 1);
        let mut data = encoder.finish();
        if !is_small {
            data.resize(300, 0);
        }
        let last = Revision(sequence * 10);
        LogRow { sequence: Sequence(sequence), first: last.next(), last, data }
    }

    /// What is merged of such rows: the first and last place, and the leases.
    fn merged(rows: &str, forgotten: i64) -> Vec<(i64, i64, Vec<i64>)> {
        let mut merger = Merger::default();
        for (sequence, size) in (1..).zip(rows.chars()) {
            merger.appended(&row(sequence, size == 's'), &LIMITS);
        }
        merger.forget(Sequence(forgotten));
        let folds = std::iter::from_fn(|| merger.take());
        let of_fold = |fold| {
            let Fold::Merge { from, row } = fold else { panic!("{fold:?}") };
            assert_eq!(row.first, Revision(from.0 * 10 + 1));
            assert_eq!(row.last, Revision(row.sequence.0 * 10));
            let lease = |entry: Entry| match entry {
                Entry::Grant { lease, .. } => lease.0,
                other => panic!("{other:?}"),
            };
            let leases = decode(&row.data, row.first).unwrap().into_iter().map(lease);
            (from.0, row.sequence.0, leases.collect())
        };
        folds.map(of_fold).collect()
    }

    #[test]
    fn small_rows_are_merged_when_they_are_many_or_a_large_one_ends_them() {
        assert_eq!(merged("sssss", 0), [(1, 5, vec![1, 2, 3, 4, 5])]);
        assert_eq!(merged("ssss", 0), []);
        assert_eq!(merged("ssssL", 0), [(1, 4, vec![1, 2, 3, 4])]);
        assert_eq!(merged("ssLsLLsssLs", 0), [(7, 9, vec![7, 8, 9])]);
        let two = [(1, 5, vec![1, 2, 3, 4, 5]), (6, 10, vec![6, 7, 8, 9, 10])];
        assert_eq!(merged("sssssssssss", 0), two);
    }

    #[test]
    fn rows_that_are_removed_are_merged_no_more() {
        assert_eq!(merged("sssssLsss", 3), []);
        let mut merger = Merger::default();
        (1..=4).for_each(|sequence| merger.appended(&row(sequence, true), &LIMITS));
        merger.forget(Sequence(2));
        (5..=7).for_each(|sequence| merger.appended(&row(sequence, true), &LIMITS));
        let Some(Fold::Merge { from, row }) = merger.take() else { panic!("nothing is ready") };
        assert_eq!((from, row.sequence), (Sequence(3), Sequence(7)));
    }

    #[test]
    fn what_waits_is_bounded() {
        let mut merger = Merger::default();
        (1..=1000).for_each(|sequence| merger.appended(&row(sequence, true), &LIMITS));
        assert_eq!(std::iter::from_fn(|| merger.take()).count(), WAITING_MAX);
        assert!(!merger.is_due());
    }
}
