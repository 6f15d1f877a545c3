//! Bugs that are planted to prove that the simulation finds them. Each stands for a mistake that is
//! easily made in the code that it changes from outside; production has no switch for any.

use microcluster::record::{ClusterRecord, MemberState, NodeRole};
use microcluster::store::Change;

/// Which bug a history has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plant {
    /// A join does not count its use.
    UseUncounted,
    /// A join that is forgotten gives no use back.
    UseKept,
    /// A join that is forgotten gives all uses back.
    UsesRestored,
    /// Who is undone or removed stays.
    RemovedStays,
    /// Nothing is remembered of who was removed.
    RemovedForgotten,
    /// A change is made whatever it expected.
    BlindWrites,
    /// A change whose outcome is not known counts as made.
    UnknownAsDone,
    /// Reads may be of a leader that was replaced.
    StaleReads,
    /// Half of a change is made.
    HalfWritten,
    /// A renewal keeps the new key only.
    ShownKeyDropped,
    /// A renewal keeps every key.
    FormerKeysKept,
    /// The authorities' keys are kept for workers to fetch, too.
    KeysForWorkers,
    /// A certificate comes out of a cache that looks at its purpose only.
    LeafOfAnother,
    /// Certificates are handed out that were not noted.
    LeafUnnoted,
    /// Joins that nobody finished are not forgotten.
    KeeperSleeps,
    /// The joiner says that it is done before that is on its disk.
    ConfirmedBeforeWritten,
    /// A node throws its key away before the new one is certified.
    KeyReplacedEarly,
    /// A joiner that asks again does so with another key.
    KeyPerTry,
    /// A node adds to its list who is new and takes nobody away.
    ListsGrow,
    /// A join that is taken back is not told to the cluster.
    UndoneUntold,
    /// A node whose new address is another's gets no certificate either.
    RenewedAllOrNothing,
    /// A leave that was cut off is not ended by skiffd.
    LeaveNotEnded,
}

impl Plant {
    /// All of them, by their names.
    pub const ALL: [(&'static str, Plant); 22] = [
        ("use-uncounted", Plant::UseUncounted),
        ("use-kept", Plant::UseKept),
        ("uses-restored", Plant::UsesRestored),
        ("removed-stays", Plant::RemovedStays),
        ("removed-forgotten", Plant::RemovedForgotten),
        ("blind-writes", Plant::BlindWrites),
        ("unknown-as-done", Plant::UnknownAsDone),
        ("stale-reads", Plant::StaleReads),
        ("half-written", Plant::HalfWritten),
        ("shown-key-dropped", Plant::ShownKeyDropped),
        ("former-keys-kept", Plant::FormerKeysKept),
        ("keys-for-workers", Plant::KeysForWorkers),
        ("leaf-of-another", Plant::LeafOfAnother),
        ("leaf-unnoted", Plant::LeafUnnoted),
        ("keeper-sleeps", Plant::KeeperSleeps),
        ("confirmed-before-written", Plant::ConfirmedBeforeWritten),
        ("key-replaced-early", Plant::KeyReplacedEarly),
        ("key-per-try", Plant::KeyPerTry),
        ("lists-grow", Plant::ListsGrow),
        ("undone-untold", Plant::UndoneUntold),
        ("renewed-all-or-nothing", Plant::RenewedAllOrNothing),
        ("leave-not-ended", Plant::LeaveNotEnded),
    ];

    /// The bug of that name.
    pub fn named(name: &str) -> Option<Plant> {
        Plant::ALL.iter().find(|(known, _)| *known == name).map(|(_, plant)| *plant)
    }

    /// Changes what a desk is about to apply.
    pub fn twist(self, changes: &mut Vec<Change>, record: Option<&ClusterRecord>) {
        let leaves = changes.iter().any(|change| matches!(change, Change::DeleteMember { .. }));
        let enters = |change: &Change| matches!(change, Change::PutMember { was: None, .. });
        let enters = changes.iter().any(enters);
        let of_token = |change: &Change| matches!(change, Change::PutToken { .. });
        match self {
            Plant::UseUncounted if enters => changes.retain(|change| !of_token(change)),
            Plant::UseKept if leaves => changes.retain(|change| !of_token(change)),
            Plant::UsesRestored if leaves => {
                for change in changes {
                    if let Change::PutToken { token, .. } = change {
                        token.uses_left = token.uses;
                    }
                }
            }
            Plant::RemovedStays => {
                changes.retain(|change| !matches!(change, Change::DeleteMember { .. }));
            }
            Plant::RemovedForgotten => {
                changes.retain(|change| !matches!(change, Change::PutRemoved { .. }));
            }
            Plant::HalfWritten if leaves => changes.truncate(1),
            Plant::ShownKeyDropped | Plant::FormerKeysKept | Plant::KeysForWorkers => {
                self.twist_members(changes, record);
            }
            Plant::LeafUnnoted => {
                for change in changes {
                    if let Change::PutMember { member, .. } = change {
                        member.certificates.clear();
                    }
                }
            }
            _ => {}
        }
    }

    fn twist_members(self, changes: &mut [Change], record: Option<&ClusterRecord>) {
        for change in changes {
            let Change::PutMember { member, was } = change else { continue };
            match self {
                Plant::ShownKeyDropped => drop(member.keys.drain(..member.keys.len() - 1)),
                Plant::FormerKeysKept if was.is_some() => {
                    let before = record.and_then(|record| record.members.get(&member.name));
                    let before = before.map(|before| before.value.keys.clone());
                    for key in before.unwrap_or_default() {
                        if !member.keys.contains(&key) {
                            member.keys.push(key);
                        }
                    }
                }
                Plant::KeysForWorkers if member.role == NodeRole::Worker => {
                    if let MemberState::Joining { recipient, .. } = &mut member.state {
                        *recipient = Some("age1somebody".into());
                    }
                }
                _ => {}
            }
        }
    }
}
