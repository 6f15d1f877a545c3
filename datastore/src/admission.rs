//! Bounds what requests take in memory while they wait to be written.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes of writes that may wait together. Beyond this clients are told to
/// come back, unless nobody else waits.
pub const WAITING_BYTES_MAX: usize = 128 << 20;

/// Counts the bytes of those who wait; its clones count together.
#[derive(Clone, Debug, Default)]
pub struct Admission(Arc<AtomicUsize>);

/// The place of a request among those that wait; free again when dropped.
#[derive(Debug)]
pub struct Waiting {
    bytes: usize,
    all: Admission,
}

impl Admission {
    /// A place for a request of this size, while there is one; always for one without.
    pub fn admit(&self, bytes: usize) -> Option<Waiting> {
        let before = self.0.fetch_add(bytes, Ordering::Relaxed);
        let place = Waiting { bytes, all: self.clone() };
        (before == 0 || bytes == 0 || before.saturating_add(bytes) <= WAITING_BYTES_MAX)
            .then_some(place)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.all.0.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_admitted_up_to_the_bound_and_given_back() {
        let admission = Admission::default();
        let large = admission.admit(WAITING_BYTES_MAX + 1);
        assert!(large.is_some(), "alone, anything is admitted");
        assert!(admission.admit(1).is_none() && admission.admit(0).is_some());
        drop(large);
        let half = admission.admit(WAITING_BYTES_MAX / 2).unwrap();
        let other = admission.clone().admit(WAITING_BYTES_MAX / 2).unwrap();
        assert!(admission.admit(1).is_none(), "clones count together");
        drop(half);
        assert!(admission.admit(1).is_some());
        drop(other);
        assert_eq!(admission.0.load(Ordering::Relaxed), 0);
    }
}
