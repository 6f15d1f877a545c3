//! New certificates for a node that is one, and what has changed about it.
//!
//! The node shows who it is by a key that the record knows. It may bring a new one; the record
//! then knows both, until the node has shown the new one: if the answer is lost, the node comes
//! again with the old key and is still let in.

use time::OffsetDateTime;

use super::applicant::{check_addresses, check_failure_domain};
use super::caller::Caller;
use super::decision::{Decision, Outcome};
use super::request::{order_leaves, read_requests};
use crate::message::{Refusal, Renew};
use crate::record::{ClusterRecord, Fingerprint, KEYS_MAX, MemberRecord};
use crate::store::Change;
use crate::trust::Purpose;
use crate::version::Version;

/// Signs for whoever asks, for itself. Versions that do not go together are not a reason to
/// refuse: a node without certificates could not even be upgraded.
pub fn decide_renew(
    record: &ClusterRecord,
    renew: &Renew,
    release: Version,
    caller: &Caller,
    now: OffsetDateTime,
) -> Result<Decision, Refusal> {
    let (found, identity) = caller.identify_late(record, now)?;
    let mut member = MemberRecord { last_contact: now, release, ..found.value.clone() };
    if let Some(addresses) = &renew.addresses {
        check_addresses(record, member.id, addresses)?;
        member.addresses.clone_from(addresses);
    }
    if let Some(domain) = &renew.failure_domain {
        check_failure_domain(domain)?;
        member.failure_domain.clone_from(domain);
    }
    if let Some(settings) = &renew.settings {
        member.settings = settings.cleaned();
    }
    if let Some(rotation) = &renew.rotation {
        member.rotation = rotation.cleaned();
    }
    member.kubernetes = renew.kubernetes.unwrap_or(member.kubernetes);
    let keys = read_requests(&renew.requests, member.role)?;
    let fresh = keys.get(&Purpose::Node).map(|key| Fingerprint::of(key.public_key()));
    member.keys = keys_after(&found.value.keys, identity.key, fresh);
    let orders = order_leaves(&keys, &member, now)?;
    // Another node may be taking the same address at this moment.
    let has_moved = member.addresses != found.value.addresses;
    let mut changes = vec![Change::member(member, found)];
    if has_moved {
        changes.push(Change::membership(record));
    }
    Ok(Decision { changes, orders, outcome: Outcome::Renewed })
}

/// The key that was shown, and those certified since. A request that its sender gave up may be
/// decided after the next one and must not put its key in the place of that one's. Keys from before
/// the one that was shown are over.
fn keys_after(
    known: &[Fingerprint],
    shown: Fingerprint,
    fresh: Option<Fingerprint>,
) -> Vec<Fingerprint> {
    let mut keys: Vec<_> = known.iter().copied().skip_while(|key| *key != shown).collect();
    let fresh = fresh.filter(|fresh| !keys.contains(fresh));
    keys.extend(fresh);
    while keys.len() > KEYS_MAX {
        keys.remove(1);
    }
    keys
}
