//! Which backups to keep. Pure: names in, names out.

use std::collections::BTreeSet;

use super::name::BackupName;

/// How many to keep, by kind. A backup that any kind wants stays. With
/// nothing set everything stays, for ever.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Keep {
    /// The newest.
    pub last: u32,
    /// The newest of each hour that has one, for so many hours.
    pub hourly: u32,
    pub daily: u32,
    pub weekly: u32,
    pub monthly: u32,
}

impl Keep {
    /// Whether everything stays.
    pub fn is_everything(&self) -> bool {
        *self == Keep::default()
    }
}

/// The backups to remove, oldest first. The newest is never among them.
///
/// Periods are counted when they have a backup: `daily: 7` keeps seven days
/// also after a month in which nothing could be backed up. Removing step by
/// step, with every new backup, ends with the same files as removing once.
pub fn choose_removed(backups: &[BackupName], keep: &Keep) -> Vec<BackupName> {
    if keep.is_everything() {
        return Vec::new();
    }
    let mut newest_first: Vec<_> = backups.to_vec();
    newest_first.sort_unstable();
    newest_first.dedup();
    newest_first.reverse();
    let mut kept: BTreeSet<BackupName> =
        newest_first.iter().take(keep.last.max(1) as usize).copied().collect();
    kept.extend(newest_of_each(&newest_first, keep.hourly, |name| {
        (name.taken.date(), name.taken.hour())
    }));
    kept.extend(newest_of_each(&newest_first, keep.daily, |name| name.taken.date()));
    kept.extend(newest_of_each(&newest_first, keep.weekly, |name| {
        let (year, week, _) = name.taken.to_iso_week_date();
        (year, week)
    }));
    kept.extend(newest_of_each(&newest_first, keep.monthly, |name| {
        (name.taken.year(), name.taken.month() as u8)
    }));
    newest_first.retain(|name| !kept.contains(name));
    newest_first.reverse();
    newest_first
}

/// The first of each period in a list that is sorted, for so many periods.
fn newest_of_each<P: PartialEq>(
    newest_first: &[BackupName],
    periods_max: u32,
    period: impl Fn(&BackupName) -> P,
) -> Vec<BackupName> {
    let mut found: Vec<BackupName> = Vec::new();
    for name in newest_first {
        if found.len() == periods_max as usize {
            break;
        }
        if found.last().is_none_or(|last| period(last) != period(name)) {
            found.push(*name);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::name::Kind;
    use super::*;
    use crate::record::Revision;

    fn name(minutes: i64) -> BackupName {
        // A Monday, at midnight.
        let taken =
            time::macros::datetime!(2026-11-23 00:00 UTC) + time::Duration::minutes(minutes);
        BackupName { taken, revision: Revision(minutes), is_sealed: false, kind: Kind::Datastore }
    }

    fn kept(backups: &[BackupName], keep: &Keep) -> Vec<i64> {
        let removed = choose_removed(backups, keep);
        let kept = backups.iter().filter(|name| !removed.contains(name));
        kept.map(|name| name.revision.0).collect()
    }

    #[test]
    fn the_newest_of_each_period_stays() {
        const HOUR: i64 = 60;
        const DAY: i64 = 24 * HOUR;
        let backups: Vec<_> = (0..40 * 24 * 2).map(|half| name(half * 30)).collect();
        let end = 40 * DAY - 30;
        let keep =
            |last, hourly, daily, weekly, monthly| Keep { last, hourly, daily, weekly, monthly };
        assert_eq!(kept(&backups, &keep(2, 0, 0, 0, 0)), [end - 30, end]);
        assert_eq!(kept(&backups, &keep(0, 2, 0, 0, 0)), [end - HOUR, end]);
        assert_eq!(kept(&backups, &keep(0, 0, 2, 0, 0)), [end - DAY, end]);
        // The fortieth day is a Friday; the week before ended on a Sunday.
        assert_eq!(kept(&backups, &keep(0, 0, 0, 2, 0)), [35 * DAY - 30, end]);
        // The year ended on the thirty-ninth day.
        assert_eq!(kept(&backups, &keep(0, 0, 0, 0, 3)), [8 * DAY - 30, 39 * DAY - 30, end]);
        assert_eq!(kept(&backups, &keep(1, 0, 2, 0, 0)), [end - DAY, end]);
        assert_eq!(kept(&backups, &Keep::default()).len(), backups.len());
        assert!(choose_removed(&[], &keep(1, 1, 1, 1, 1)).is_empty());
    }

    fn any_keep() -> impl Strategy<Value = Keep> {
        (0u32..5, 0u32..5, 0u32..5, 0u32..5, 0u32..5).prop_map(
            |(last, hourly, daily, weekly, monthly)| Keep { last, hourly, daily, weekly, monthly },
        )
    }

    fn any_backups() -> impl Strategy<Value = Vec<BackupName>> {
        let minutes = proptest::collection::btree_set(0i64..100 * 24 * 60, 0..60);
        minutes.prop_map(|minutes| minutes.into_iter().map(name).collect())
    }

    proptest! {
        #[test]
        fn the_newest_stays_and_repeating_removes_no_more(backups in any_backups(), keep in any_keep()) {
            let removed = choose_removed(&backups, &keep);
            let left: Vec<_> = backups.iter().copied().filter(|name| !removed.contains(name)).collect();
            prop_assert_eq!(left.last(), backups.last());
            prop_assert!(choose_removed(&left, &keep).is_empty());
            prop_assert!(left.len() >= backups.len().min(keep.last as usize));
            if !keep.is_everything() {
                let most = keep.last.max(1) + keep.hourly + keep.daily + keep.weekly + keep.monthly;
                prop_assert!(left.len() <= most as usize);
            }
            let mut shuffled = backups.clone();
            shuffled.reverse();
            prop_assert_eq!(choose_removed(&shuffled, &keep), removed);
        }

        #[test]
        fn removing_with_every_backup_ends_like_removing_once(backups in any_backups(), keep in any_keep()) {
            let mut left: Vec<BackupName> = Vec::new();
            for backup in &backups {
                left.push(*backup);
                let removed = choose_removed(&left, &keep);
                left.retain(|name| !removed.contains(name));
            }
            let removed = choose_removed(&backups, &keep);
            let once: Vec<_> = backups.into_iter().filter(|name| !removed.contains(name)).collect();
            prop_assert_eq!(left, once);
        }

        #[test]
        fn wanting_more_keeps_what_wanting_less_keeps(
            backups in any_backups(), less in any_keep(), more in any_keep(),
        ) {
            prop_assume!(!less.is_everything());
            let sum = Keep {
                last: less.last + more.last,
                hourly: less.hourly + more.hourly,
                daily: less.daily + more.daily,
                weekly: less.weekly + more.weekly,
                monthly: less.monthly + more.monthly,
            };
            let removed = choose_removed(&backups, &less);
            for name in choose_removed(&backups, &sum) {
                prop_assert!(removed.contains(&name));
            }
        }
    }
}
