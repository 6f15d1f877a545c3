//! Counts living keys in a range without walking it. Pure.
//!
//! The space of keys is divided into stretches, each with the number of its
//! keys and of the living ones:
//!
//! ```text
//!   ""         f          k          p
//!   | 190 keys | 251 keys | 64 keys  | 130 keys ...
//!        [c ------------------------ q)
//!        walked  ^ summed ^ ^ summed ^ walked
//! ```
//!
//! A range is the sum of the stretches within it and a walk through a part of
//! the first and of the last. Kubernetes asks for the count with every page
//! of a list, so walking to the end each time would make a list quadratic.

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;

use crate::key_range::{End, KeyRange};

/// Keys after which a stretch is divided. More means longer walks, less means
/// longer sums.
pub const STRETCH_KEYS_MAX: u32 = 256;
/// Neighbours are joined when they have no more together.
const STRETCH_KEYS_MIN: u32 = STRETCH_KEYS_MAX / 4;

/// Keys between one first key and the next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stretch {
    /// Deleted keys that are not yet swept included.
    pub keys: u32,
    pub living: u32,
}

/// The counts of every stretch.
#[derive(Debug)]
pub struct Census {
    /// By first key; the first of all is the empty key.
    stretches: BTreeMap<Bytes, Stretch>,
}

/// A count of whole stretches, and what is left to be walked.
#[derive(Debug, PartialEq, Eq)]
pub struct Estimate {
    pub summed: Stretch,
    pub left: Vec<KeyRange>,
}

impl Default for Census {
    fn default() -> Self {
        Census { stretches: BTreeMap::from([(Bytes::new(), Stretch::default())]) }
    }
}

impl Census {
    /// Notes a key that was not there before. Gives the stretch it made too
    /// long, which [`Census::divide`] then wants to know more of.
    pub fn key_added(&mut self, key: &[u8]) -> Option<KeyRange> {
        let (first_key, stretch) = self.stretch_of(key);
        stretch.keys += 1;
        if stretch.keys <= STRETCH_KEYS_MAX {
            return None;
        }
        let start = first_key.clone();
        let behind = (Bound::Excluded(start.as_ref()), Bound::Unbounded);
        let end = match self.stretches.range::<[u8], _>(behind).next() {
            Some((next, _)) => End::Before(next.clone()),
            None => End::Open,
        };
        Some(KeyRange { start, end })
    }

    /// Divides the stretch from `first_key`: what lies before `middle` is
    /// counted in `before`.
    pub fn divide(&mut self, first_key: &[u8], middle: Bytes, before: Stretch) {
        let Some(stretch) = self.stretches.get_mut(first_key) else { return };
        let behind = Stretch {
            keys: stretch.keys.saturating_sub(before.keys),
            living: stretch.living.saturating_sub(before.living),
        };
        *stretch = before;
        self.stretches.insert(middle, behind);
    }

    /// Notes a key that is gone, tombstone and all.
    pub fn key_removed(&mut self, key: &[u8]) {
        let (first_key, stretch) = self.stretch_of(key);
        stretch.keys -= 1;
        let (first_key, stretch) = (first_key.clone(), *stretch);
        if stretch.keys == 0 && !first_key.is_empty() {
            // What lies here belongs to the one before, however long that is:
            // there are never more stretches than keys.
            self.stretches.remove(&first_key);
        } else if stretch.keys < STRETCH_KEYS_MIN {
            self.join_next(&first_key, stretch);
        }
    }

    /// Notes that a key came to life.
    pub fn born(&mut self, key: &[u8]) {
        self.stretch_of(key).1.living += 1;
    }

    /// Notes that a key was deleted.
    pub fn died(&mut self, key: &[u8]) {
        self.stretch_of(key).1.living -= 1;
    }

    /// Sums up whole stretches in `range`.
    pub fn estimate(&self, range: &KeyRange) -> Estimate {
        let start = self.first_key_of(&range.start).clone();
        let last = match &range.end {
            _ if range.is_empty() => &start,
            End::Single => &start,
            End::Open => self.stretches.last_key_value().map_or(&start, |(last, _)| last),
            End::Before(end) => self.first_key_of(end),
        };
        if *last == start {
            return Estimate { summed: Stretch::default(), left: vec![range.clone()] };
        }
        let mut summed = Stretch::default();
        let behind = (Bound::Excluded(start.as_ref()), Bound::Unbounded);
        let mut walk = self.stretches.range::<[u8], _>(behind).peekable();
        let second = walk.peek().map_or(last, |(second, _)| *second);
        let head = KeyRange { start: range.start.clone(), end: End::Before(second.clone()) };
        let mut left = vec![head];
        for (first_key, stretch) in walk {
            // The last one is whole only when the range has no end.
            if first_key == last && range.end != End::Open {
                break;
            }
            summed.keys += stretch.keys;
            summed.living += stretch.living;
        }
        if range.end != End::Open {
            left.push(KeyRange { start: last.clone(), end: range.end.clone() });
        }
        Estimate { summed, left }
    }

    fn first_key_of(&self, key: &[u8]) -> &Bytes {
        let upto = (Bound::Unbounded, Bound::Included(key));
        let found = self.stretches.range::<[u8], _>(upto).next_back();
        found.expect("the first stretch begins at the empty key").0
    }

    fn stretch_of(&mut self, key: &[u8]) -> (&Bytes, &mut Stretch) {
        let upto = (Bound::Unbounded, Bound::Included(key));
        let found = self.stretches.range_mut::<[u8], _>(upto).next_back();
        found.expect("the first stretch begins at the empty key")
    }

    /// Joins a short stretch with the next, if they are short together.
    fn join_next(&mut self, first_key: &Bytes, stretch: Stretch) {
        let behind = (Bound::Excluded(first_key.as_ref()), Bound::Unbounded);
        let Some((next_key, next)) = self.stretches.range::<[u8], _>(behind).next() else {
            return;
        };
        if stretch.keys + next.keys > STRETCH_KEYS_MAX / 2 {
            return;
        }
        let joined =
            Stretch { keys: stretch.keys + next.keys, living: stretch.living + next.living };
        let next_key = next_key.clone();
        self.stretches.remove(&next_key);
        self.stretches.insert(first_key.clone(), joined);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(keys: u32) -> Stretch {
        Stretch { keys, living: keys }
    }

    #[test]
    fn a_range_is_summed_between_its_ends() {
        let mut census = Census::default();
        census.stretches.insert(Bytes::new(), counted(4));
        for (first_key, keys) in [("f", 5), ("k", 6), ("p", 7)] {
            census.stretches.insert(first_key.into(), counted(keys));
        }
        let range =
            |start: &'static str, end: &'static str| KeyRange::from_wire(start.into(), end.into());
        let estimate = census.estimate(&range("c", "q"));
        assert_eq!(estimate.summed, counted(11));
        assert_eq!(estimate.left, [range("c", "f"), range("p", "q")]);
        let estimate = census.estimate(&range("c", "\0"));
        assert_eq!((estimate.summed, estimate.left), (counted(18), vec![range("c", "f")]));
        let estimate = census.estimate(&range("g", "j"));
        assert_eq!((estimate.summed, estimate.left), (counted(0), vec![range("g", "j")]));
        let estimate = census.estimate(&range("q", "c"));
        assert_eq!((estimate.summed, estimate.left), (counted(0), vec![range("q", "c")]));
    }

    #[test]
    fn stretches_without_keys_do_not_stay() {
        let mut census = Census::default();
        census.stretches.insert(Bytes::new(), counted(200));
        for number in 0..100 {
            let first_key = format!("ns{number:02}");
            census.stretches.insert(first_key.into(), counted(200));
        }
        for number in 0..100 {
            let key = format!("ns{number:02}/pod");
            for _ in 0..200 {
                census.died(key.as_bytes());
                census.key_removed(key.as_bytes());
            }
        }
        assert_eq!(census.stretches, BTreeMap::from([(Bytes::new(), counted(200))]));
    }
}
