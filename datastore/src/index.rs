//! Every version of every key in memory, ordered by key and by revision.
//!
//! Reads and watches are answered from here; the database below is for
//! durability. A version is one shared [`Record`], so that an answer, the
//! history and the tree hold the same bytes once. Those that were replaced a
//! while ago are packed, when there is much of them: see [`pack`].
//!
//! # Staged and committed
//!
//! The writer stages versions above the committed revision, where no reader
//! looks, and then either commits them or takes them back:
//!
//! ```text
//!            compacted        committed      head
//!                |                |            |
//!   revisions ---+----------------+------------+-->
//!        gone    | readable, kept |  staged: seen only
//!                | for watches    |  by the writer
//! ```
//!
//! Memory is bounded by the quota of the datastore: [`Index::size`] counts
//! what is held, history included.

mod count;
mod held;
pub mod pack;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use smallvec::SmallVec;

use crate::census::Census;
use crate::fingerprint::of_record;
use crate::index::held::Held;
use crate::key_range::KeyRange;
use crate::record::{LeaseId, Record, Revision};

/// All versions of one key. Most keys have one, which costs no allocation.
#[derive(Debug)]
struct Versions {
    latest: Arc<Record>,
    /// Older than `latest`, oldest first.
    older: Vec<Held>,
}

impl Versions {
    /// The version that a reader of `revision` sees, if the key lived then.
    fn at(&self, revision: Revision) -> Option<Arc<Record>> {
        if self.latest.modified <= revision {
            return (!self.latest.is_tombstone()).then(|| self.latest.clone());
        }
        self.older_at(revision).filter(|held| !held.is_tombstone()).map(Held::whole)
    }

    /// How long its value is.
    fn value_bytes_at(&self, revision: Revision) -> Option<usize> {
        if self.latest.modified <= revision {
            return (!self.latest.is_tombstone()).then_some(self.latest.value.len());
        }
        self.older_at(revision).filter(|held| !held.is_tombstone()).map(Held::value_bytes)
    }

    fn lives_at(&self, revision: Revision) -> bool {
        self.value_bytes_at(revision).is_some()
    }

    fn older_at(&self, revision: Revision) -> Option<&Held> {
        let after = self.older.partition_point(|held| held.modified() <= revision);
        after.checked_sub(1).map(|position| &self.older[position])
    }
}

/// What was written in one revision, in the order of its transaction: mostly one key.
type Changes = SmallVec<[Held; 1]>;

/// The versions in memory. See the module's words for what is where.
#[derive(Debug)]
pub struct Index {
    keys: BTreeMap<Bytes, Versions>,
    /// The changes of each revision from `history_first` on, without a gap.
    history: VecDeque<Changes>,
    history_first: Revision,
    committed: Revision,
    compacted: Revision,
    staged: Vec<Vec<Arc<Record>>>,
    /// What was replaced before this revision is packed, or not worth it.
    packed: Revision,
    size: u64,
    /// Of the latest versions, staged ones included.
    census: Census,
    /// The same.
    sum: u64,
}

/// A revision that can't be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RevisionError {
    #[error("revision {wanted} has been compacted, the oldest is {compacted}")]
    Compacted { wanted: Revision, compacted: Revision },
    #[error("revision {wanted} is in the future, the newest is {newest}")]
    Future { wanted: Revision, newest: Revision },
}

impl Default for Index {
    fn default() -> Self {
        Index::new(Revision::EMPTY_STORE)
    }
}

impl Index {
    /// An index without keys whose next write gets the revision after `base`.
    pub fn new(base: Revision) -> Index {
        Index {
            keys: BTreeMap::new(),
            history: VecDeque::new(),
            history_first: base.next(),
            committed: base,
            compacted: Revision::NEVER_COMPACTED,
            staged: Vec::new(),
            packed: base.next(),
            size: 0,
            census: Census::default(),
            sum: 0,
        }
    }

    /// The newest revision that readers see.
    pub fn committed(&self) -> Revision {
        self.committed
    }

    /// The oldest revision that can be read;
    /// [`Revision::NEVER_COMPACTED`] when nothing was compacted.
    pub fn compacted(&self) -> Revision {
        self.compacted
    }

    /// The newest revision including what is staged.
    pub fn head(&self) -> Revision {
        Revision(self.committed.0 + self.staged.len() as i64)
    }

    /// Bytes held, history included.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The sum over the latest versions, see [`crate::fingerprint`].
    pub fn sum(&self) -> u64 {
        self.sum
    }

    /// How many keys have a version, deleted ones not yet compacted included.
    pub fn keys(&self) -> usize {
        self.keys.len()
    }

    /// Whether `revision` can be read by someone who sees up to `newest`.
    pub fn check_readable(
        &self,
        revision: Revision,
        newest: Revision,
    ) -> Result<(), RevisionError> {
        if revision > newest {
            return Err(RevisionError::Future { wanted: revision, newest });
        }
        if revision < self.compacted {
            return Err(RevisionError::Compacted { wanted: revision, compacted: self.compacted });
        }
        Ok(())
    }

    /// The living version of `key` at `revision`.
    pub fn get(&self, key: &[u8], revision: Revision) -> Option<Arc<Record>> {
        self.keys.get(key)?.at(revision)
    }

    /// Whether `key` lives at `revision`.
    pub fn contains(&self, key: &[u8], revision: Revision) -> bool {
        self.keys.get(key).is_some_and(|versions| versions.lives_at(revision))
    }

    /// The living versions in `range` at `revision`, by key.
    pub fn range<'a>(
        &'a self,
        range: &KeyRange,
        revision: Revision,
    ) -> impl Iterator<Item = Arc<Record>> + use<'a> {
        self.keys
            .range::<[u8], _>(range.bounds())
            .filter_map(move |(_, versions)| versions.at(revision))
    }

    /// The living keys in `range` at `revision`, last first, and how many bytes
    /// each is with its value.
    pub fn lengths_back<'a>(
        &'a self,
        range: &KeyRange,
        revision: Revision,
    ) -> impl Iterator<Item = (&'a Bytes, usize)> + use<'a> {
        let keys = self.keys.range::<[u8], _>(range.bounds()).rev();
        keys.filter_map(move |(key, versions)| {
            let value_bytes = versions.value_bytes_at(revision)?;
            Some((key, key.len() + value_bytes))
        })
    }

    /// Up to `keys_max` keys from the beginning of `range`, living at
    /// `revision` or not: walking a range in pieces is bounded by what is
    /// looked at. Gives the first key of the rest.
    pub fn walk(
        &self,
        range: &KeyRange,
        revision: Revision,
        keys_max: usize,
        mut found: impl FnMut(Arc<Record>) -> bool,
    ) -> Option<Bytes> {
        for (position, (key, versions)) in self.keys.range::<[u8], _>(range.bounds()).enumerate() {
            if position == keys_max {
                return Some(key.clone());
            }
            if versions.at(revision).is_some_and(|record| !found(record)) {
                return None;
            }
        }
        None
    }

    /// Opens the next revision for staging.
    pub fn stage_revision(&mut self) -> Revision {
        self.staged.push(Vec::new());
        self.head()
    }

    /// Stages a new version of `key` in the revision opened last. Key and
    /// value are copied: a slice of a request would keep all of it in memory.
    pub fn stage_put(&mut self, key: &[u8], value: &[u8], lease: LeaseId) -> Arc<Record> {
        let modified = self.head();
        let former = self.get(key, modified);
        let (created, version) =
            former.map_or((modified, 1), |former| (former.created, former.version + 1));
        let (key, value) = (self.own_key(key), Bytes::copy_from_slice(value));
        let record = Arc::new(Record { key, value, created, modified, version, lease });
        self.stage(record.clone());
        record
    }

    /// Stages the end of `key` in the revision opened last.
    pub fn stage_delete(&mut self, key: &[u8]) -> Arc<Record> {
        let record = Arc::new(Record::tombstone(self.own_key(key), self.head()));
        self.stage(record.clone());
        record
    }

    /// `key` as the tree holds it, or a copy of it.
    fn own_key(&self, key: &[u8]) -> Bytes {
        match self.keys.get_key_value(key) {
            Some((held, _)) => held.clone(),
            None => Bytes::copy_from_slice(key),
        }
    }

    fn stage(&mut self, record: Arc<Record>) {
        self.insert(record.clone());
        self.staged.last_mut().expect("a revision was opened before staging").push(record);
    }

    fn insert(&mut self, record: Arc<Record>) {
        self.size += record.size();
        self.sum = self.sum.wrapping_add(of_record(&record));
        let lives = !record.is_tombstone();
        match self.keys.get_mut(&record.key) {
            None => {
                let key = record.key.clone();
                self.keys.insert(key.clone(), Versions { latest: record, older: Vec::new() });
                self.note_added(&key, lives);
            }
            Some(versions) => {
                // The same revision twice: a transaction may put a key and
                // then delete it.
                debug_assert!(versions.latest.modified <= record.modified);
                let former = std::mem::replace(&mut versions.latest, record);
                self.sum = self.sum.wrapping_sub(of_record(&former));
                let (key, lived) = (former.key.clone(), !former.is_tombstone());
                if versions.older.is_empty() {
                    versions.older.reserve_exact(1);
                }
                versions.older.push(Held::Whole(former));
                self.note_life(&key, lived, lives);
            }
        }
    }

    /// Takes back the revision opened last, whatever was staged in it.
    pub fn unstage_revision(&mut self) {
        for record in self.staged.pop().unwrap_or_default().into_iter().rev() {
            self.remove_latest(&record.key);
        }
    }

    /// What is staged, by revision.
    pub fn staged(&self) -> &[Vec<Arc<Record>>] {
        &self.staged
    }

    /// Takes back everything that is staged.
    pub fn roll_back(&mut self) {
        while !self.staged.is_empty() {
            self.unstage_revision();
        }
    }

    fn remove_latest(&mut self, key: &Bytes) {
        let Some(versions) = self.keys.get_mut(key) else { return };
        self.size -= versions.latest.size();
        self.sum = self.sum.wrapping_sub(of_record(&versions.latest));
        let lived = !versions.latest.is_tombstone();
        let lives = match versions.older.pop() {
            Some(former) => {
                versions.latest = former.whole();
                self.sum = self.sum.wrapping_add(of_record(&versions.latest));
                !versions.latest.is_tombstone()
            }
            None => {
                self.keys.remove(key);
                false
            }
        };
        self.note_life(key, lived, lives);
        if !self.keys.contains_key(key) {
            self.census.key_removed(key);
        }
    }

    /// Lets readers see everything that is staged; gives the changes.
    pub fn commit(&mut self) -> Vec<Arc<Record>> {
        let mut all = Vec::new();
        for changes in std::mem::take(&mut self.staged) {
            all.extend(changes.iter().cloned());
            self.history.push_back(changes.into_iter().map(Held::Whole).collect());
            self.committed = self.committed.next();
        }
        all
    }

    /// Puts a version from a folded chunk back, at start.
    pub fn restore(&mut self, record: Record) {
        self.insert(Arc::new(record));
    }

    /// Puts the changes of one revision back, at start. A key that a folded
    /// chunk already holds in a later version keeps that one.
    pub fn replay(&mut self, records: Vec<Record>) {
        let mut changes = Vec::with_capacity(records.len());
        for mut record in records {
            if let Some((held, _)) = self.keys.get_key_value(&record.key) {
                record.key = held.clone();
            }
            changes.push(Arc::new(record));
        }
        for record in &changes {
            let is_news = self.keys.get(&record.key).is_none_or(|versions| {
                let latest = &versions.latest;
                // Put and deleted in one revision: the tombstone comes last.
                let ends = !latest.is_tombstone() && record.is_tombstone();
                latest.modified < record.modified || (latest.modified == record.modified && ends)
            });
            if is_news {
                self.insert(record.clone());
            }
        }
        self.history.push_back(changes.into_iter().map(Held::Whole).collect());
        self.committed = self.committed.next();
    }

    /// The changes of `revision`, when they are still held.
    pub fn changes(
        &self,
        revision: Revision,
    ) -> Option<impl Iterator<Item = Arc<Record>> + use<'_>> {
        let position = usize::try_from(revision.0 - self.history_first.0).ok()?;
        Some(self.history.get(position)?.iter().map(Held::whole))
    }

    /// Makes `revision` the oldest readable one. [`Index::sweep`] then frees.
    pub fn compact(&mut self, revision: Revision) {
        self.compacted = self.compacted.max(revision);
    }

    /// Whether everything is freed that nobody can read any more.
    pub fn is_swept(&self) -> bool {
        self.history_first >= self.compacted
    }

    /// Frees what nobody can read any more, at most `revisions_max` revisions
    /// a call so that readers are never kept waiting. Gives the keys it
    /// touched and whether more is to be done.
    pub fn sweep(&mut self, revisions_max: usize) -> (Vec<Bytes>, bool) {
        let mut touched = Vec::new();
        for _ in 0..revisions_max {
            if self.history_first >= self.compacted {
                return (touched, false);
            }
            let Some(changes) = self.history.pop_front() else { return (touched, false) };
            self.history_first = self.history_first.next();
            for held in &changes {
                self.forget_superseded(held.key());
                touched.push(held.key().clone());
            }
        }
        (touched, self.history_first < self.compacted)
    }

    /// Drops the versions of `key` that a later one replaced before the
    /// compacted revision.
    fn forget_superseded(&mut self, key: &Bytes) {
        let compacted = self.compacted;
        let Some(versions) = self.keys.get_mut(key) else { return };
        if versions.latest.modified <= compacted {
            let freed: u64 = versions.older.iter().map(Held::size).sum();
            versions.older = Vec::new();
            self.size -= freed;
            if versions.latest.is_tombstone() {
                self.size -= versions.latest.size();
                self.keys.remove(key);
                self.census.key_removed(key);
            }
            return;
        }
        let readable = versions.older.partition_point(|held| held.modified() <= compacted);
        // The last version at or below the compacted revision stays readable,
        // unless it says that the key is gone.
        let keep_from = match readable.checked_sub(1) {
            Some(last) if versions.older[last].is_tombstone() => readable,
            Some(last) => last,
            None => 0,
        };
        let freed: u64 = versions.older.drain(..keep_from).map(|held| held.size()).sum();
        self.size -= freed;
        if versions.older.is_empty() {
            versions.older = Vec::new();
        }
    }
}

#[cfg(test)]
impl Index {
    /// Makes the newest value of a key another one, as a mistake would.
    pub(crate) fn spoil(&mut self, key: &[u8]) {
        let versions = self.keys.get_mut(key).expect("the key is there");
        let mut spoilt = Record::clone(&versions.latest);
        spoilt.value = Bytes::from_static(b"spoilt");
        let parts = (of_record(&versions.latest), of_record(&spoilt));
        self.sum = self.sum.wrapping_sub(parts.0).wrapping_add(parts.1);
        self.size = self.size - versions.latest.size() + spoilt.size();
        versions.latest = Arc::new(spoilt);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(index: &mut Index, key: &'static str, value: &'static str) -> Revision {
        let revision = index.stage_revision();
        index.stage_put(key.as_bytes(), value.as_bytes(), LeaseId::NONE);
        index.commit();
        revision
    }

    fn delete(index: &mut Index, key: &'static str) -> Revision {
        let revision = index.stage_revision();
        index.stage_delete(key.as_bytes());
        index.commit();
        revision
    }

    fn value_at(index: &Index, key: &str, revision: i64) -> Option<String> {
        index
            .get(key.as_bytes(), Revision(revision))
            .map(|record| String::from_utf8_lossy(&record.value).into_owned())
    }

    #[test]
    fn old_revisions_stay_readable_until_compacted() {
        let mut index = Index::default();
        put(&mut index, "a", "1");
        put(&mut index, "a", "2");
        delete(&mut index, "a");
        put(&mut index, "a", "3");
        let seen: Vec<_> = (1..=5).map(|revision| value_at(&index, "a", revision)).collect();
        let expected = [None, Some("1"), Some("2"), None, Some("3")];
        assert_eq!(seen, expected.map(|value| value.map(str::to_owned)));

        index.compact(Revision(3));
        index.sweep(100);
        assert_eq!(value_at(&index, "a", 3).as_deref(), Some("2"));
        assert_eq!(value_at(&index, "a", 2), None);
        assert!(index.changes(Revision(2)).is_none());
        assert!(index.changes(Revision(3)).is_some());
    }

    #[test]
    fn rolled_back_changes_leave_no_trace() {
        let mut index = Index::default();
        put(&mut index, "a", "1");
        let size = index.size();
        index.stage_revision();
        index.stage_put(b"a", b"2", LeaseId::NONE);
        index.stage_put(b"b", b"2", LeaseId::NONE);
        index.stage_revision();
        index.stage_delete(b"a");
        index.roll_back();
        assert_eq!(index.size(), size);
        assert_eq!(index.head(), Revision(2));
        assert_eq!(index.keys(), 1);
        assert_eq!(value_at(&index, "a", 9).as_deref(), Some("1"));
    }

    #[test]
    fn swept_tombstones_give_their_memory_back() {
        let mut index = Index::default();
        for _ in 0..10 {
            put(&mut index, "a", "1");
            delete(&mut index, "a");
        }
        let last = put(&mut index, "b", "1");
        index.compact(last);
        while index.sweep(3).1 {}
        assert_eq!(index.keys(), 1);
        assert_eq!(index.size(), 2 + crate::record::RECORD_OVERHEAD_BYTES);
    }
}
