//! What was decided.

use time::OffsetDateTime;

use crate::message::LeaveStep;
use crate::record::{NodeId, NodeName, RotationStep, SettingsRevision};
use crate::store::Change;
use crate::token::TokenId;
use crate::trust::{IssuedLeaf, LeafOrder};

/// Changes that are made together or not at all; certificates that are signed before and handed
/// out after; and what is then answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    pub changes: Vec<Change>,
    pub orders: Vec<LeafOrder>,
    pub outcome: Outcome,
}

/// What will have happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Founded,
    Asked,
    Entered {
        name: NodeName,
        until: OffsetDateTime,
        /// To whom the authorities' keys are sealed.
        recipient: Option<String>,
    },
    Confirmed,
    Undone,
    Renewed,
    Members,
    Leaving(LeaveStep),
    Removed {
        name: NodeName,
        id: NodeId,
        /// It had the authorities' keys: they should be replaced.
        held_keys: bool,
    },
    /// How many lines the keeper took away, and whether there are more.
    Expired {
        count: usize,
        has_more: bool,
    },
    SettingsChanged,
    /// Which shared settings hold from now on.
    SettingsSet(SettingsRevision),
    Turn(TurnAnswer),
    /// Which step of replacing the authorities holds from now on.
    Rotation(RotationStep),
    /// The authorities' keys are sealed to this recipient.
    Keys {
        recipient: String,
    },
    /// The cluster goes on from one survivor.
    Recovered,
    TokenAdded(TokenId),
    TokenRevoked(TokenId),
}

/// Whether a control-plane node may restart its API server for new settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TurnAnswer {
    Granted,
    /// Another one does at this moment.
    Wait(NodeName),
    /// Another one could not take them up: two would be too many.
    Stopped {
        name: NodeName,
        reason: String,
    },
    /// There are newer ones.
    Outdated,
}

impl Decision {
    /// One that changes nothing.
    pub fn of(outcome: Outcome) -> Self {
        Self { changes: vec![], orders: vec![], outcome }
    }

    /// One that changes something.
    pub fn changing(changes: Vec<Change>, outcome: Outcome) -> Self {
        Self { changes, orders: vec![], outcome }
    }

    /// Writes what was signed into the member that is about to be put. A certificate is handed
    /// out only when its member was put, so none exists that the record does not know, and none
    /// is given to a node that was removed in between.
    pub fn note_issued(&mut self, issued: &[IssuedLeaf]) {
        for change in &mut self.changes {
            if let Change::PutMember { member, .. } = change {
                for leaf in issued {
                    member.note(leaf.certificate());
                }
            }
        }
    }

    /// Whether every certificate has a member that is put with it.
    pub fn is_guarded(&self) -> bool {
        let puts = |change: &Change| matches!(change, Change::PutMember { .. });
        self.orders.is_empty() || self.changes.iter().filter(|change| puts(change)).count() == 1
    }
}
