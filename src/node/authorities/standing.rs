//! How far this node is with new authorities, kept beside its keys in `pki/authorities.json`.
//!
//! ```text
//!   at BothOld ─ doing BothNew ─> files of both ─> leaves ─> files of BothNew ─> at BothNew, step done
//!                     │ it does not become ready
//!                     └─> files of BothOld, with the reason
//! ```
//!
//! It is written before the files that it speaks of, so whoever dies in between does the rest.

use std::path::{Path, PathBuf};
use std::{fs, io};

use microcluster::record::{
    AuthorityCertificates, DoneSteps, FailedStep, Fingerprint, FormerAuthority, Position,
    ReachedStep, RotationStep, Side,
};
use serde::{Deserialize, Serialize};

use crate::pki::{StoreError, write_private};

pub const FILE: &str = "authorities.json";

/// See the module's words.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// The last one that is done, of whatever rotation.
    #[serde(default)]
    pub step: RotationStep,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<FailedStep>,
    /// While one takes the place of the other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub two: Option<Box<TwoSides>>,
    /// What was dropped before.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub former: Vec<FormerAuthority>,
}

/// Old and new, and where this node is between them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TwoSides {
    pub old: AuthorityCertificates,
    pub new: AuthorityCertificates,
    pub at: Position,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub doing: Option<Position>,
}

/// What the files of a node say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct View {
    pub signs: Side,
    /// Also the other one.
    pub both: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum StandingError {
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{} is damaged: restore it from a backup", path.display())]
    Damaged { path: PathBuf, source: serde_json::Error },
    #[error(transparent)]
    Write(#[from] StoreError),
}

impl Standing {
    /// Of the node whose keys are below `pki`; that of one that has never heard of a rotation where
    /// there is no file.
    pub fn read(pki: &Path) -> Result<Self, StandingError> {
        let path = pki.join(FILE);
        match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map_err(|source| StandingError::Damaged { path, source }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(source) => Err(StandingError::Read { path, source }),
        }
    }

    pub fn write(&self, pki: &Path) -> Result<(), StandingError> {
        let text = serde_json::to_vec_pretty(self).expect("texts and numbers can be written");
        Ok(write_private(&pki.join(FILE), &text, 0o600, (0, 0))?)
    }

    /// As the cluster is told.
    pub fn said(&self) -> DoneSteps {
        DoneSteps { step: self.step, failed: self.failed.clone() }.cleaned()
    }

    /// Where it is, when it is between two.
    pub fn reached(&self) -> Option<ReachedStep> {
        self.two.as_ref().map(|two| ReachedStep { step: self.step, at: two.at })
    }
}

impl TwoSides {
    pub fn side(&self, side: Side) -> &AuthorityCertificates {
        match side {
            Side::Old => &self.old,
            Side::New => &self.new,
        }
    }

    /// What the files say while this is so. On the way from one position to the next, nobody is
    /// believed less than at either of them.
    pub fn view(&self) -> View {
        let at = View::of(self.at);
        match self.doing.map(View::of) {
            None => at,
            Some(to) => View { signs: to.signs, both: to.both || at.both || to.signs != at.signs },
        }
    }

    /// Which of the two an authority is.
    pub fn side_of(&self, authority: &Fingerprint) -> Option<Side> {
        let is_it = |side: &Side| self.side(*side).fingerprint().as_ref() == Some(authority);
        [Side::Old, Side::New].into_iter().find(is_it)
    }

    /// Texts of what is believed, one after the other, the one that signs first.
    pub fn believed(&self, view: View, text: fn(&AuthorityCertificates) -> &str) -> String {
        let first = text(self.side(view.signs));
        let other = match view.signs {
            Side::Old => Side::New,
            Side::New => Side::Old,
        };
        let other = if view.both { text(self.side(other)) } else { "" };
        format!("{first}{other}")
    }
}

impl View {
    /// At a position.
    pub fn of(position: Position) -> Self {
        Self { signs: position.signs(), both: position.believes().len() > 1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two(at: Position, doing: Option<Position>) -> TwoSides {
        let side = |name: &str| AuthorityCertificates {
            cluster: format!("{name} "),
            front_proxy: String::new(),
            crossed: String::new(),
            service_account: String::new(),
        };
        TwoSides { old: side("old"), new: side("new"), at, doing }
    }

    #[test]
    fn on_the_way_nobody_is_believed_less_than_at_either_end() {
        use Position::{BothNew, BothOld, New, Old};
        for (at, doing, believed) in [
            (Old, None, "old "),
            (Old, Some(BothOld), "old new "),
            (BothOld, None, "old new "),
            (BothOld, Some(BothNew), "new old "),
            (BothNew, Some(New), "new old "),
            (New, None, "new "),
            (New, Some(BothNew), "new old "),
            (BothOld, Some(Old), "old new "),
            (Old, Some(New), "new old "),
        ] {
            let two = two(at, doing);
            assert_eq!(
                two.believed(two.view(), |side| &side.cluster),
                believed,
                "{at:?} {doing:?}"
            );
        }
    }

    #[test]
    fn what_was_written_reads_back_and_damage_is_told() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Standing::read(dir.path()).unwrap(), Standing::default());
        let two = Some(Box::new(two(Position::Old, Some(Position::BothOld))));
        let standing = Standing { step: RotationStep(3), two, ..Standing::default() };
        standing.write(dir.path()).unwrap();
        assert_eq!(Standing::read(dir.path()).unwrap(), standing);
        fs::write(dir.path().join(FILE), "{").unwrap();
        assert!(Standing::read(dir.path()).unwrap_err().to_string().contains("is damaged"));
    }
}
