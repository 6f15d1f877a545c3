//! The cluster's authorities, while new ones take the place of the old ones.
//!
//! ```text
//!   position   Old      BothOld     BothNew     New
//!   believed   old      old, new    new, old    new        of neighbours, each believes
//!   signs      old      old         new         new        what the other one signs
//! ```

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};
use time::{Duration, OffsetDateTime};
use x509_parser::pem::Pem;

use super::shared::in_one_line;
use super::{Fingerprint, NodeId, Rest};

/// Certificates of an authority in one text, PEM: one has 700 bytes.
const PEM_BYTES_MAX: usize = 8 * 1024;
/// How long what has signed is believed after it has stopped: tokens of pods live an hour, and
/// clocks are five minutes apart.
pub const TOKEN_HOLD: Duration = Duration::minutes(70);
/// Longer than anybody needs to hand out new kubeconfigs.
pub const HOLD_MAX: Duration = Duration::days(30);
/// How long a former authority is kept, as removed nodes are.
pub const FORMER_KEPT: Duration = Duration::days(365);
/// So many of them.
pub const FORMER_MAX: usize = 3;
/// So many choices of a target can a record have lost: nobody turns round that often meanwhile.
const STEPS_LOST_MAX: u64 = 1000;

/// Counts targets, those of former rotations too. 0 is before the first.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct RotationStep(pub u64);

impl fmt::Display for RotationStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl RotationStep {
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

/// Where nodes are or go to, see the module's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Position {
    Old,
    BothOld,
    BothNew,
    New,
}

/// One of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    Old,
    New,
}

/// To which end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Way {
    On,
    Back,
}

/// What others need to know of a cluster's authorities; the keys never stand in the record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuthorityCertificates {
    /// PEM, one each.
    pub cluster: String,
    pub front_proxy: String,
    /// The cluster's, signed by the other side's: for whoever believes only that one. Of the old one
    /// it is empty until the way back needs it: with it, whoever has the old key passes for a server
    /// in the eyes of those that believe only the new one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub crossed: String,
    /// The public half of what signs service accounts' tokens.
    pub service_account: String,
}

/// New authorities for the old ones.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rotation {
    /// Where all nodes go.
    pub target: Position,
    pub way: Way,
    pub old: AuthorityCertificates,
    pub new: AuthorityCertificates,
    /// Of this target.
    #[serde(with = "time::serde::rfc3339")]
    pub since: OffsetDateTime,
    /// When all nodes were there, if what has signed is held then.
    #[serde(default, with = "time::serde::rfc3339::option")]
    pub complete: Option<OffsetDateTime>,
    /// How long the old one is believed after that, in seconds.
    pub hold_s: u32,
    /// Somebody has said that it is not held any longer at this target.
    #[serde(default)]
    pub finished: bool,
    /// Who is not waited for.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub without: BTreeSet<NodeId>,
    /// Nothing is kept of what is dropped: nobody comes back by it.
    #[serde(default)]
    pub distrust: bool,
}

/// What was dropped, for those who know nothing else: nodes that were off, and pods.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FormerAuthority {
    /// PEM.
    pub cluster: String,
    /// The one that took its place, signed by it.
    pub crossed: String,
    #[serde(with = "time::serde::rfc3339")]
    pub until: OffsetDateTime,
}

/// The part of the settings that is about this.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RotationRecord {
    /// Of the last target that was chosen.
    #[serde(default)]
    pub step: RotationStep,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current: Option<Box<Rotation>>,
    /// The latest last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub former: Vec<FormerAuthority>,
    /// What a newer version wrote and this one does not know.
    #[serde(flatten)]
    pub rest: Rest,
}

/// Where a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReachedStep {
    pub step: RotationStep,
    pub at: Position,
}

/// What a node says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DoneSteps {
    /// The last one that it has done.
    #[serde(default)]
    pub step: RotationStep,
    /// The later one that it could not do, and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<FailedStep>,
}

/// See [`DoneSteps`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedStep {
    pub step: RotationStep,
    pub reason: String,
}

impl DoneSteps {
    /// As it may be kept: anybody's text is cut, and is one line.
    #[must_use]
    pub fn cleaned(&self) -> Self {
        let failed = self
            .failed
            .as_ref()
            .map(|failed| FailedStep { step: failed.step, reason: in_one_line(&failed.reason) });
        Self { step: self.step, failed }
    }

    /// Why that step was not done, if it was tried.
    pub fn failure(&self, step: RotationStep) -> Option<&str> {
        let failed = self.failed.as_ref().filter(|failed| failed.step == step)?;
        Some(failed.reason.as_str())
    }
}

impl Position {
    pub const ALL: [Self; 4] = [Self::Old, Self::BothOld, Self::BothNew, Self::New];

    /// The next one; none at the end of the way.
    pub fn next(self, way: Way) -> Option<Self> {
        let forth = match self {
            Self::Old => Some(Self::BothOld),
            Self::BothOld => Some(Self::BothNew),
            Self::BothNew => Some(Self::New),
            Self::New => None,
        };
        let back = match self {
            Self::Old => None,
            Self::BothOld => Some(Self::Old),
            Self::BothNew => Some(Self::BothOld),
            Self::New => Some(Self::BothNew),
        };
        match way {
            Way::On => forth,
            Way::Back => back,
        }
    }

    /// What leaves and tokens are signed with.
    pub fn signs(self) -> Side {
        match self {
            Self::Old | Self::BothOld => Side::Old,
            Self::BothNew | Self::New => Side::New,
        }
    }

    /// What is believed, the one that signs first.
    pub fn believes(self) -> &'static [Side] {
        match self {
            Self::Old => &[Side::Old],
            Self::BothOld => &[Side::Old, Side::New],
            Self::BothNew => &[Side::New, Side::Old],
            Self::New => &[Side::New],
        }
    }
}

impl Way {
    #[must_use]
    pub fn reversed(self) -> Self {
        match self {
            Self::On => Self::Back,
            Self::Back => Self::On,
        }
    }
}

impl AuthorityCertificates {
    /// Of the certificate by which tokens and settings name it.
    pub fn fingerprint(&self) -> Option<Fingerprint> {
        fingerprint(&self.cluster)
    }

    /// What cannot be right.
    pub fn check(&self) -> Result<(), &'static str> {
        let texts = [&self.cluster, &self.front_proxy, &self.crossed, &self.service_account];
        if texts.iter().any(|text| text.len() > PEM_BYTES_MAX) {
            return Err("one of its texts is too long");
        }
        let is_one = |text: &String| fingerprint(text).is_some();
        let crossed = self.crossed.is_empty() || is_one(&self.crossed);
        if !(is_one(&self.cluster) && is_one(&self.front_proxy) && crossed) {
            return Err("one of its texts is not one certificate");
        }
        if self.service_account.is_empty() {
            return Err("it has no key of service accounts");
        }
        Ok(())
    }
}

fn fingerprint(pem: &str) -> Option<Fingerprint> {
    let mut blocks = Pem::iter_from_buffer(pem.as_bytes());
    let block = blocks.next()?.ok().filter(|block| block.label == "CERTIFICATE")?;
    block.parse_x509().ok()?;
    blocks.next().is_none().then(|| Fingerprint::of(&block.contents))
}

impl Rotation {
    pub fn side(&self, side: Side) -> &AuthorityCertificates {
        match side {
            Side::Old => &self.old,
            Side::New => &self.new,
        }
    }

    /// What the cluster's settings name while this is the target.
    pub fn authorities(&self) -> Vec<Fingerprint> {
        let sides = self.target.believes().iter();
        sides.filter_map(|side| self.side(*side).fingerprint()).collect()
    }

    /// How long the cluster stays when all are there. What has signed until then is not dropped at
    /// once; and a way back that never came to where the new one signs has nothing to wait for.
    pub fn hold(&self) -> Option<Duration> {
        match (self.target, self.way) {
            _ if self.finished => None,
            (Position::BothNew, Way::On) => Some(Duration::seconds(self.hold_s.into())),
            (Position::BothOld, Way::Back) => Some(TOKEN_HOLD),
            _ => None,
        }
    }
}

impl RotationRecord {
    /// This in a record that may be out of date, with one control-plane node left. Whoever was waited
    /// for is one position from that node at most.
    #[must_use]
    pub(super) fn resumed(&self, own: ReachedStep, now: OffsetDateTime) -> Self {
        let Some(current) = self.current.as_deref() else { return self.clone() };
        let current = Rotation {
            target: own.at,
            since: now,
            complete: None,
            finished: false,
            ..current.clone()
        };
        let step = self.step.max(own.step).0.saturating_add(STEPS_LOST_MAX);
        Self { step: RotationStep(step), current: Some(Box::new(current)), ..self.clone() }
    }

    /// What is kept of former authorities at this moment.
    pub fn former_at(&self, now: OffsetDateTime) -> impl Iterator<Item = &FormerAuthority> {
        self.former.iter().filter(move |former| now < former.until)
    }

    /// Whether there has never been one.
    pub fn is_untouched(&self) -> bool {
        *self == Self::default()
    }

    /// What a node has to do that has done `own`: steps below its own are of answers that came late.
    pub fn work(&self, own: RotationStep) -> Option<&Rotation> {
        self.current.as_deref().filter(|_| own < self.step)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_believe_what_the_other_one_signs_and_nobody_else_is_near() {
        for (n, one) in Position::ALL.into_iter().enumerate() {
            assert_eq!(one.believes()[0], one.signs(), "what signs stands first");
            for (m, other) in Position::ALL.into_iter().enumerate() {
                let believed = one.believes().contains(&other.signs())
                    && other.believes().contains(&one.signs());
                assert_eq!(believed, n.abs_diff(m) <= 1, "{one:?} and {other:?}");
            }
        }
    }

    #[test]
    fn every_step_can_be_taken_back() {
        for one in Position::ALL {
            for way in [Way::On, Way::Back] {
                if let Some(next) = one.next(way) {
                    assert_eq!(next.next(way.reversed()), Some(one));
                }
            }
        }
        assert_eq!((Position::New.next(Way::On), Position::Old.next(Way::Back)), (None, None));
    }
}
