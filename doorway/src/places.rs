//! Places for connections that have not said yet who they are.
//!
//! Nobody new is ever refused: whoever is quick needs a place for milliseconds, and whoever stalls
//! loses it to the next one. First a source loses its own oldest place, then the source that has
//! most of them:
//!
//! ```text
//! of a source 2, in all 4      places (oldest first)      one more of   loses its place
//!                              a1 a2                      a             a1: a has its share
//!                              a1 a2 b1 c1                d             a1: a has most
//! ```

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::oneshot;

use crate::source::Source;

/// All places, and who has them.
pub struct Places {
    source_max: usize,
    all_max: usize,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    next: u64,
    /// In the order of arrival.
    held: BTreeMap<u64, Held>,
}

struct Held {
    source: Source,
    /// Its end tells the holder.
    _alive: oneshot::Sender<()>,
}

/// A place; given back when dropped.
pub struct Place {
    number: u64,
    places: Arc<Places>,
    alive: oneshot::Receiver<()>,
}

impl Places {
    /// Each source may have `source_max` of the `all_max` places, which are one at least.
    pub fn new(source_max: usize, all_max: usize) -> Arc<Places> {
        let (source_max, all_max) = (source_max.max(1), all_max.max(1));
        Arc::new(Places { source_max, all_max, table: Mutex::default() })
    }

    /// Takes a place, from somebody else if need be.
    pub fn take(self: &Arc<Self>, source: Source) -> Place {
        let (tell, alive) = oneshot::channel();
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let held = table.held.iter().map(|(number, held)| (*number, held.source));
        if let Some(number) = choose_loser(held, source, self.source_max, self.all_max) {
            table.held.remove(&number);
        }
        let number = table.next;
        table.next += 1;
        table.held.insert(number, Held { source, _alive: tell });
        Place { number, places: self.clone(), alive }
    }

    /// Places that are taken.
    pub fn taken(&self) -> usize {
        self.table.lock().unwrap_or_else(PoisonError::into_inner).held.len()
    }
}

impl Place {
    /// Waits until somebody else got this place.
    pub async fn lost(&mut self) {
        // Nobody ever sends: it ends by the other end's going.
        let _ = (&mut self.alive).await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut table = self.places.table.lock().unwrap_or_else(PoisonError::into_inner);
        table.held.remove(&self.number);
    }
}

/// Who makes room for one more of `source`. `held` is in the order of arrival.
fn choose_loser(
    held: impl Iterator<Item = (u64, Source)>,
    source: Source,
    source_max: usize,
    all_max: usize,
) -> Option<u64> {
    let mut by_source: HashMap<Source, (usize, u64)> = HashMap::new();
    let mut all = 0;
    for (number, source) in held {
        all += 1;
        by_source.entry(source).or_insert((0, number)).0 += 1;
    }
    match by_source.get(&source) {
        Some((count, oldest)) if *count >= source_max => return Some(*oldest),
        _ if all < all_max => return None,
        _ => {}
    }
    let most = by_source.values().max_by_key(|(count, oldest)| (*count, u64::MAX - *oldest));
    most.map(|(_, oldest)| *oldest)
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;

    fn source(last: u8) -> Source {
        IpAddr::from(Ipv4Addr::new(192, 0, 2, last)).into()
    }

    fn loser(held: &[u8], new: u8) -> Option<u64> {
        let held = held.iter().enumerate().map(|(n, s)| (n as u64, source(*s)));
        choose_loser(held, source(new), 2, 4)
    }

    #[test]
    fn a_source_with_its_share_loses_its_own_oldest_place() {
        assert_eq!(loser(&[1, 2, 1], 1), Some(0));
        assert_eq!(loser(&[2, 1, 1], 1), Some(1));
    }

    #[test]
    fn while_there_is_room_nobody_loses() {
        assert_eq!(loser(&[], 1), None);
        assert_eq!(loser(&[1, 2, 3], 4), None);
    }

    #[test]
    fn when_all_is_taken_the_source_with_most_places_loses() {
        assert_eq!(loser(&[1, 2, 2, 3], 4), Some(1));
        assert_eq!(loser(&[3, 2, 1, 4], 5), Some(0), "the oldest of equals");
    }

    #[tokio::test]
    async fn whoever_loses_is_told_and_the_count_stays_right() {
        let places = Places::new(2, 4);
        let mut first = places.take(source(1));
        let second = places.take(source(1));
        let third = places.take(source(1));
        first.lost().await;
        assert_eq!(places.taken(), 2);
        drop(first);
        assert_eq!(places.taken(), 2);
        drop((second, third));
        assert_eq!(places.taken(), 0);
    }
}
