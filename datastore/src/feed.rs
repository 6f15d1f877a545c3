//! What the leader tells its followers: rows as they were committed, and
//! which chunks were laid out.
//!
//! A ring, bounded in bytes. A follower keeps its own place in it; whoever
//! falls out of it reads rows from the store and comes back. With one member
//! the feed is closed and costs nothing.
//!
//! ```text
//!   floor        ring
//!     41 │ row 42 · chunks · row 43 · row 44 │ newest
//!        └ who has 41 may begin here; who has 40 may not
//! ```

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::watch;

use crate::store::{Fold, LogRow, Sequence};

/// Bytes of rows that the ring holds: some seconds of heavy writing.
const RING_BYTES_MAX: usize = 16 << 20;
/// Items in the ring, however small.
const RING_ITEMS_MAX: usize = 32 << 10;
/// Items handed out at once.
const PAGE_ITEMS_MAX: usize = 256;

/// Something that happened at the leader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    Row(Arc<LogRow>),
    /// Chunks were written or removed, by their first keys.
    Chunks {
        put: Vec<Bytes>,
        remove: Vec<Bytes>,
    },
}

/// How far a follower was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub sequence: Sequence,
    /// The next item's number, once the follower is within the ring.
    position: Option<u64>,
}

impl Place {
    /// The place of someone who has all rows up to `sequence`.
    pub fn after(sequence: Sequence) -> Place {
        Place { sequence, position: None }
    }
}

/// What comes behind a place.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// Some items, and the place behind them.
    Items(Vec<Item>, Place),
    /// Nothing yet.
    Wait,
    /// The ring begins later: the store has to be read.
    Behind,
    /// Leadership of this feed is over.
    Closed,
}

#[derive(Debug, Default)]
struct Ring {
    is_open: bool,
    items: VecDeque<Item>,
    /// The number of the first item.
    first: u64,
    /// The row before the first item.
    floor: Sequence,
    newest: Sequence,
    bytes: usize,
}

/// See the module's words.
#[derive(Debug)]
pub struct Feed {
    ring: Mutex<Ring>,
    changed: watch::Sender<u64>,
    readers: AtomicUsize,
}

impl Default for Feed {
    fn default() -> Self {
        Feed { ring: Mutex::default(), changed: watch::channel(0).0, readers: AtomicUsize::new(0) }
    }
}

/// While it lives, the stored form is not rearranged.
pub struct ReadGuard<'a>(&'a Feed);

impl Drop for ReadGuard<'_> {
    fn drop(&mut self) {
        self.0.readers.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Feed {
    /// Begins anew behind row `newest`.
    pub fn open(&self, newest: Sequence) {
        let mut ring = self.ring();
        let first = ring.first + ring.items.len() as u64 + 1;
        *ring = Ring { is_open: true, first, floor: newest, newest, ..Ring::default() };
        drop(ring);
        self.wake();
    }

    /// Ends: followers look for another leader.
    pub fn close(&self) {
        let mut ring = self.ring();
        let first = ring.first + ring.items.len() as u64 + 1;
        *ring = Ring { first, ..Ring::default() };
        drop(ring);
        self.wake();
    }

    /// Tells of a row that was committed.
    pub fn push_row(&self, row: &LogRow) {
        let mut ring = self.ring();
        if !ring.is_open {
            return;
        }
        debug_assert_eq!(ring.newest.next(), row.sequence);
        ring.newest = row.sequence;
        ring.bytes += row.data.len();
        ring.items.push_back(Item::Row(Arc::new(row.clone())));
        while ring.bytes > RING_BYTES_MAX || ring.items.len() > RING_ITEMS_MAX {
            ring.evict();
        }
        drop(ring);
        self.wake();
    }

    /// Tells of a rearrangement, as far as it concerns followers.
    pub fn push_fold(&self, fold: &Fold) {
        let Fold::Chunks { put, remove } = fold else { return };
        let mut ring = self.ring();
        if !ring.is_open {
            return;
        }
        let put = put.iter().map(|chunk| chunk.first_key.clone()).collect();
        ring.items.push_back(Item::Chunks { put, remove: remove.clone() });
        drop(ring);
        self.wake();
    }

    /// What a follower is to be told next.
    pub fn next(&self, place: Place) -> Next {
        let ring = self.ring();
        if !ring.is_open || place.sequence > ring.newest {
            return Next::Closed;
        }
        let Some(position) = ring.locate(place) else { return Next::Behind };
        let skipped = (position - ring.first) as usize;
        let items: Vec<Item> =
            ring.items.iter().skip(skipped).take(PAGE_ITEMS_MAX).cloned().collect();
        if items.is_empty() {
            return Next::Wait;
        }
        let sequence = items.iter().rev().find_map(|item| match item {
            Item::Row(row) => Some(row.sequence),
            Item::Chunks { .. } => None,
        });
        let position = Some(position + items.len() as u64);
        Next::Items(items, Place { sequence: sequence.unwrap_or(place.sequence), position })
    }

    /// To be woken by whatever happens from now on.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Holds rearrangements off while the store is read for a follower.
    pub fn read_guard(&self) -> ReadGuard<'_> {
        self.readers.fetch_add(1, Ordering::Relaxed);
        ReadGuard(self)
    }

    /// Whether the store is being read for a follower.
    pub fn is_being_read(&self) -> bool {
        self.readers.load(Ordering::Relaxed) > 0
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        self.changed.send_modify(|changes| *changes += 1);
    }
}

impl Ring {
    fn evict(&mut self) {
        let Some(item) = self.items.pop_front() else { return };
        self.first += 1;
        if let Item::Row(row) = item {
            self.bytes -= row.data.len();
            self.floor = row.sequence;
        }
    }

    /// The number of the item behind a place, if the ring has it.
    fn locate(&self, place: Place) -> Option<u64> {
        if let Some(position) = place.position {
            let end = self.first + self.items.len() as u64;
            if (self.first..=end).contains(&position) {
                return Some(position);
            }
        }
        if place.sequence == self.floor {
            return Some(self.first);
        }
        let found = self
            .items
            .iter()
            .position(|item| matches!(item, Item::Row(row) if row.sequence == place.sequence));
        found.map(|found| self.first + found as u64 + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Revision;

    fn row(sequence: i64, bytes: usize) -> LogRow {
        let (first, last) = (Revision(sequence + 1), Revision(sequence + 1));
        LogRow { sequence: Sequence(sequence), first, last, data: vec![0; bytes] }
    }

    fn sequences(next: Next) -> (Vec<i64>, Place) {
        let Next::Items(items, place) = next else { panic!("{next:?}") };
        let rows = items.iter().filter_map(|item| match item {
            Item::Row(row) => Some(row.sequence.0),
            Item::Chunks { .. } => None,
        });
        (rows.collect(), place)
    }

    #[test]
    fn a_follower_is_told_each_row_once_from_its_place_on() {
        let feed = Feed::default();
        assert_eq!(feed.next(Place::after(Sequence(0))), Next::Closed);
        feed.push_row(&row(1, 1));
        feed.open(Sequence(7));
        assert_eq!(feed.next(Place::after(Sequence(7))), Next::Wait);
        assert_eq!(feed.next(Place::after(Sequence(6))), Next::Behind);
        assert_eq!(feed.next(Place::after(Sequence(8))), Next::Closed);
        feed.push_row(&row(8, 1));
        feed.push_fold(&Fold::Chunks { put: Vec::new(), remove: vec!["a".into()] });
        feed.push_row(&row(9, 1));
        let (rows, place) = sequences(feed.next(Place::after(Sequence(7))));
        assert_eq!(rows, [8, 9]);
        assert_eq!(feed.next(place), Next::Wait);
        assert_eq!(sequences(feed.next(Place::after(Sequence(8)))).0, [9]);
        feed.push_row(&row(10, 1));
        assert_eq!(sequences(feed.next(place)).0, [10]);
        feed.close();
        assert_eq!(feed.next(place), Next::Closed);
        // A place of a former leadership means nothing in the next one.
        feed.open(Sequence(12));
        assert_eq!(feed.next(place), Next::Behind);
    }

    #[test]
    fn the_ring_is_bounded_and_says_who_fell_out() {
        let feed = Feed::default();
        feed.open(Sequence(0));
        for sequence in 1..=100 {
            feed.push_row(&row(sequence, RING_BYTES_MAX / 10));
        }
        assert_eq!(feed.next(Place::after(Sequence(0))), Next::Behind);
        assert_eq!(feed.next(Place::after(Sequence(89))), Next::Behind);
        assert_eq!(sequences(feed.next(Place::after(Sequence(90)))).0.len(), 10);
        assert!(feed.ring().bytes <= RING_BYTES_MAX);
    }
}
