//! A desk's way to the record: production's `Store`, on the [`Ledger`]. Its process may die at each
//! step of it.

use std::collections::BTreeMap;
use std::future::pending;
use std::sync::{Arc, Mutex, MutexGuard};

use microcluster::record::{ClusterRecord, Revision};
use microcluster::store::{CHANGES_MAX, Change, Store, StoreError};

use super::chance::Chance;
use super::executor::{Process, Time};
use super::ledger::{Ledger, What};
use super::plant::Plant;

/// Who dies where.
#[derive(Clone)]
pub struct Falls(Arc<Mutex<Fall>>);

struct Fall {
    chance: Chance,
    per_mille: u64,
    counts: BTreeMap<&'static str, u64>,
    fallen: Vec<Seat>,
}

impl Falls {
    pub fn new(chance: Chance) -> Self {
        let (counts, fallen) = (BTreeMap::new(), Vec::new());
        Self(Arc::new(Mutex::new(Fall { chance, per_mille: 0, counts, fallen })))
    }

    /// How often in a thousand steps.
    pub fn set(&self, per_mille: u64) {
        self.0.lock().unwrap().per_mille = per_mille;
    }

    /// A step at which a process may die.
    pub async fn step(&self, time: &Time, seat: Seat, step: &'static str) {
        let dies = {
            let mut fall = self.0.lock().unwrap();
            let per_mille = fall.per_mille;
            let dies = fall.chance.happens(per_mille);
            if dies {
                *fall.counts.entry(step).or_default() += 1;
                fall.fallen.push(seat);
            }
            dies
        };
        if dies {
            time.kill(seat.1);
            pending::<()>().await;
        }
    }

    /// Who has died since the last time.
    pub fn take(&self) -> Vec<Seat> {
        std::mem::take(&mut self.0.lock().unwrap().fallen)
    }

    /// How often somebody died at each step.
    pub fn counts(&self) -> BTreeMap<&'static str, u64> {
        self.0.lock().unwrap().counts.clone()
    }
}

/// A process on a machine.
pub type Seat = (usize, Process);

/// See the module's words.
pub struct SimStore {
    pub ledger: Arc<Mutex<Ledger>>,
    pub time: Time,
    pub falls: Falls,
    pub seat: Seat,
}

impl SimStore {
    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap()
    }

    async fn step(&self, step: &'static str) {
        self.falls.step(&self.time, self.seat, step).await;
    }
}

impl Store for SimStore {
    async fn read(&self) -> Result<ClusterRecord, StoreError> {
        let planned = self.ledger().plan_read(self.seat.0, self.time.now_us());
        let (at_us, reaches) = match planned {
            Ok(at_us) => (at_us, true),
            Err(at_us) => (at_us, false),
        };
        self.time.sleep_until(at_us).await;
        if !reaches {
            return Err(StoreError::Unavailable("there is no leader".into()));
        }
        let record = self.ledger().read(self.time.now_us());
        // The answer has a way to go, too; others write meanwhile.
        self.time.sleep(self.time.now_us() % 3_000).await;
        self.step("desk: between reading and applying").await;
        record
    }

    async fn apply(&self, changes: &[Change]) -> Result<Revision, StoreError> {
        assert!(changes.len() <= CHANGES_MAX, "a decision has {} changes", changes.len());
        let told = {
            let mut ledger = self.ledger();
            let mut changes = changes.to_vec();
            if let Some(plant) = ledger.plant {
                let now_us = self.time.now_us();
                plant.twist(&mut changes, ledger.now(now_us));
            }
            ledger.plan_write(self.seat.0, &changes, self.time.now_us())
        };
        self.step("desk: between applying and knowing").await;
        self.time.sleep_until(told.at_us).await;
        let outcome = match told.what {
            What::Verdict(order) => self.ledger().verdict(order, self.time.now_us()),
            What::Unknown => Err(self.ledger().unknown_outcome()),
            What::Unavailable => Err(StoreError::Unavailable("leader changed".into())),
        };
        self.step("desk: between applying and answering").await;
        let plant = self.ledger().plant;
        match outcome {
            Err(StoreError::Unknown(_)) if plant == Some(Plant::UnknownAsDone) => Ok(Revision(0)),
            outcome => outcome,
        }
    }

    async fn later_than(&self, seen: Revision) -> Result<Revision, StoreError> {
        loop {
            let revision = self.ledger().now(self.time.now_us()).map(|record| record.revision);
            if let Some(revision) = revision.filter(|revision| *revision > seen) {
                return Ok(revision);
            }
            self.time.sleep(100_000).await;
        }
    }
}
