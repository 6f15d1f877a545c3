//! How late a timer may be.

use crate::{Profile, Syscall};

/// A wish, not a condition: without it the daemon only wakes up more often.
pub(crate) fn set(syscall: &impl Syscall, profile: &Profile, note: &mut dyn FnMut(String)) {
    if let Some(ms) = profile.timer_slack_ms
        && let Err(error) = syscall.set_timer_slack(u64::from(ms) * 1_000_000)
    {
        note(format!("timers stay precise, not {ms} ms late: {error}"));
    }
}
