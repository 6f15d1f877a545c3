//! Who waits for which keys, and who has something to fetch.
//!
//! The writer publishes each committed batch here. The hub doesn't queue
//! events: for every watcher it keeps the one revision from which that
//! watcher has to read on in the index's history. So the queue of a watcher
//! is bounded by construction, a slow one catches up from history (or learns
//! that it was compacted away), and nobody ever waits for it.
//!
//! Fed by commits only; nothing here polls. Pure but for the wake-up calls.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::Notify;

use crate::key_range::KeyRange;
use crate::record::{Record, Revision};

/// The number that a client knows its watcher by, unique in its stream.
pub type WatchId = i64;

/// One client's stream of watchers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct StreamId(u64);

#[derive(Debug)]
struct Watcher {
    range: KeyRange,
    /// Nothing before this is of interest.
    start: Revision,
    /// The oldest revision not yet handed over that has a change in `range`.
    pending: Option<Revision>,
}

#[derive(Debug)]
struct Stream {
    watchers: BTreeMap<WatchId, Watcher>,
    wake: Arc<Notify>,
}

/// The table of all streams.
#[derive(Debug)]
pub struct WatchHub {
    published: Revision,
    streams: BTreeMap<StreamId, Stream>,
    next_stream: u64,
}

/// What a stream has to send now.
#[derive(Debug, PartialEq, Eq)]
pub struct Due {
    /// Everything up to here was published: a watcher that isn't named below
    /// has missed nothing up to here.
    pub published: Revision,
    /// Watchers, and from where they must read on.
    pub watchers: Vec<(WatchId, Revision)>,
}

impl WatchHub {
    /// A hub for a store whose newest revision is `published`.
    pub fn new(published: Revision) -> WatchHub {
        WatchHub { published, streams: BTreeMap::new(), next_stream: 0 }
    }

    /// The newest revision that watchers know of.
    pub fn published(&self) -> Revision {
        self.published
    }

    /// Opens a stream; `wake` is rung when it has something to fetch.
    pub fn open_stream(&mut self, wake: Arc<Notify>) -> StreamId {
        let id = StreamId(self.next_stream);
        self.next_stream += 1;
        self.streams.insert(id, Stream { watchers: BTreeMap::new(), wake });
        id
    }

    /// Forgets a stream and its watchers.
    pub fn close_stream(&mut self, stream: StreamId) {
        self.streams.remove(&stream);
    }

    /// Adds a watcher from `start` on, or from now on without one. Gives the
    /// revision the watcher starts to see.
    pub fn add(
        &mut self,
        stream: StreamId,
        id: WatchId,
        range: KeyRange,
        start: Option<Revision>,
    ) -> Revision {
        let start = start.unwrap_or(self.published.next());
        let pending = (start <= self.published).then_some(start);
        if let Some(stream) = self.streams.get_mut(&stream) {
            stream.watchers.insert(id, Watcher { range, start, pending });
        }
        start
    }

    /// Removes a watcher.
    pub fn remove(&mut self, stream: StreamId, id: WatchId) {
        if let Some(stream) = self.streams.get_mut(&stream) {
            stream.watchers.remove(&id);
        }
    }

    /// Tells of committed changes, which end at revision `head`.
    pub fn publish(&mut self, changes: &[Arc<Record>], head: Revision) {
        debug_assert!(head >= self.published);
        self.published = head;
        for stream in self.streams.values_mut() {
            let mut woken = false;
            for watcher in stream.watchers.values_mut().filter(|one| one.pending.is_none()) {
                let start = watcher.start;
                watcher.pending = changes
                    .iter()
                    .find(|record| record.modified >= start && watcher.range.contains(&record.key))
                    .map(|record| record.modified);
                woken |= watcher.pending.is_some();
            }
            if woken {
                stream.wake.notify_one();
            }
        }
    }

    /// Notes that the index was replaced by one that ends at `head`: every
    /// watcher has to look through what it has not seen.
    pub fn resume(&mut self, head: Revision) {
        debug_assert!(head >= self.published);
        let unseen = self.published.next();
        self.published = head;
        for stream in self.streams.values_mut() {
            for watcher in stream.watchers.values_mut().filter(|one| one.pending.is_none()) {
                watcher.pending = Some(watcher.start.max(unseen)).filter(|from| *from <= head);
            }
            stream.wake.notify_one();
        }
    }

    /// What `stream` has to send; it counts as sent from here on.
    pub fn take(&mut self, stream: StreamId) -> Due {
        let mut watchers = Vec::new();
        if let Some(stream) = self.streams.get_mut(&stream) {
            for (id, watcher) in &mut stream.watchers {
                watchers.extend(watcher.pending.take().map(|from| (*id, from)));
            }
        }
        Due { published: self.published, watchers }
    }

    /// How many streams there are.
    pub fn streams(&self) -> usize {
        self.streams.len()
    }

    /// How many watchers have something to fetch.
    pub fn behind(&self) -> usize {
        let is_behind = |watcher: &&Watcher| watcher.pending.is_some();
        self.streams.values().map(|stream| stream.watchers.values().filter(is_behind).count()).sum()
    }

    /// How many watchers there are.
    pub fn watchers(&self) -> usize {
        self.streams.values().map(|stream| stream.watchers.len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(key: &'static str, revision: i64) -> Arc<Record> {
        Arc::new(Record::tombstone(key.into(), Revision(revision)))
    }

    fn range(start: &'static str, end: &'static str) -> KeyRange {
        KeyRange::from_wire(start.into(), end.into())
    }

    #[test]
    fn a_watcher_is_due_from_its_first_unseen_change() {
        let mut hub = WatchHub::new(Revision(5));
        let stream = hub.open_stream(Arc::default());
        hub.add(stream, 1, range("a", "c"), None);
        hub.add(stream, 2, range("x", ""), None);
        hub.publish(&[change("q", 6), change("b", 7)], Revision(7));
        hub.publish(&[change("b", 8)], Revision(8));
        let due = hub.take(stream);
        assert_eq!(due, Due { published: Revision(8), watchers: vec![(1, Revision(7))] });
        assert!(hub.take(stream).watchers.is_empty());
        hub.publish(&[change("x", 9)], Revision(9));
        assert_eq!(hub.take(stream).watchers, [(2, Revision(9))]);
    }

    #[test]
    fn starts_in_the_past_and_in_the_future_are_kept() {
        let mut hub = WatchHub::new(Revision(5));
        let stream = hub.open_stream(Arc::default());
        hub.add(stream, 1, range("a", ""), Some(Revision(3)));
        hub.add(stream, 2, range("a", ""), Some(Revision(8)));
        assert_eq!(hub.take(stream).watchers, [(1, Revision(3))]);
        hub.publish(&[change("a", 6), change("a", 7)], Revision(7));
        assert_eq!(hub.take(stream).watchers, [(1, Revision(6))]);
        hub.publish(&[change("a", 8)], Revision(8));
        assert_eq!(hub.take(stream).watchers, [(1, Revision(8)), (2, Revision(8))]);
    }

    #[test]
    fn a_stream_that_is_gone_costs_nothing() {
        let mut hub = WatchHub::new(Revision(5));
        let stream = hub.open_stream(Arc::default());
        hub.add(stream, 1, range("a", ""), None);
        hub.close_stream(stream);
        hub.publish(&[change("a", 6)], Revision(6));
        assert_eq!(hub.watchers(), 0);
        assert!(hub.take(stream).watchers.is_empty());
    }
}
