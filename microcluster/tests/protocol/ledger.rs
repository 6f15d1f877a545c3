//! The cluster's record as the replicated datastore keeps it: linearizable, by compare-and-set, and
//! with everything that a client of three machines has to live with. A change may be refused,
//! be made and not be answered, never be made and not be answered, or be made long after somebody
//! was told that nobody knows. Leaders change; for a while there is none.

use std::collections::{BTreeMap, BTreeSet};

use microcluster::record::{ClusterRecord, Revision, Versioned};
use microcluster::store::{Change, Entry, Key, StoreError, assemble};
use serde::de::DeserializeOwned;

use super::chance::Chance;
use super::plant::Plant;
use super::promises::{Promises, Visit};

/// How long a datastore waits for a leader, and whoever asks it for an answer.
pub const LEADER_WAIT_US: u64 = 7_000_000;
pub const ANSWER_WAIT_US: u64 = 15_000_000;
/// A request takes so long when all is well: to the leader, to the disks of the majority, back.
const QUICK_US: (u64, u64) = (1_500, 9_000);
/// A stale read of the planted mistake is so old.
const STALE_US: u64 = 20_000_000;

/// See the module's words.
pub struct Ledger {
    record: Option<ClusterRecord>,
    entries: BTreeMap<String, (Vec<u8>, Revision)>,
    revision: Revision,
    pending: BTreeMap<(u64, u64), Vec<Change>>,
    verdicts: BTreeMap<u64, Verdict>,
    order: u64,
    leaderless_until_us: u64,
    /// Machines whose datastore is cut off from the others for now, and those that were removed.
    pub cut: BTreeSet<usize>,
    pub out: BTreeSet<usize>,
    /// How often in a thousand times an outcome is not known.
    pub unknown: u64,
    former: Vec<(u64, ClusterRecord)>,
    pub plant: Option<Plant>,
    pub promises: Promises,
    pub load: Load,
    /// When the record last became another.
    pub changed_us: u64,
    chance: Chance,
}

/// What the record was asked for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Load {
    pub reads: u64,
    pub read_bytes: u64,
    pub writes: u64,
    pub written_bytes: u64,
    pub collisions: u64,
    pub unknown: u64,
    pub late: u64,
    pub leaders: u64,
}

enum Verdict {
    Made(Revision),
    Collided(Key),
}

/// What a client of the datastore is told, and when.
pub struct Told {
    pub at_us: u64,
    pub what: What,
}

pub enum What {
    /// What has come of the change with this number.
    Verdict(u64),
    Unknown,
    Unavailable,
}

impl Ledger {
    pub fn new(promises: Promises, plant: Option<Plant>, chance: Chance) -> Self {
        Self {
            record: None,
            entries: BTreeMap::new(),
            revision: Revision(0),
            pending: BTreeMap::new(),
            verdicts: BTreeMap::new(),
            order: 0,
            leaderless_until_us: 0,
            cut: BTreeSet::new(),
            out: BTreeSet::new(),
            unknown: 0,
            former: Vec::new(),
            plant,
            promises,
            load: Load::default(),
            changed_us: 0,
            chance,
        }
    }

    /// The record as it is now, with every change whose moment has come.
    pub fn now(&mut self, now_us: u64) -> Option<&ClusterRecord> {
        self.settle(now_us);
        self.record.as_ref()
    }

    /// What a read that reaches the leader at this moment gives.
    pub fn read(&mut self, now_us: u64) -> Result<ClusterRecord, StoreError> {
        self.settle(now_us);
        self.load.reads += 1;
        self.load.read_bytes += self.bytes();
        if self.plant == Some(Plant::StaleReads) && self.chance.happens(300) {
            let old = |(at_us, _): &&(u64, ClusterRecord)| at_us + STALE_US <= now_us;
            if let Some((_, record)) = self.former.iter().rev().find(old) {
                return Ok(record.clone());
            }
        }
        self.record.clone().ok_or(StoreError::NoCluster)
    }

    /// When a read of this machine reaches the leader, or when it is told that it does not.
    pub fn plan_read(&mut self, machine: usize, now_us: u64) -> Result<u64, u64> {
        self.reach(machine, now_us).map(|begin| begin + self.quick() / 2)
    }

    /// Takes a change in. What becomes of it is decided here, whatever happens to its sender.
    pub fn plan_write(&mut self, machine: usize, changes: &[Change], now_us: u64) -> Told {
        let begin = match self.reach(machine, now_us) {
            Ok(begin) => begin,
            Err(at_us) => return Told { at_us, what: What::Unavailable },
        };
        let due_us = begin + self.quick();
        if !self.chance.happens(self.unknown) {
            let order = self.submit(due_us, changes);
            return Told { at_us: due_us + self.quick() / 2, what: What::Verdict(order) };
        }
        let told_us = due_us + self.chance.within(1_000, ANSWER_WAIT_US);
        match self.chance.within(0, 4) {
            0 => {
                self.submit(due_us, changes);
            }
            1 => {}
            2 => {
                // Whoever passed it on to the leader has given up; the leader has not.
                let due_us = told_us + self.chance.within(0, ANSWER_WAIT_US);
                self.submit(due_us, changes);
                self.load.late += 1;
            }
            _ => return Told { at_us: told_us, what: What::Unavailable },
        }
        Told { at_us: told_us, what: What::Unknown }
    }

    /// What has come of a change.
    pub fn verdict(&mut self, order: u64, now_us: u64) -> Result<Revision, StoreError> {
        self.settle(now_us);
        match self.verdicts.remove(&order) {
            Some(Verdict::Made(revision)) => Ok(revision),
            Some(Verdict::Collided(key)) => {
                self.load.collisions += 1;
                Err(StoreError::Collided { key })
            }
            None => Err(self.unknown_outcome()),
        }
    }

    pub fn unknown_outcome(&mut self) -> StoreError {
        self.load.unknown += 1;
        StoreError::Unknown("no answer".into())
    }

    /// The leader goes, and there is none for a while. What was on its way is lost, or is made by
    /// the next one.
    pub fn change_leader(&mut self, now_us: u64, gone_us: u64) {
        self.settle(now_us);
        self.load.leaders += 1;
        self.leaderless_until_us = self.leaderless_until_us.max(now_us + gone_us);
        for ((due_us, order), changes) in std::mem::take(&mut self.pending) {
            if self.chance.happens(500) {
                let due_us = due_us.max(self.leaderless_until_us + self.chance.within(1, 5_000));
                self.pending.insert((due_us, order), changes);
            }
        }
    }

    /// Somebody was answered at this moment.
    pub fn answered(&mut self, visit: &Visit<'_>, now_us: u64) {
        self.settle(now_us);
        self.promises.answered(visit, self.record.as_ref(), now_us);
    }

    /// From now on everything is well.
    pub fn heal(&mut self, now_us: u64) {
        self.settle(now_us);
        self.cut.clear();
        self.unknown = 0;
    }

    /// The record put together from the bytes that are kept, by the code that does it.
    pub fn assembled(&self) -> Result<ClusterRecord, StoreError> {
        let entry = |(key, (value, revision)): (&String, &(Vec<u8>, Revision))| Entry {
            key: key.clone(),
            value: value.clone(),
            revision: *revision,
        };
        assemble(self.revision, self.entries.iter().map(entry).collect())
    }

    pub fn bytes(&self) -> u64 {
        self.entries.iter().map(|(key, (value, _))| (key.len() + value.len()) as u64).sum()
    }

    fn reach(&mut self, machine: usize, now_us: u64) -> Result<u64, u64> {
        let away = self.cut.contains(&machine) || self.out.contains(&machine);
        if away || self.leaderless_until_us > now_us + LEADER_WAIT_US {
            return Err(now_us + LEADER_WAIT_US);
        }
        Ok(now_us.max(self.leaderless_until_us))
    }

    fn quick(&mut self) -> u64 {
        self.chance.within(QUICK_US.0, QUICK_US.1)
    }

    fn submit(&mut self, due_us: u64, changes: &[Change]) -> u64 {
        self.order += 1;
        self.pending.insert((due_us, self.order), changes.to_vec());
        self.order
    }

    fn settle(&mut self, now_us: u64) {
        while let Some(first) = self.pending.first_entry() {
            let (due_us, order) = *first.key();
            if due_us > now_us {
                return;
            }
            let changes = first.remove();
            let verdict = self.commit(&changes, due_us);
            self.verdicts.insert(order, verdict);
        }
    }

    fn commit(&mut self, changes: &[Change], now_us: u64) -> Verdict {
        let found = |change: &Change| self.entries.get(&change.key().to_string()).map(|e| e.1);
        let blind = self.plant == Some(Plant::BlindWrites);
        if let Some(change) = changes.iter().find(|change| found(change) != change.was() && !blind)
        {
            return Verdict::Collided(change.key());
        }
        self.revision = Revision(self.revision.0 + 1);
        self.load.writes += 1;
        if self.plant == Some(Plant::StaleReads)
            && let Some(record) = &self.record
        {
            self.former.push((now_us, record.clone()));
        }
        for change in changes {
            self.put(change);
        }
        if self.record.is_none() {
            self.record = self.assembled().ok();
        }
        if let Some(record) = &mut self.record {
            record.revision = self.revision;
            self.changed_us = now_us;
            self.promises.committed(changes, record, now_us);
        }
        Verdict::Made(self.revision)
    }

    /// Keeps bytes, and reads them again as every reader does.
    fn put(&mut self, change: &Change) {
        let write = change.to_write();
        let Some(value) = write.value else {
            self.entries.remove(&write.key);
            let Some(record) = &mut self.record else { return };
            match change.key() {
                Key::Member(name) => drop(record.members.remove(&name)),
                Key::Token(id) => drop(record.tokens.remove(&id)),
                Key::Removed(id) => drop(record.removed.remove(&id)),
                _ => {}
            }
            return;
        };
        self.load.written_bytes += value.len() as u64;
        if let Some(record) = &mut self.record {
            let revision = self.revision;
            match change.key() {
                Key::Settings => record.settings = again(revision, &value),
                Key::Membership => record.membership = again(revision, &value),
                Key::Member(name) => drop(record.members.insert(name, again(revision, &value))),
                Key::Token(id) => drop(record.tokens.insert(id, again(revision, &value))),
                Key::Removed(id) => drop(record.removed.insert(id, again(revision, &value))),
                Key::Other(_) => {}
            }
        }
        self.entries.insert(write.key, (value, self.revision));
    }
}

fn again<T: DeserializeOwned>(revision: Revision, bytes: &[u8]) -> Versioned<T> {
    let value = serde_json::from_slice(bytes).expect("what was written can be read");
    Versioned { revision, value }
}
