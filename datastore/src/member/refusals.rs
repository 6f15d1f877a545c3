//! Others that refuse this member because it belongs to another cluster.
//!
//! That happens to one that comes back after the datastore was recovered
//! without it. Pure: the caller says what time it is.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use dqlite::MemberId;
use tonic::{Code, Status};

/// What a member is told that belongs to another cluster.
const FOREIGN: &str = "you belong to another cluster";
/// Refusals count that went on for so long without any other answer.
const FINAL_AFTER: Duration = Duration::from_secs(5);
/// One that was not repeated for so long does not go on.
const REPEATED_WITHIN: Duration = Duration::from_secs(3);

/// What a member is told that belongs to another cluster.
pub fn foreign() -> Status {
    Status::permission_denied(FOREIGN)
}

/// Whether an answer says that.
pub fn is_foreign(status: &Status) -> bool {
    status.code() == Code::PermissionDenied && status.message() == FOREIGN
}

/// Who refuses this member, since when, and when last.
#[derive(Debug, Default)]
pub struct Refusals {
    by: HashMap<MemberId, (Instant, Instant)>,
}

impl Refusals {
    /// Notes one more refusal.
    pub fn note(&mut self, id: MemberId, now: Instant) {
        let (since, last) = self.by.entry(id).or_insert((now, now));
        if now.saturating_duration_since(*last) > REPEATED_WITHIN {
            *since = now;
        }
        *last = now;
    }

    /// Notes that a member of this cluster answered: the refusals of others
    /// begin to count from now on.
    pub fn clear(&mut self) {
        self.by.clear();
    }

    /// Who refuses this member for good: for some seconds nobody else answered.
    pub fn last_word(&self, now: Instant) -> Option<MemberId> {
        let goes_on = |last: &Instant| now.saturating_duration_since(*last) <= REPEATED_WITHIN;
        let lasted = |since: &Instant| now.saturating_duration_since(*since) >= FINAL_AFTER;
        let found = self.by.iter().filter(|(_, (since, last))| goes_on(last) && lasted(since));
        found.map(|(id, _)| *id).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_refusals_that_go_on_while_nobody_else_answers_are_the_last_word() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let one = MemberId(7);
        let mut refusals = Refusals::default();
        assert_eq!(refusals.last_word(at(0)), None);
        for second in 0..5 {
            refusals.note(one, at(second));
            assert_eq!(refusals.last_word(at(second)), None, "{second}");
        }
        refusals.note(one, at(5));
        assert_eq!(refusals.last_word(at(5)), Some(one));
        assert_eq!(refusals.last_word(at(9)), None, "it is repeated no more");
        refusals.note(one, at(9));
        assert_eq!(refusals.last_word(at(9)), None, "it began again");
        for second in 10..14 {
            refusals.note(one, at(second));
        }
        refusals.clear();
        refusals.note(one, at(14));
        assert_eq!(refusals.last_word(at(14)), None, "another one answered");
    }

    #[test]
    fn no_other_refusal_is_taken_for_this_one() {
        assert!(is_foreign(&foreign()));
        assert!(!is_foreign(&Status::permission_denied("you were removed from this cluster")));
        assert!(!is_foreign(&Status::unavailable(FOREIGN)));
    }
}
