//! How often a source may do something: a bucket of permits each, and one for all together.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use skiff_doorway::source::Source;

/// Sources that are remembered: one more, and the one with the fullest bucket is forgotten, which
/// costs nothing when it is full.
const SOURCES_MAX: usize = 4096;

/// So many at once, and then one every so often.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    pub burst: u32,
    pub interval: Duration,
}

/// Counts by source. The clock is the caller's.
pub struct Rates {
    each: Rate,
    all: Rate,
    buckets: Mutex<Buckets>,
}

struct Buckets {
    all: Bucket,
    each: HashMap<Source, Bucket>,
}

/// When it would be full again: one number says all, and grows by an interval for each permit.
#[derive(Clone, Copy)]
struct Bucket {
    full: Instant,
}

impl Bucket {
    /// Whether there is a permit, and what is left if it is taken.
    fn take(self, rate: Rate, now: Instant) -> Option<Bucket> {
        let full = self.full.max(now) + rate.interval;
        (full <= now + rate.interval * rate.burst).then_some(Bucket { full })
    }
}

impl Rates {
    /// `each` source may so much, `all` of them together so much.
    pub fn new(each: Rate, all: Rate, now: Instant) -> Rates {
        let all_bucket = Bucket { full: now };
        let buckets = Mutex::new(Buckets { all: all_bucket, each: HashMap::new() });
        Rates { each, all, buckets }
    }

    /// Takes a permit, if there is one. One source's excess takes nothing from the others.
    pub fn take(&self, source: Source, now: Instant) -> bool {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let own = buckets.each.get(&source).copied().unwrap_or(Bucket { full: now });
        let Some(own) = own.take(self.each, now) else { return false };
        let Some(all) = buckets.all.take(self.all, now) else { return false };
        buckets.all = all;
        if buckets.each.len() >= SOURCES_MAX && !buckets.each.contains_key(&source) {
            buckets.each.retain(|_, bucket| bucket.full > now);
            forget_one(&mut buckets.each);
        }
        buckets.each.insert(source, own);
        true
    }
}

fn forget_one(each: &mut HashMap<Source, Bucket>) {
    if each.len() < SOURCES_MAX {
        return;
    }
    let fullest = each.iter().min_by_key(|(_, bucket)| bucket.full).map(|(source, _)| *source);
    if let Some(source) = fullest {
        each.remove(&source);
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn source(last: u32) -> Source {
        std::net::IpAddr::from(Ipv4Addr::from(last)).into()
    }

    fn rates(now: Instant) -> Rates {
        let each = Rate { burst: 3, interval: SECOND };
        Rates::new(each, Rate { burst: 10_000, interval: SECOND }, now)
    }

    #[test]
    fn a_burst_is_allowed_and_then_one_every_interval() {
        let now = Instant::now();
        let rates = rates(now);
        let taken = |at: Instant| (0..5).filter(|_| rates.take(source(1), at)).count();
        assert_eq!(taken(now), 3);
        assert_eq!(taken(now + SECOND), 1);
        assert_eq!(taken(now + SECOND * 100), 3);
    }

    #[test]
    fn one_source_takes_nothing_from_another() {
        let now = Instant::now();
        let rates = rates(now);
        while rates.take(source(1), now) {}
        assert!(rates.take(source(2), now));
    }

    #[test]
    fn all_sources_together_have_a_bound_as_well() {
        let now = Instant::now();
        let each = Rate { burst: 3, interval: SECOND };
        let rates = Rates::new(each, Rate { burst: 5, interval: SECOND }, now);
        assert_eq!((0..100).filter(|n| rates.take(source(*n), now)).count(), 5);
    }

    #[test]
    fn however_many_sources_come_memory_is_bounded() {
        let now = Instant::now();
        let rates = rates(now);
        let taken = (0..2 * SOURCES_MAX as u32).filter(|n| rates.take(source(*n), now));
        assert_eq!(taken.count(), 2 * SOURCES_MAX);
        assert!(rates.buckets.lock().unwrap().each.len() <= SOURCES_MAX);
    }
}
