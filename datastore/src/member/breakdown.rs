//! A node whose disk failed once: libdqlite refuses every write from then on,
//! whatever becomes of the disk. It starts again, at longer and longer intervals
//! while that does not help.

use std::time::Duration;

/// How often a member looks at its node.
pub const PERIOD: Duration = Duration::from_millis(250);
/// Between the first breakdown and the next start.
const PAUSE_MIN: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(15);
/// A node that ran for so long has got over what broke the one before.
const CALM: Duration = Duration::from_secs(60);

/// Remembers how often nodes broke down in a row.
#[derive(Debug, Default)]
pub struct Breakdowns(u32);

impl Breakdowns {
    /// How long to wait until the next start, behind a node that ran for so long.
    pub fn pause_after(&mut self, ran: Duration) -> Duration {
        if ran >= CALM {
            self.0 = 0;
        }
        let pause = PAUSE_MIN.saturating_mul(1 << self.0.min(8)).min(PAUSE_MAX);
        self.0 += 1;
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_bound_and_a_calm_time_ends_them() {
        let mut breakdowns = Breakdowns::default();
        let mut pause = || breakdowns.pause_after(Duration::from_secs(1)).as_millis();
        assert_eq!([pause(), pause(), pause()], [500, 1_000, 2_000]);
        assert_eq!((0..100).map(|_| pause()).max(), Some(15_000));
        assert_eq!(breakdowns.pause_after(CALM), PAUSE_MIN);
    }
}
