//! How long to wait before the next start.

use std::time::Duration;

use crate::spec::Backoff;

/// Share of the delay that chance takes away, so that daemons which failed together do not start
/// together for ever.
const JITTER_SHARE: f64 = 0.25;

impl Backoff {
    /// The delay after this many failures in a row (1 is the first): doubled each time up to
    /// `max`, then shortened by up to a quarter.
    pub fn delay(&self, failures: u32, jitter: f64) -> Duration {
        let doublings = failures.saturating_sub(1).min(31);
        let delay = self.initial.saturating_mul(1 << doublings).min(self.max);
        delay.mul_f64(1.0 - JITTER_SHARE * jitter.clamp(0.0, 1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_delay_doubles_up_to_its_bound() {
        let backoff = Backoff::default();
        let delays: Vec<u128> =
            (1..=9).map(|failures| backoff.delay(failures, 0.0).as_millis()).collect();
        assert_eq!(delays, [500, 1000, 2000, 4000, 8000, 16000, 30000, 30000, 30000]);
        assert_eq!(backoff.delay(u32::MAX, 0.0), backoff.max);
    }

    #[test]
    fn chance_only_ever_shortens() {
        let backoff = Backoff::default();
        assert_eq!(backoff.delay(1, 1.0).as_millis(), 375);
        assert_eq!(backoff.delay(1, 7.0).as_millis(), 375);
    }
}
