//! A running sum over what lives in the index, by which members compare what
//! they hold. Pure.
//!
//! ```text
//!   sum = hash(key a) + hash(key b) + hash(lease 7) + …        (wrapping)
//!   put b again:  sum − hash(former b) + hash(b)      no walk, in any order
//! ```
//!
//! Two members that applied the same rows have the same sum. If one of them
//! holds something else, the *difference* of the two sums stays as it is while
//! both go on with the same rows: members compare at whatever row they both
//! know, and two others that agree differ from the third by the same number.
//!
//! It finds mistakes, not malice: for that there is [`crate::digest`].

use std::collections::VecDeque;

use crate::record::{LeaseId, Record};
use crate::store::Sequence;

/// Rows whose sums are known: what one member may be ahead of another for
/// some seconds.
const MARKS_MAX: usize = 4096;
/// Odd numbers without a pattern: bits of the fractions of roots.
const MIX: [u64; 2] = [0x9e37_79b9_7f4a_7c15, 0xbf58_476d_1ce4_e5b9];
/// Keeps what is a key apart from what is a lease.
const OF_RECORD: u64 = 1;
const OF_LEASE: u64 = 2;

/// The sum after one row of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    pub sequence: Sequence,
    pub sum: u64,
}

/// The sums after the last rows.
#[derive(Debug, Default)]
pub struct Marks {
    marks: VecDeque<Mark>,
}

impl Marks {
    /// Notes the sum after a row; rows come in order.
    pub fn note(&mut self, mark: Mark) {
        while self.marks.back().is_some_and(|last| last.sequence >= mark.sequence) {
            self.marks.pop_back();
        }
        if self.marks.len() == MARKS_MAX {
            self.marks.pop_front();
        }
        self.marks.push_back(mark);
    }

    /// The sum after the newest row.
    pub fn newest(&self) -> Option<Mark> {
        self.marks.back().copied()
    }

    /// How much another member's sum differs from this one's at the same row,
    /// if that row is known.
    pub fn difference(&self, theirs: Mark) -> Option<u64> {
        let position = self.marks.binary_search_by_key(&theirs.sequence, |mark| mark.sequence);
        Some(theirs.sum.wrapping_sub(self.marks[position.ok()?].sum))
    }
}

/// The part of a version in the sum: none when it says that the key is gone.
pub fn of_record(record: &Record) -> u64 {
    if record.is_tombstone() {
        return 0;
    }
    let numbers = [record.created.0, record.modified.0, record.version, record.lease.0];
    let mut hash = numbers.iter().fold(OF_RECORD, |hash, number| add(hash, *number as u64));
    for bytes in [&record.key, &record.value] {
        hash = add_bytes(hash, bytes);
    }
    finish(hash)
}

/// The part of a lease in the sum.
pub fn of_lease(lease: LeaseId, ttl_s: i64) -> u64 {
    finish(add(add(OF_LEASE, lease.0 as u64), ttl_s as u64))
}

fn add(hash: u64, word: u64) -> u64 {
    (hash ^ word).wrapping_mul(MIX[0]).rotate_left(29)
}

/// Eight bytes at a time: values are large, and every change passes here.
fn add_bytes(hash: u64, bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    let hash = words.iter().fold(hash, |hash, word| add(hash, u64::from_le_bytes(*word)));
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    add(add(hash, u64::from_le_bytes(last)), bytes.len() as u64)
}

/// Lets every bit count in the sum.
fn finish(hash: u64) -> u64 {
    let hash = (hash ^ (hash >> 30)).wrapping_mul(MIX[1]);
    let hash = (hash ^ (hash >> 27)).wrapping_mul(MIX[0]);
    hash ^ (hash >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::index::Index;
    use crate::record::Revision;

    fn record() -> Record {
        Record {
            key: "key".into(),
            value: "value of many bytes".into(),
            created: Revision(2),
            modified: Revision(5),
            version: 3,
            lease: LeaseId(7),
        }
    }

    #[test]
    fn every_field_and_every_bit_of_a_value_counts() {
        let sound = record();
        let mut others = vec![
            Record { key: "keyv".into(), value: "alue of many bytes".into(), ..sound.clone() },
            Record { created: Revision(3), ..sound.clone() },
            Record { modified: Revision(6), ..sound.clone() },
            Record { version: 4, ..sound.clone() },
            Record { lease: LeaseId(8), ..sound.clone() },
        ];
        for bit in 0..sound.value.len() * 8 {
            let mut value = sound.value.to_vec();
            value[bit / 8] ^= 1 << (bit % 8);
            others.push(Record { value: value.into(), ..sound.clone() });
        }
        assert_eq!(of_record(&sound), of_record(&sound.clone()));
        for other in others {
            assert_ne!(of_record(&sound), of_record(&other), "{other:?}");
        }
        assert_eq!(of_record(&Record::tombstone("key".into(), Revision(9))), 0);
        assert_ne!(of_lease(LeaseId(1), 2), of_lease(LeaseId(2), 1));
    }

    #[test]
    fn marks_are_compared_at_the_row_that_both_know() {
        let mark = |sequence, sum| Mark { sequence: Sequence(sequence), sum };
        let mut marks = Marks::default();
        assert_eq!((marks.newest(), marks.difference(mark(1, 1))), (None, None));
        for sequence in 0..MARKS_MAX as i64 + 10 {
            marks.note(mark(sequence * 2, sequence as u64));
        }
        assert_eq!(marks.difference(mark(100, 50)), Some(0));
        assert_eq!(marks.difference(mark(100, 49)), Some(u64::MAX));
        assert_eq!(marks.difference(mark(101, 50)), None, "no row of this place");
        assert_eq!(marks.difference(mark(18, 9)), None, "forgotten");
        assert_eq!(marks.marks.len(), MARKS_MAX);
        // A row that another leader wrote in the place of one that was lost.
        marks.note(mark(200, 7));
        assert_eq!(marks.newest(), Some(mark(200, 7)));
    }

    /// A change of some keys, each once as transactions have it, which may be taken back.
    #[derive(Clone, Debug)]
    enum Step {
        Write { keys: BTreeMap<u8, Option<u8>>, taken_back: bool },
        Compact,
    }

    fn step() -> impl Strategy<Value = Step> {
        let change = (0..6_u8, proptest::option::of(any::<u8>()));
        let write = (proptest::collection::btree_map(change.0, change.1, 1..4), any::<bool>())
            .prop_map(|(keys, taken_back)| Step::Write { keys, taken_back });
        prop_oneof![4 => write, 1 => Just(Step::Compact)]
    }

    proptest! {
        #[test]
        fn the_running_sum_is_the_sum_of_what_lives(
            steps in proptest::collection::vec(step(), 1..40)
        ) {
            let (mut index, mut replica) = (Index::default(), Index::default());
            for step in steps {
                match step {
                    Step::Write { keys, taken_back } => {
                        index.stage_revision();
                        for (key, value) in keys {
                            match value {
                                Some(value) => index.stage_put(&[key], &[value], LeaseId(1)),
                                None => index.stage_delete(&[key]),
                            };
                        }
                        if taken_back {
                            index.roll_back();
                        } else {
                            let records = index.commit();
                            replica.replay(records.iter().map(|one| (**one).clone()).collect());
                        }
                    }
                    Step::Compact => {
                        index.compact(index.committed());
                        index.sweep(usize::MAX);
                    }
                }
                let all = crate::key_range::KeyRange::all();
                let living = index.range(&all, index.committed());
                let sum = living.fold(0_u64, |sum, record| sum.wrapping_add(of_record(&record)));
                prop_assert_eq!(index.sum(), sum);
                prop_assert_eq!(replica.sum(), sum);
            }
        }
    }
}
