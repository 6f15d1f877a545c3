//! Evaluates the changes of one commit in order. Pure but for what it stages
//! in the index, which the writer commits or takes back.

use std::time::Instant;

use bytes::Bytes;

use crate::command::{Change, Outcome};
use crate::error::RequestError;
use crate::identity::Identity;
use crate::lease::LEASE_TTL_MAX_S;
use crate::record::{LeaseId, Revision};
use crate::state::State;
use crate::txn::Staging;

/// Something a commit will say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PendingEntry {
    /// The changes staged at this position.
    Changes(usize),
    Grant {
        lease: LeaseId,
        ttl_s: i64,
    },
    Revoke {
        lease: LeaseId,
    },
    Compact {
        revision: Revision,
    },
}

/// The changes of one commit.
#[derive(Debug, Default)]
pub struct Group {
    entries: Vec<PendingEntry>,
    bytes: usize,
}

impl Group {
    /// What the commit will say, in order.
    pub fn entries(&self) -> &[PendingEntry] {
        &self.entries
    }

    /// Roughly how much it will say.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Evaluates one change on top of those before it.
    pub fn evaluate(
        &mut self,
        state: &mut State,
        identity: &Identity,
        now: Instant,
        change: &Change,
    ) -> Result<Outcome, RequestError> {
        match change {
            Change::Compact(revision) => self.compact(state, *revision),
            Change::Grant { lease, ttl_s } => self.grant(state, *lease, *ttl_s),
            Change::Revoke { lease } => self.revoke(state, identity, *lease),
            Change::Expire { lease } => {
                let alive = state.leases.view(*lease, now).is_some_and(|view| view.is_alive);
                if alive {
                    return Ok(Outcome::Done(state.index.head()));
                }
                self.revoke(state, identity, *lease)
            }
            Change::Barrier => Ok(Outcome::Done(state.index.head())),
            Change::Put(_) | Change::DeleteRange(_) | Change::Txn(_) => {
                self.write(state, identity, change)
            }
        }
    }

    fn write(
        &mut self,
        state: &mut State,
        identity: &Identity,
        change: &Change,
    ) -> Result<Outcome, RequestError> {
        let State { index, leases, .. } = state;
        let before = index.staged().len();
        let entries = &self.entries;
        let has_lease = |lease| has_lease(entries, lease, leases.contains(lease));
        let staging = Staging::new(index, identity, &has_lease);
        let outcome = match change {
            Change::Put(put) => staging.put(put).map(Outcome::Put),
            Change::DeleteRange(delete) => Ok(Outcome::DeleteRange(staging.delete_range(delete))),
            Change::Txn(txn) => staging.txn(txn).map(Outcome::Txn),
            _ => unreachable!("only writes come here"),
        };
        self.note_staged(state, before);
        self.bytes += change.staged_bytes();
        outcome
    }

    fn note_staged(&mut self, state: &State, before: usize) {
        if state.index.staged().len() > before {
            self.entries.push(PendingEntry::Changes(before));
        }
    }

    fn compact(&mut self, state: &State, revision: Revision) -> Result<Outcome, RequestError> {
        let pending = self.entries.iter().rev().find_map(|entry| match entry {
            PendingEntry::Compact { revision } => Some(*revision),
            _ => None,
        });
        if revision <= pending.unwrap_or(state.index.compacted()) {
            return Err(RequestError::Compacted);
        }
        if revision > state.index.head() {
            return Err(RequestError::FutureRevision);
        }
        self.entries.push(PendingEntry::Compact { revision });
        Ok(Outcome::Done(state.index.head()))
    }

    fn grant(
        &mut self,
        state: &State,
        lease: LeaseId,
        ttl_s: i64,
    ) -> Result<Outcome, RequestError> {
        if ttl_s > LEASE_TTL_MAX_S {
            return Err(RequestError::LeaseTtlTooLarge);
        }
        if !lease.is_some() {
            return Err(RequestError::LeaseNotFound);
        }
        if has_lease(&self.entries, lease, state.leases.contains(lease)) {
            return Err(RequestError::LeaseExists);
        }
        self.entries.push(PendingEntry::Grant { lease, ttl_s });
        Ok(Outcome::Done(state.index.head()))
    }

    fn revoke(
        &mut self,
        state: &mut State,
        identity: &Identity,
        lease: LeaseId,
    ) -> Result<Outcome, RequestError> {
        if !has_lease(&self.entries, lease, state.leases.contains(lease)) {
            return Err(RequestError::LeaseNotFound);
        }
        let doomed = doomed_keys(state, lease);
        let before = state.index.staged().len();
        self.bytes += doomed.iter().map(Bytes::len).sum::<usize>();
        Staging::new(&mut state.index, identity, &|_| true).delete_keys(&doomed);
        self.note_staged(state, before);
        self.entries.push(PendingEntry::Revoke { lease });
        Ok(Outcome::Done(state.index.head()))
    }
}

/// Whether a lease exists once the entries so far are committed.
fn has_lease(entries: &[PendingEntry], lease: LeaseId, committed: bool) -> bool {
    let pending = entries.iter().rev().find_map(|entry| match entry {
        PendingEntry::Grant { lease: id, .. } if *id == lease => Some(true),
        PendingEntry::Revoke { lease: id } if *id == lease => Some(false),
        _ => None,
    });
    pending.unwrap_or(committed)
}

/// The keys that hang on a lease, staged versions considered.
fn doomed_keys(state: &State, lease: LeaseId) -> Vec<Bytes> {
    let mut keys = state.leases.keys_of(lease);
    let staged = state.index.staged().iter().flatten();
    keys.extend(staged.filter(|record| record.lease == lease).map(|record| record.key.clone()));
    keys.sort();
    keys.dedup();
    let head = state.index.head();
    keys.retain(|key| state.index.get(key, head).is_some_and(|record| record.lease == lease));
    keys
}
