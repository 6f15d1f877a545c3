//! How many keys live in a range, at any readable revision.

use bytes::Bytes;

use super::Index;
use super::held::Held;
use crate::census::{STRETCH_KEYS_MAX, Stretch};
use crate::key_range::KeyRange;
use crate::record::Revision;

impl Index {
    /// How many keys in `range` live at `revision`: as many now, less what
    /// was changed since.
    pub fn count(&self, range: &KeyRange, revision: Revision) -> usize {
        let estimate = self.census.estimate(range);
        let revisions = usize::try_from(self.head().0 - revision.0).unwrap_or(0);
        // A revision changes one key, mostly. Far back, walking is quicker.
        if revisions > STRETCH_KEYS_MAX as usize + estimate.summed.keys as usize / 4 {
            return self.walked_count(range, revision);
        }
        let walked: usize =
            estimate.left.iter().map(|part| self.walked_count(part, self.head())).sum();
        let now = estimate.summed.living as usize + walked;
        let (born, died) = self.changed_since(range, revision);
        now + died - born
    }

    fn walked_count(&self, range: &KeyRange, revision: Revision) -> usize {
        let keys = self.keys.range::<[u8], _>(range.bounds());
        keys.filter(|(_, versions)| versions.lives_at(revision)).count()
    }

    /// How many keys in `range` came to life after `revision`, and how many
    /// ended, as seen from the newest revision.
    fn changed_since(&self, range: &KeyRange, revision: Revision) -> (usize, usize) {
        let skipped = usize::try_from(revision.0 + 1 - self.history_first.0).unwrap_or(0);
        let committed = self.history.iter().skip(skipped).flatten().map(Held::key);
        let mut keys: Vec<&Bytes> = committed
            .chain(self.staged.iter().flatten().map(|record| &record.key))
            .filter(|key| range.contains(key))
            .collect();
        keys.sort_unstable();
        keys.dedup();
        let (mut born, mut died) = (0, 0);
        for key in keys {
            match (self.contains(key, revision), self.contains(key, self.head())) {
                (false, true) => born += 1,
                (true, false) => died += 1,
                _ => {}
            }
        }
        (born, died)
    }

    /// Notes a key that was not there before.
    pub(super) fn note_added(&mut self, key: &[u8], lives: bool) {
        let too_long = self.census.key_added(key);
        self.note_life(key, false, lives);
        if let Some(stretch) = too_long {
            self.divide(&stretch);
        }
    }

    pub(super) fn note_life(&mut self, key: &[u8], lived: bool, lives: bool) {
        match (lived, lives) {
            (false, true) => self.census.born(key),
            (true, false) => self.census.died(key),
            _ => {}
        }
    }

    /// Divides a stretch of the census in the middle.
    fn divide(&mut self, stretch: &KeyRange) {
        let half = STRETCH_KEYS_MAX / 2;
        let mut before = Stretch::default();
        for (key, versions) in self.keys.range::<[u8], _>(stretch.bounds()) {
            if before.keys == half {
                let middle = key.clone();
                self.census.divide(&stretch.start, middle, before);
                return;
            }
            before.keys += 1;
            before.living += u32::from(!versions.latest.is_tombstone());
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::record::LeaseId;

    fn key(number: u16) -> Bytes {
        format!("key{number:04}").into()
    }

    #[derive(Clone, Debug)]
    enum Step {
        Put(u16),
        Delete(u16),
        /// Staged and taken back.
        Undone(u16),
        Compact(i64),
    }

    fn step() -> impl Strategy<Value = Step> {
        // Deletions come in runs, so that stretches are joined again.
        prop_oneof![
            6 => (0..900_u16).prop_map(Step::Put),
            4 => (0..900_u16).prop_map(Step::Delete),
            1 => (0..900_u16).prop_map(Step::Undone),
            1 => (0..40_i64).prop_map(Step::Compact),
        ]
    }

    fn apply(index: &mut Index, step: &Step) {
        index.stage_revision();
        match step {
            Step::Put(number) => drop(index.stage_put(&key(*number), b"", LeaseId::NONE)),
            // Eight keys at once, as far as they live.
            Step::Delete(number) => {
                for number in *number..*number + 8 {
                    if index.get(&key(number), index.head()).is_some() {
                        index.stage_delete(&key(number));
                    }
                }
            }
            Step::Undone(number) => {
                index.stage_put(&key(*number), b"", LeaseId::NONE);
                index.unstage_revision();
            }
            Step::Compact(back) => {
                index.unstage_revision();
                let revision = Revision(index.committed().0 - back);
                index.compact(revision);
                index.sweep(usize::MAX);
            }
        }
        index.commit();
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn counts_agree_with_walks(
            steps in prop::collection::vec(step(), 1..3000),
            ranges in prop::collection::vec((0..900_u16, 0..950_u16, 0..60_i64), 20),
        ) {
            let mut index = Index::default();
            for (position, step) in steps.iter().enumerate() {
                apply(&mut index, step);
                // At the end all of them, before now and then one.
                let last = position + 1 == steps.len();
                let some = if last { ranges.len() } else { usize::from(position % 50 == 0) };
                for (from, to, back) in ranges.iter().take(some) {
                    let end = if *to >= 920 { "\0".into() } else { key(*to) };
                    let range = KeyRange::from_wire(key(*from), end);
                    let revision = Revision(index.committed().0 - back).max(index.compacted());
                    let walked = index.range(&range, revision).count();
                    prop_assert_eq!(index.count(&range, revision), walked, "{:?}", range);
                }
            }
        }
    }
}
