//! Packing of what was replaced: most of the memory of a store that changes much is its history,
//! which lists and watches of today never look at.
//!
//! A version is packed when the revision that replaced it is well behind the newest: watchers that
//! keep up, and their `prev_kv`, find it whole. A small store packs nothing. The work is done in
//! steps, and outside the locks:
//!
//! ```text
//! reader's lock   to_pack     which are next
//! none            Packer      compress
//! writer's lock   hold        put them in the places of the whole ones
//! ```

use std::sync::Arc;

use super::Index;
use super::held::{Held, Packer};
use crate::record::{Record, Revision};
use crate::shared::Shared;

/// What is packed. Tests make everything small.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackLimits {
    /// What so many of the newest revisions replaced stays whole.
    pub revisions_whole: i64,
    /// An index that holds less than this packs nothing: a small store's processor time is worth
    /// more than its memory.
    pub bytes_min: u64,
    /// Revisions looked at in one step: half a millisecond, most of it without a lock.
    pub revisions_per_step: i64,
}

impl Default for PackLimits {
    fn default() -> PackLimits {
        PackLimits { revisions_whole: 1024, bytes_min: 64 << 20, revisions_per_step: 64 }
    }
}

/// What is to be packed next.
struct Step {
    /// Replaced before this revision.
    upto: Revision,
    records: Vec<Arc<Record>>,
}

/// Packs whenever there is something to pack, for as long as the state is shared.
pub async fn keep_packed(shared: Arc<Shared>) {
    let mut packer = Packer::default();
    loop {
        shared.packing_due.notified().await;
        loop {
            let Some(step) = shared.read().index.to_pack(&shared.limits.packing) else { break };
            let packed = packer.pack(step.records);
            shared.write().index.hold(packed, step.upto);
            tokio::task::yield_now().await;
        }
    }
}

impl Index {
    /// Whether a whole step can be packed.
    pub fn is_packing_due(&self, limits: &PackLimits) -> bool {
        let behind = self.committed.0 - self.packed.0;
        self.size >= limits.bytes_min
            && behind >= limits.revisions_whole + limits.revisions_per_step
    }

    fn to_pack(&self, limits: &PackLimits) -> Option<Step> {
        if !self.is_packing_due(limits) {
            return None;
        }
        // What was forgotten needs no packing.
        let from = self.packed.max(self.history_first);
        let upto = Revision(from.0 + limits.revisions_per_step).min(self.committed);
        let of_revision = |revision| {
            let position = (revision - self.history_first.0) as usize;
            self.history.get(position).into_iter().flatten()
        };
        let records = (from.0..upto.0)
            .flat_map(of_revision)
            .filter_map(|held| self.replaced_by(held))
            .collect();
        Some(Step { upto, records })
    }

    /// The version before this one, if it is whole.
    fn replaced_by(&self, held: &Held) -> Option<Arc<Record>> {
        match self.keys.get(held.key())?.older_at(held.modified().previous())? {
            Held::Whole(record) => Some(record.clone()),
            Held::Packed(..) => None,
        }
    }

    /// Puts packed versions where the whole ones are, unless those have gone.
    fn hold(&mut self, packed: Vec<(Arc<Record>, Held)>, upto: Revision) {
        for (whole, held) in packed {
            let is_it = |other: &&mut Held| other.is(&whole);
            let Some(versions) = self.keys.get_mut(&whole.key) else { continue };
            let start = versions.older.partition_point(|other| other.modified() < whole.modified);
            let Some(place) = versions.older[start..].iter_mut().find(is_it) else { continue };
            *place = held.clone();
            self.size = self.size - whole.size() + held.size();
            let position = usize::try_from(whole.modified.0 - self.history_first.0);
            let changes = position.ok().and_then(|position| self.history.get_mut(position));
            if let Some(place) = changes.and_then(|changes| changes.iter_mut().find(is_it)) {
                *place = held;
            }
        }
        self.packed = self.packed.max(upto.min(self.committed));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::key_range::KeyRange;
    use crate::record::LeaseId;

    const AT_ONCE: PackLimits =
        PackLimits { revisions_whole: 0, bytes_min: 0, revisions_per_step: 1 };

    fn pack_all(index: &mut Index) {
        let mut packer = Packer::default();
        while let Some(step) = index.to_pack(&AT_ONCE) {
            index.hold(packer.pack(step.records), step.upto);
        }
    }

    /// Values that shrink, and some that don't.
    fn value(number: usize) -> Vec<u8> {
        match number % 4 {
            0 => b"short".to_vec(),
            1 => (0..600_usize).map(|at| ((at * at * (number + 7)) >> 3) as u8).collect(),
            _ => format!("value {number} ").repeat(60).into_bytes(),
        }
    }

    #[test]
    fn what_is_replaced_takes_less_memory_when_it_is_packed_and_reads_the_same() {
        let mut index = Index::default();
        for number in 0..100 {
            index.stage_revision();
            index.stage_put(b"key", &value(number * 4 + 2), LeaseId::NONE);
            index.commit();
        }
        let before = index.size();
        pack_all(&mut index);
        assert!(index.size() * 2 < before, "{} of {before} bytes", index.size());
        for number in 0..100 {
            let at = Revision(number as i64 + 2);
            assert_eq!(index.get(b"key", at).unwrap().value, value(number * 4 + 2));
            let mut changes = index.changes(at).unwrap();
            assert_eq!(changes.next().unwrap().value, value(number * 4 + 2));
        }
        // Those packed are the very same in the history and in the tree.
        index.compact(Revision(101));
        index.sweep(usize::MAX);
        assert_eq!(
            index.size(),
            3 + value(398).len() as u64 + crate::record::RECORD_OVERHEAD_BYTES
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn a_packed_index_answers_as_a_whole_one(
            steps in prop::collection::vec((0..6_u8, 0..12_u8, 0..30_i64), 1..200),
        ) {
            let (mut whole, mut packed) = (Index::default(), Index::default());
            for (number, (kind, key, back)) in steps.into_iter().enumerate() {
                for index in [&mut whole, &mut packed] {
                    index.stage_revision();
                    let lives = index.contains(&[key], index.head());
                    match kind {
                        0 if lives => drop(index.stage_delete(&[key])),
                        1 if lives => {
                            index.stage_put(&[key], &value(number), LeaseId::NONE);
                            index.stage_delete(&[key]);
                        }
                        2 => {
                            index.stage_put(&[key], &value(number), LeaseId::NONE);
                            index.unstage_revision();
                        }
                        3 => {
                            index.unstage_revision();
                            index.compact(Revision(index.committed().0 - back));
                            index.sweep(back as usize);
                        }
                        _ => drop(index.stage_put(&[key], &value(number), LeaseId::NONE)),
                    }
                    index.commit();
                }
                pack_all(&mut packed);
                for at in whole.compacted().0.max(1)..=whole.committed().0 {
                    let all = |index: &Index| {
                        index.range(&KeyRange::all(), Revision(at)).collect::<Vec<_>>()
                    };
                    prop_assert_eq!(all(&whole), all(&packed));
                    let changes = |index: &Index| {
                        index.changes(Revision(at)).map(|changes| changes.collect::<Vec<_>>())
                    };
                    prop_assert_eq!(changes(&whole), changes(&packed));
                }
                prop_assert_eq!(whole.sum(), packed.sum());
            }
            for index in [&mut whole, &mut packed] {
                index.compact(index.committed());
                index.sweep(usize::MAX);
            }
            pack_all(&mut packed);
            prop_assert!(packed.size() <= whole.size());
        }
    }
}
