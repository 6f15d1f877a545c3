//! When the next backup is due. Pure: the caller says what time it is.

use std::time::Duration;

use time::OffsetDateTime;

/// The first wait after a failure; it doubles with each.
const RETRY_FIRST: Duration = Duration::from_secs(10);
/// The longest wait between two attempts.
const RETRY_MAX: Duration = Duration::from_secs(600);

/// How long to wait. Due is what lies a period behind the newest good backup,
/// whoever took it: a restart neither skips one nor takes one too many, and
/// one that was missed while the machine slept is taken at once. After a
/// failure it is tried again sooner than a period, and never given up.
pub fn choose_wait(
    now: OffsetDateTime,
    newest: Option<OffsetDateTime>,
    every: Duration,
    failures: u32,
) -> Duration {
    if failures > 0 {
        let doubled = RETRY_FIRST.saturating_mul(1 << (failures - 1).min(16));
        return doubled.min(RETRY_MAX).min(every);
    }
    let Some(newest) = newest else { return Duration::ZERO };
    // One that is dated in the future was taken by a wrong clock. It counts as
    // taken now: else one backup would follow the other without a pause.
    let age = Duration::try_from(now - newest).unwrap_or(Duration::ZERO);
    every.saturating_sub(age)
}

/// Whether the newest good backup is so old that somebody must look.
pub fn is_overdue(now: OffsetDateTime, newest: Option<OffsetDateTime>, every: Duration) -> bool {
    newest.is_some_and(|newest| now - newest > every.saturating_mul(2))
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::macros::datetime;

    const NOW: OffsetDateTime = datetime!(2026-11-23 12:00 UTC);
    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn a_backup_is_due_a_period_after_the_newest_and_at_once_when_that_is_over() {
        let wait = |newest| choose_wait(NOW, newest, HOUR, 0);
        assert_eq!(wait(None), Duration::ZERO);
        assert_eq!(wait(Some(NOW)), HOUR);
        assert_eq!(wait(Some(NOW - Duration::from_secs(3000))), Duration::from_secs(600));
        assert_eq!(wait(Some(NOW - 5 * HOUR)), Duration::ZERO);
        assert_eq!(wait(Some(NOW + HOUR)), HOUR);
    }

    #[test]
    fn a_failure_is_tried_again_soon_and_never_given_up() {
        let wait = |failures, every| choose_wait(NOW, None, every, failures).as_secs();
        let waits: Vec<_> = (1..9).map(|failures| wait(failures, HOUR)).collect();
        assert_eq!(waits, [10, 20, 40, 80, 160, 320, 600, 600]);
        assert_eq!(wait(u32::MAX, HOUR), 600);
        assert_eq!(wait(9, Duration::from_secs(60)), 60);
    }

    #[test]
    fn two_periods_without_a_good_backup_are_too_many() {
        assert!(!is_overdue(NOW, Some(NOW - 2 * HOUR), HOUR));
        assert!(is_overdue(NOW, Some(NOW - 2 * HOUR - Duration::from_secs(1)), HOUR));
        assert!(!is_overdue(NOW, None, HOUR));
    }
}
