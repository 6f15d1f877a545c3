//! A token as the cluster keeps it: who may join with it, how often, until when.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use time::{Duration, OffsetDateTime};

use super::{TokenId, TokenVerifier};
use crate::record::{Fingerprint, NodeName, NodeRole, Rest};

/// Below a minute nobody types it in time.
pub const TOKEN_TTL_MIN: Duration = Duration::minutes(1);
/// For machines that are installed by an image; a year later the image is old.
pub const TOKEN_TTL_MAX: Duration = Duration::days(365);
/// As many machines as one token lets in.
pub const TOKEN_USES_MAX: u32 = 1000;
/// A join that fails gives its use back, and whoever has the token can fail for ever: each leaves
/// a line in the record. So many beginnings a use has.
pub const ATTEMPTS_PER_USE: u32 = 10;

/// A token, without what would let anybody join.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRecord {
    pub id: TokenId,
    pub verifier: TokenVerifier,
    /// The authority that stands in the token's text.
    pub authority: Fingerprint,
    pub role: NodeRole,
    /// The only name that may join with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<NodeName>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub taints: Vec<String>,
    #[serde(with = "time::serde::rfc3339")]
    pub created: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    pub expires: OffsetDateTime,
    /// As it was made with.
    pub uses: u32,
    pub uses_left: u32,
    pub attempts_left: u32,
    #[serde(default)]
    pub revoked: bool,
    /// What a newer version wrote and this one does not know.
    #[serde(flatten)]
    pub rest: Rest,
}

/// Whether it can be joined with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TokenState {
    Live,
    Used,
    /// All its beginnings were given up.
    WornOut,
    Expired,
    Revoked,
}

impl TokenRecord {
    /// Its state. A clock that jumped forward ends a token early and never revives one that was
    /// used or revoked.
    pub fn state_at(&self, now: OffsetDateTime) -> TokenState {
        if self.revoked {
            TokenState::Revoked
        } else if now >= self.expires {
            TokenState::Expired
        } else if self.uses_left == 0 {
            TokenState::Used
        } else if self.attempts_left == 0 {
            TokenState::WornOut
        } else {
            TokenState::Live
        }
    }

    /// The record with one use less, or why there is none.
    pub fn redeem(&self, now: OffsetDateTime) -> Result<Self, TokenState> {
        match self.state_at(now) {
            TokenState::Live => Ok(Self {
                uses_left: self.uses_left - 1,
                attempts_left: self.attempts_left - 1,
                ..self.clone()
            }),
            other => Err(other),
        }
    }

    /// The record with the use of a join that was undone. The attempt stays spent.
    pub fn give_back(&self) -> Self {
        Self { uses_left: self.uses.min(self.uses_left.saturating_add(1)), ..self.clone() }
    }

    /// The record with one beginning less and no use less.
    pub fn spend_attempt(&self) -> Self {
        Self { attempts_left: self.attempts_left.saturating_sub(1), ..self.clone() }
    }

    /// What cannot be right.
    pub fn check(&self) -> Result<(), &'static str> {
        if self.uses == 0 || self.uses > TOKEN_USES_MAX || self.uses_left > self.uses {
            return Err("its uses are out of bounds");
        }
        if self.attempts_left > self.uses * ATTEMPTS_PER_USE {
            return Err("its attempts are out of bounds");
        }
        if self.name.is_some() && self.uses > 1 {
            return Err("one name cannot join several times");
        }
        Ok(())
    }
}
