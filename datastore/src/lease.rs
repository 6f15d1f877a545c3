//! Leases: which keys hang on them and when they end. Pure: the caller says
//! what time it is, by a clock that only moves forward.
//!
//! Grants and ends are persisted through the writer; renewals are not, so
//! after a restart every lease has its full time again, as with etcd.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap};
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::fingerprint::of_lease;
use crate::record::{LeaseId, Record};

/// The longest time to live; etcd's bound.
pub const LEASE_TTL_MAX_S: i64 = 9_000_000_000;
/// The shortest time to live: what etcd with default timeouts raises to.
pub const LEASE_TTL_MIN_S: i64 = 2;

/// Ends of leases that are gone may pile up to this and as many as there are leases.
const ENDS_SPARE: usize = 1024;

#[derive(Debug)]
struct Lease {
    ttl_s: i64,
    expires: Instant,
    keys: BTreeSet<Bytes>,
}

/// Every lease, its keys, and who ends next.
#[derive(Debug, Default)]
pub struct LeaseTable {
    leases: BTreeMap<LeaseId, Lease>,
    attached: HashMap<Bytes, LeaseId>,
    /// Renewals don't touch the heap: an entry that comes up too early is put
    /// back with the lease's real end.
    ends: BinaryHeap<Reverse<(Instant, LeaseId)>>,
    sum: u64,
}

/// A lease as its owner may see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseView {
    pub granted_ttl_s: i64,
    pub remaining_ttl_s: i64,
    /// Whether its time is not over yet.
    pub is_alive: bool,
}

impl LeaseTable {
    /// Begins a lease; one that is there already gets the new time.
    pub fn grant(&mut self, lease: LeaseId, ttl_s: i64, now: Instant) {
        let expires = now + ttl(ttl_s);
        let former = self.leases.remove(&lease);
        let of_former = former.as_ref().map_or(0, |former| of_lease(lease, former.ttl_s));
        self.sum = self.sum.wrapping_sub(of_former).wrapping_add(of_lease(lease, ttl_s));
        let keys = former.map(|former| former.keys).unwrap_or_default();
        self.leases.insert(lease, Lease { ttl_s, expires, keys });
        self.ends.push(Reverse((expires, lease)));
        if self.ends.len() > 2 * self.leases.len() + ENDS_SPARE {
            self.tidy_ends();
        }
    }

    /// Ends a lease.
    pub fn revoke(&mut self, lease: LeaseId) {
        let Some(former) = self.leases.remove(&lease) else { return };
        self.sum = self.sum.wrapping_sub(of_lease(lease, former.ttl_s));
        for key in former.keys {
            self.attached.remove(&key);
        }
    }

    /// Gives a lease its full time again; its time to live, when it exists.
    pub fn renew(&mut self, lease: LeaseId, now: Instant) -> Option<i64> {
        let lease = self.leases.get_mut(&lease)?;
        if lease.expires <= now {
            return None;
        }
        lease.expires = now + ttl(lease.ttl_s);
        Some(lease.ttl_s)
    }

    /// Gives every lease its full time again: a new leader does not know of
    /// the renewals that the one before it has answered.
    pub fn renew_all(&mut self, now: Instant) {
        for lease in self.leases.values_mut() {
            lease.expires = now + ttl(lease.ttl_s);
        }
        self.tidy_ends();
    }

    /// Forgets the ends of leases that are gone: a follower never asks who
    /// has expired, which would do so.
    fn tidy_ends(&mut self) {
        let ends = self.leases.iter().map(|(id, lease)| Reverse((lease.expires, *id)));
        self.ends = ends.collect();
    }

    /// Notes on which lease the key of a new version hangs.
    pub fn note(&mut self, record: &Record) {
        if let Some(former) = self.attached.remove(&record.key)
            && let Some(lease) = self.leases.get_mut(&former)
        {
            lease.keys.remove(&record.key);
        }
        if let Some(lease) = self.leases.get_mut(&record.lease) {
            lease.keys.insert(record.key.clone());
            self.attached.insert(record.key.clone(), record.lease);
        }
    }

    /// Whether the lease exists.
    pub fn contains(&self, lease: LeaseId) -> bool {
        self.leases.contains_key(&lease)
    }

    /// The times of a lease.
    pub fn view(&self, lease: LeaseId, now: Instant) -> Option<LeaseView> {
        let lease = self.leases.get(&lease)?;
        let remaining = lease.expires.saturating_duration_since(now);
        Some(LeaseView {
            granted_ttl_s: lease.ttl_s,
            remaining_ttl_s: i64::try_from(remaining.as_secs()).unwrap_or(i64::MAX),
            is_alive: lease.expires > now,
        })
    }

    /// The keys that hang on a lease, in order.
    pub fn keys_of(&self, lease: LeaseId) -> Vec<Bytes> {
        self.leases
            .get(&lease)
            .map(|lease| lease.keys.iter().cloned().collect())
            .unwrap_or_default()
    }

    /// The sum over all leases, see [`crate::fingerprint`].
    pub fn sum(&self) -> u64 {
        self.sum
    }

    /// Every lease with its time to live.
    pub fn all(&self) -> impl Iterator<Item = (LeaseId, i64)> {
        self.leases.iter().map(|(id, lease)| (*id, lease.ttl_s))
    }

    /// Every lease, those that end first before the others.
    pub fn by_end(&self) -> Vec<LeaseId> {
        let mut leases: Vec<_> =
            self.leases.iter().map(|(id, lease)| (lease.expires, *id)).collect();
        leases.sort_unstable();
        leases.into_iter().map(|(_, id)| id).collect()
    }

    /// When to ask for expired leases again.
    pub fn next_end(&self) -> Option<Instant> {
        self.ends.peek().map(|Reverse((end, _))| *end)
    }

    /// The leases whose time is over, at most `count_max`. They stay until
    /// they are revoked; asking again names them again after `retry`.
    pub fn expired(&mut self, now: Instant, count_max: usize, retry: Duration) -> Vec<LeaseId> {
        let mut expired = Vec::new();
        while expired.len() < count_max {
            match self.ends.peek() {
                Some(Reverse((end, _))) if *end <= now => {}
                _ => break,
            }
            let Some(Reverse((_, id))) = self.ends.pop() else { break };
            let Some(lease) = self.leases.get(&id) else { continue };
            if lease.expires <= now {
                expired.push(id);
                self.ends.push(Reverse((now + retry, id)));
            } else {
                self.ends.push(Reverse((lease.expires, id)));
            }
        }
        expired
    }
}

fn ttl(ttl_s: i64) -> Duration {
    Duration::from_secs(ttl_s.clamp(LEASE_TTL_MIN_S, LEASE_TTL_MAX_S) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Revision;

    const RETRY: Duration = Duration::from_secs(1);

    fn record(key: &'static str, lease: i64) -> Record {
        Record {
            key: key.into(),
            value: Bytes::new(),
            created: Revision(2),
            modified: Revision(2),
            version: 1,
            lease: LeaseId(lease),
        }
    }

    #[test]
    fn renewed_leases_live_on_and_others_end() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut table = LeaseTable::default();
        table.grant(LeaseId(1), 10, start);
        table.grant(LeaseId(2), 10, start);
        assert_eq!(table.renew(LeaseId(1), at(9)), Some(10));
        assert_eq!(table.expired(at(10), 10, RETRY), [LeaseId(2)]);
        assert_eq!(table.expired(at(10), 10, RETRY), []);
        assert_eq!(table.expired(at(11), 10, RETRY), [LeaseId(2)]);
        table.revoke(LeaseId(2));
        assert_eq!(table.expired(at(18), 10, RETRY), []);
        assert_eq!(table.expired(at(19), 10, RETRY), [LeaseId(1)]);
        assert_eq!(table.renew(LeaseId(1), at(19)), None);
        assert_eq!(table.renew(LeaseId(7), at(19)), None);
    }

    #[test]
    fn the_running_sum_is_that_of_the_leases_that_are_there() {
        let now = Instant::now();
        let mut table = LeaseTable::default();
        table.grant(LeaseId(1), 10, now);
        table.grant(LeaseId(2), 20, now);
        table.grant(LeaseId(1), 30, now);
        table.revoke(LeaseId(2));
        table.revoke(LeaseId(9));
        assert_eq!(table.sum(), of_lease(LeaseId(1), 30));
        table.revoke(LeaseId(1));
        assert_eq!(table.sum(), 0);
    }

    #[test]
    fn a_key_hangs_on_the_lease_of_its_latest_version() {
        let now = Instant::now();
        let mut table = LeaseTable::default();
        table.grant(LeaseId(1), 10, now);
        table.grant(LeaseId(2), 10, now);
        table.note(&record("a", 1));
        table.note(&record("b", 1));
        table.note(&record("a", 2));
        assert_eq!(table.keys_of(LeaseId(1)), ["b"]);
        assert_eq!(table.keys_of(LeaseId(2)), ["a"]);
        table.note(&Record::tombstone("a".into(), Revision(3)));
        assert!(table.keys_of(LeaseId(2)).is_empty());
    }
}
