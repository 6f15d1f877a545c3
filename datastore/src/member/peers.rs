//! The table of peers: where each member is reached. Pure.
//!
//! A member alone states its own line, with a version that grows; everybody
//! passes lines on. Of two lines for a member the one of the larger version
//! holds, and a removal holds for ever. So tables that were merged in any
//! order, any number of times, are the same, and nobody has to be asked for
//! them, which matters when all members moved to another subnet.

use std::collections::BTreeMap;

use dqlite::{MemberAddress, MemberId};
use serde::{Deserialize, Serialize};

use crate::proto::peer::PeerEntry;

/// Lines that a table takes; far more than members make sense.
pub const PEERS_MAX: usize = 256;
/// How raft names a member: this and its number.
const ADDRESS_PREFIX: &str = "skiff-";

/// How raft names the member `id`; resolved by the table when connecting.
pub fn raft_address(id: MemberId) -> MemberAddress {
    MemberAddress::new(format!("{ADDRESS_PREFIX}{id}"))
}

/// Whom raft means.
pub fn member_of(address: &MemberAddress) -> Option<MemberId> {
    address.as_str().strip_prefix(ADDRESS_PREFIX)?.parse().ok().map(MemberId)
}

/// One line.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    pub version: u64,
    pub address: String,
    #[serde(default)]
    pub failure_domain: String,
    #[serde(default)]
    pub removed: bool,
    #[serde(default)]
    pub client_urls: Vec<String>,
    /// The node that it runs on, as its certificate says; empty where nobody asks.
    #[serde(default)]
    pub node: String,
}

/// The table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Peers(BTreeMap<u64, Peer>);

impl Peers {
    /// The line of a member.
    pub fn get(&self, id: MemberId) -> Option<&Peer> {
        self.0.get(&id.0)
    }

    /// Members that were not removed.
    pub fn living(&self) -> impl Iterator<Item = (MemberId, &Peer)> {
        self.0.iter().filter(|(_, peer)| !peer.removed).map(|(id, peer)| (MemberId(*id), peer))
    }

    /// Whether a member was removed for good.
    pub fn is_removed(&self, id: MemberId) -> bool {
        self.get(id).is_some_and(|peer| peer.removed)
    }

    /// States a member's own line; whether that says anything new. Only the
    /// member itself does this.
    pub fn state(&mut self, id: MemberId, stated: Peer) -> bool {
        let former = self.0.get(&id.0);
        let version = former.map_or(0, |former| former.version);
        if former.is_some_and(|former| Peer { version, ..stated.clone() } == *former) {
            return false;
        }
        self.0.insert(id.0, Peer { version: version + 1, ..stated });
        true
    }

    /// Removes a member for good.
    pub fn remove(&mut self, id: MemberId) {
        self.0.entry(id.0).or_default().removed = true;
    }

    /// Takes in what another member knows; whether that was new.
    pub fn merge(&mut self, entries: Vec<PeerEntry>) -> bool {
        let mut changed = false;
        for entry in entries {
            let (id, told) = (entry.id, Peer::from(entry));
            let has_room = self.0.len() < PEERS_MAX;
            match self.0.get_mut(&id) {
                Some(known) => {
                    let removed = known.removed || told.removed;
                    let newer = told.version > known.version;
                    changed |= newer || removed != known.removed;
                    if newer {
                        *known = told;
                    }
                    known.removed = removed;
                }
                None if id != 0 && has_room => {
                    self.0.insert(id, told);
                    changed = true;
                }
                None => {}
            }
        }
        changed
    }

    /// The table as it is told to others.
    pub fn entries(&self) -> Vec<PeerEntry> {
        let entry = |(id, peer): (&u64, &Peer)| PeerEntry {
            id: *id,
            version: peer.version,
            address: peer.address.clone(),
            failure_domain: peer.failure_domain.clone(),
            removed: peer.removed,
            client_urls: peer.client_urls.clone(),
            node: peer.node.clone(),
        };
        self.0.iter().map(entry).collect()
    }
}

impl From<PeerEntry> for Peer {
    fn from(entry: PeerEntry) -> Peer {
        Peer {
            version: entry.version,
            address: entry.address,
            failure_domain: entry.failure_domain,
            removed: entry.removed,
            client_urls: entry.client_urls,
            node: entry.node,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry(id: u64, version: u64, address: u8, removed: bool) -> PeerEntry {
        PeerEntry { id, version, address: format!("a{address}"), removed, ..Default::default() }
    }

    #[test]
    fn raft_addresses_stand_for_members() {
        assert_eq!(raft_address(MemberId(1)).as_str(), "skiff-1");
        assert_eq!(member_of(&raft_address(MemberId(u64::MAX))), Some(MemberId(u64::MAX)));
        assert_eq!(member_of(&"10.0.0.1:7443".into()), None);
    }

    #[test]
    fn a_statement_repeated_says_nothing_new() {
        let mut peers = Peers::default();
        let here = Peer { address: "a:1".into(), ..Peer::default() };
        assert!(peers.state(MemberId(1), here.clone()));
        assert!(!peers.state(MemberId(1), here));
        assert!(peers.state(MemberId(1), Peer { address: "b:1".into(), ..Peer::default() }));
        assert_eq!(peers.get(MemberId(1)).map(|peer| peer.version), Some(2));
    }

    proptest! {
        // Versions of one member with different content do not exist: a
        // member alone counts its own. So content follows from the version.
        #[test]
        fn tables_merged_in_any_order_are_the_same(
            told in prop::collection::vec((1..4u64, 1..5u64, any::<bool>()), 0..12),
            seed in any::<u64>(),
        ) {
            let entries: Vec<_> =
                told.iter().map(|(id, version, gone)| entry(*id, *version, *version as u8, *gone)).collect();
            let mut other = entries.clone();
            if !other.is_empty() {
                let middle = seed as usize % other.len();
                other.rotate_left(middle);
                other.reverse();
            }
            let (mut one, mut two) = (Peers::default(), Peers::default());
            one.merge(entries.clone());
            for entry in other {
                two.merge(vec![entry]);
            }
            prop_assert_eq!(&one, &two);
            prop_assert!(!one.merge(entries));
        }
    }
}
