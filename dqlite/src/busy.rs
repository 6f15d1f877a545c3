//! When a busy database is asked again: a decision without a clock.

use std::time::Duration;

/// How often and how long a busy database is asked again.
///
/// libdqlite answers BUSY for two reasons. Another connection writes: with the node's busy timeout
/// it queues by itself, so that the answer is rare. Or a checkpoint is running, every thousand pages
/// of log, for some milliseconds: this must always be tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BusyPolicy {
    /// Pause before the second attempt; each further pause is twice as long.
    pub pause_first: Duration,
    /// Longest pause.
    pub pause_max: Duration,
    /// All pauses together never exceed this.
    pub total_max: Duration,
}

impl Default for BusyPolicy {
    /// A checkpoint takes milliseconds; a writer that is stuck for ten seconds stays stuck.
    fn default() -> BusyPolicy {
        BusyPolicy {
            pause_first: Duration::from_micros(500),
            pause_max: Duration::from_millis(50),
            total_max: Duration::from_secs(10),
        }
    }
}

impl BusyPolicy {
    /// Never asks again.
    pub const NEVER: BusyPolicy = BusyPolicy {
        pause_first: Duration::ZERO,
        pause_max: Duration::ZERO,
        total_max: Duration::ZERO,
    };
}

/// How long to pause before the attempt after `attempts` busy ones that have waited `waited`
/// together; `None` when the bound is reached.
pub fn plan_busy_retry(policy: BusyPolicy, attempts: u32, waited: Duration) -> Option<Duration> {
    let left = policy.total_max.checked_sub(waited).filter(|left| !left.is_zero())?;
    let doublings = attempts.saturating_sub(1).min(16);
    let pause = policy.pause_first.saturating_mul(1 << doublings);
    Some(pause.min(policy.pause_max).min(left))
}

/// Whether running `sql` again after a BUSY can do nothing twice.
///
/// One statement that was busy has done nothing. Of several, the first may be committed already
/// when the second is refused, unless they begin with `BEGIN IMMEDIATE`: then the lock is taken
/// first and only that can be busy. A checkpoint is noticed before anything is run.
pub fn may_retry_busy(sql: &str, message: &str) -> bool {
    let words = ["begin", "immediate"];
    let mut first = sql.split(|c: char| c.is_whitespace() || c == ';').filter(|w| !w.is_empty());
    let locks_first = words.iter().all(|w| first.next().is_some_and(|f| f.eq_ignore_ascii_case(w)));
    is_single_statement(sql) || locks_first || message.contains("checkpoint")
}

/// Whether a text certainly holds one statement only; a `;` within a literal makes it doubt.
pub(crate) fn is_single_statement(sql: &str) -> bool {
    !sql.trim_end().trim_end_matches(';').contains(';')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_bound_and_end() {
        let policy = BusyPolicy {
            pause_first: Duration::from_millis(1),
            pause_max: Duration::from_millis(8),
            total_max: Duration::from_millis(30),
        };
        let mut waited = Duration::ZERO;
        let mut pauses = Vec::new();
        for attempts in 1.. {
            let Some(pause) = plan_busy_retry(policy, attempts, waited) else { break };
            waited += pause;
            pauses.push(pause.as_millis());
        }
        assert_eq!(pauses, [1, 2, 4, 8, 8, 7]);
        assert_eq!(plan_busy_retry(BusyPolicy::NEVER, 1, Duration::ZERO), None);
        assert!(plan_busy_retry(BusyPolicy::default(), u32::MAX, Duration::ZERO).is_some());
    }

    #[test]
    fn only_what_did_nothing_is_repeated() {
        let busy = "database is locked";
        assert!(may_retry_busy("INSERT INTO t VALUES (?);", busy));
        assert!(may_retry_busy(" begin  IMMEDIATE; UPDATE t SET a = 1; COMMIT", busy));
        assert!(!may_retry_busy("INSERT INTO t VALUES (1); INSERT INTO t VALUES (2)", busy));
        assert!(!may_retry_busy("BEGIN; INSERT INTO t VALUES (1); COMMIT", busy));
        assert!(may_retry_busy("DELETE FROM t; DELETE FROM u", "checkpoint in progress"));
    }
}
