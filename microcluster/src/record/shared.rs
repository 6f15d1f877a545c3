//! Settings that hold on every node of a cluster, kept in one place and counted.
//!
//! What each is and whether a value can be is known to whoever asks for a change; here is who has
//! which, and whose turn it is to take them up.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use time::{Duration, OffsetDateTime};

use super::{NodeId, Rest};

/// All values together, as JSON: every answer to every node carries them.
pub const SHARED_BYTES_MAX: usize = 32 * 1024;
/// What a node says of a failure; the rest is in its log.
pub const REASON_CHARACTERS_MAX: usize = 400;
/// A control-plane node that has not said by then that it is done lets the next one go on. Three
/// minutes are a slow machine's API server twice: once anew, once as it was.
pub const TURN_TIME_MAX: Duration = Duration::minutes(5);

/// Counts changes of the shared settings. 0 is before the first.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct SettingsRevision(pub u64);

impl fmt::Display for SettingsRevision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl SettingsRevision {
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.wrapping_add(1))
    }
}

/// See the module's words.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharedSettings {
    #[serde(default)]
    pub revision: SettingsRevision,
    /// By their dotted names.
    #[serde(default)]
    pub values: BTreeMap<String, Value>,
    /// Who restarts its control plane for them at this moment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub turn: Option<Turn>,
    /// What a newer version wrote and this one does not know.
    #[serde(flatten)]
    pub rest: Rest,
}

/// One control-plane node at a time takes up what restarts its API server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Turn {
    pub node: NodeId,
    #[serde(with = "time::serde::rfc3339")]
    pub until: OffsetDateTime,
}

/// What is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SettingsChange {
    pub set: BTreeMap<String, Value>,
    pub unset: BTreeSet<String>,
    /// Only if nobody has changed them since.
    pub expected: Option<SettingsRevision>,
}

/// What a node says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppliedSettings {
    /// What it runs with.
    #[serde(default)]
    pub revision: SettingsRevision,
    /// The later one that it could not take up, and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<FailedSettings>,
}

/// See [`AppliedSettings`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedSettings {
    pub revision: SettingsRevision,
    pub reason: String,
}

impl SharedSettings {
    /// Whether nobody has ever set one.
    pub fn is_untouched(&self) -> bool {
        *self == Self::default()
    }

    /// These with a change, counted when they become others.
    #[must_use]
    pub fn changed(&self, change: &SettingsChange) -> Self {
        let mut values = self.values.clone();
        values.retain(|key, _| !change.unset.contains(key));
        values.extend(change.set.clone());
        if values == self.values {
            return self.clone();
        }
        Self { revision: self.revision.next(), values, ..self.clone() }
    }

    /// What they take in every answer.
    pub fn bytes(&self) -> usize {
        serde_json::to_vec(&self.values).map_or(usize::MAX, |text| text.len())
    }
}

impl AppliedSettings {
    /// As it may be kept: anybody's text is cut, and is one line.
    #[must_use]
    pub fn cleaned(&self) -> Self {
        let failed = self.failed.as_ref().map(|failed| FailedSettings {
            revision: failed.revision,
            reason: in_one_line(&failed.reason),
        });
        Self { revision: self.revision, failed }
    }

    /// Whether a node that says so has no more to do about that revision.
    pub fn has_dealt_with(&self, revision: SettingsRevision) -> bool {
        self.revision == revision
            || self.failed.as_ref().is_some_and(|failed| failed.revision == revision)
    }

    /// Why that revision was not taken up, if it was tried.
    pub fn failure(&self, revision: SettingsRevision) -> Option<&str> {
        let failed = self.failed.as_ref().filter(|failed| failed.revision == revision)?;
        Some(failed.reason.as_str())
    }
}

/// What somebody said of a failure, cut.
pub(super) fn in_one_line(text: &str) -> String {
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let cut = words.chars().filter(|c| !c.is_control()).take(REASON_CHARACTERS_MAX);
    cut.collect::<String>().trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(set: &[(&str, i64)], unset: &[&str]) -> SettingsChange {
        SettingsChange {
            set: set.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect(),
            unset: unset.iter().map(|key| (*key).to_owned()).collect(),
            expected: None,
        }
    }

    #[test]
    fn a_change_is_counted_when_it_changes_something() {
        let none = SharedSettings::default();
        assert_eq!(none.changed(&change(&[], &["a"])), none);
        let one = none.changed(&change(&[("a", 1), ("b", 1)], &[]));
        assert_eq!((one.revision.0, one.values.len()), (1, 2));
        assert_eq!(one.changed(&change(&[("a", 1)], &[])), one);
        let two = one.changed(&change(&[("b", 2)], &["a", "c"]));
        assert_eq!(two.revision.0, 2);
        assert_eq!(two.values, change(&[("b", 2)], &[]).set);
    }

    #[test]
    fn what_a_node_says_of_a_failure_is_one_line_and_not_long() {
        let reason = format!("no\u{1b}[31m\n\tgood {}", "x".repeat(2 * REASON_CHARACTERS_MAX));
        let cut = "x".repeat(REASON_CHARACTERS_MAX - 1) + " y";
        let failed = Some(FailedSettings { revision: SettingsRevision(1), reason: cut });
        let cut = AppliedSettings { revision: SettingsRevision(0), failed }.cleaned();
        assert_eq!(cut.cleaned(), cut, "what was kept is what was said");
        let failed = Some(FailedSettings { revision: SettingsRevision(2), reason });
        let said = AppliedSettings { revision: SettingsRevision(1), failed }.cleaned();
        let reason = said.failure(SettingsRevision(2)).unwrap();
        assert!(reason.starts_with("no[31m good xxx"), "{reason}");
        assert_eq!(reason.chars().count(), REASON_CHARACTERS_MAX);
        assert!(
            said.has_dealt_with(SettingsRevision(1)) && said.has_dealt_with(SettingsRevision(2))
        );
        assert!(!said.has_dealt_with(SettingsRevision(3)));
    }

    #[test]
    fn a_record_without_them_reads_as_one_that_nobody_has_set() {
        let read: SharedSettings = serde_json::from_str("{}").unwrap();
        assert!(read.is_untouched());
        let newer = r#"{"revision":3,"values":{},"colour":"blue"}"#;
        let read: SharedSettings = serde_json::from_str(newer).unwrap();
        assert!(!read.is_untouched());
        assert!(serde_json::to_string(&read).unwrap().contains("blue"), "it is kept");
    }
}
