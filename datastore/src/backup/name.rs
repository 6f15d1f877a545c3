//! The names of backups in a directory: they sort by time, and say enough to
//! decide which to keep without opening any.
//!
//! ```text
//! skiff-20261123T124005Z-r48213.backup        and .backup.age when encrypted
//! skiff-20261123T124005Z-r48213.archive       of a whole cluster
//! ```

use std::fmt;
use std::str::FromStr;

use time::macros::format_description;
use time::{OffsetDateTime, PrimitiveDateTime};

use crate::record::Revision;
use crate::snapshot::Summary;

/// What a file is a copy of. One kind never counts for the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A datastore.
    Datastore,
    /// A whole cluster, in the archive that Skiff makes around a datastore's backup.
    Cluster,
}

impl Kind {
    fn ending(self) -> &'static str {
        match self {
            Kind::Datastore => ".backup",
            Kind::Cluster => ".archive",
        }
    }
}

/// What a name says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BackupName {
    /// When it was begun, to the second.
    pub taken: OffsetDateTime,
    pub revision: Revision,
    pub is_sealed: bool,
    pub kind: Kind,
}

impl BackupName {
    /// The name of a datastore's backup.
    pub fn of(summary: &Summary, is_sealed: bool) -> BackupName {
        let seconds = i64::try_from(summary.taken_ms / 1000).unwrap_or(i64::MAX);
        // A clock beyond the calendar names its backups after its beginning.
        let taken =
            OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH);
        BackupName { taken, revision: summary.revision, is_sealed, kind: Kind::Datastore }
    }
}

impl fmt::Display for BackupName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let form = format_description!("[year][month][day]T[hour][minute][second]Z");
        let taken = self.taken.format(form).map_err(|_| fmt::Error)?;
        let ending = if self.is_sealed { ".age" } else { "" };
        write!(f, "skiff-{taken}-r{}{}{ending}", self.revision, self.kind.ending())
    }
}

/// A file that is none of ours, and is left alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not the name of a backup")]
pub struct NotABackup;

impl FromStr for BackupName {
    type Err = NotABackup;

    fn from_str(text: &str) -> Result<BackupName, NotABackup> {
        let parse = || {
            let rest = text.strip_prefix("skiff-")?;
            let (rest, is_sealed) = match rest.strip_suffix(".age") {
                Some(rest) => (rest, true),
                None => (rest, false),
            };
            let kinds = [Kind::Datastore, Kind::Cluster];
            let of_kind = |kind: Kind| Some((rest.strip_suffix(kind.ending())?, kind));
            let (rest, kind) = kinds.into_iter().find_map(of_kind)?;
            let (taken, revision) = rest.split_once("-r")?;
            let form = format_description!("[year][month][day]T[hour][minute][second]Z");
            let taken = PrimitiveDateTime::parse(taken, form).ok()?.assume_utc();
            let revision = Revision(revision.parse().ok().filter(|number| *number >= 0)?);
            Some(BackupName { taken, revision, is_sealed, kind })
        };
        // Only what we would write ourselves: a name is also a file to remove.
        parse().filter(|name: &BackupName| name.to_string() == text).ok_or(NotABackup)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_time_and_revision_and_nothing_else_is_a_name() {
        let summary = Summary {
            taken_ms: 1_795_437_605_999,
            revision: Revision(48213),
            ..Summary::default()
        };
        let name = BackupName::of(&summary, false);
        assert_eq!(name.to_string(), "skiff-20261123T124005Z-r48213.backup");
        assert_eq!(name.to_string().parse(), Ok(name));
        let sealed = BackupName::of(&summary, true);
        assert_eq!(sealed.to_string(), "skiff-20261123T124005Z-r48213.backup.age");
        assert_eq!(sealed.to_string().parse(), Ok(sealed));
        let archive = BackupName { kind: Kind::Cluster, ..sealed };
        assert_eq!(archive.to_string(), "skiff-20261123T124005Z-r48213.archive.age");
        assert_eq!(archive.to_string().parse(), Ok(archive));
        for other in [
            "",
            "backup",
            "skiff-20261123T124005Z-r48213.backup.old",
            "skiff-20261123T124005Z-r048213.backup",
            "skiff-20261123T124005Z-r-1.backup",
            "skiff-20261323T124005Z-r1.backup",
            "skiff-20261123T124005Z.backup",
            "../skiff-20261123T124005Z-r1.backup",
        ] {
            assert_eq!(other.parse::<BackupName>(), Err(NotABackup), "{other}");
        }
    }
}
