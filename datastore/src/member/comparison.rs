//! Compares what this member holds with what the others say they hold.
//!
//! A difference stays as it is while all apply the same rows, see
//! [`crate::fingerprint`], so the differences from the others tell who of them
//! agree with each other:
//!
//! ```text
//!   differences from this member      of 3 members
//!   0, 0        all agree             Sound
//!   0, x        one other is odd      Sound: the other one begins anew
//!   x, x        this one is odd       Odd: this one begins anew
//!   x, y        nobody knows          Doubtful: an alarm on all of them
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tracing::{error, info, warn};

use super::gossip::HealthTable;
use super::roster::Roster;
use crate::clock;
use crate::database::Database;
use crate::shared::{Damage, Integrity, Shared};

/// How often members are compared: as often as they tell.
const PERIOD: Duration = super::gossip::PERIOD;
/// A verdict counts when it was found so many times in a row.
const AGREED_AFTER: u32 = 4;

/// What comparing says of this member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nobody could be compared with.
    Unknown,
    /// It holds what most members hold, or what all hold that could be compared.
    Sound {
        /// How many others differ.
        odd: usize,
    },
    /// Most members agree with each other, and not with this one.
    Odd,
    /// Members differ, and no majority agrees.
    Doubtful,
}

/// Judges by the differences from others; there are `members` with this one.
pub fn judge(differences: &[u64], members: usize) -> Verdict {
    let majority = members / 2 + 1;
    let mut counts = BTreeMap::new();
    for difference in differences {
        *counts.entry(*difference).or_insert(0) += 1;
    }
    let agreeing = counts.remove(&0).unwrap_or(0);
    let odd = differences.len() - agreeing;
    match counts.into_values().max() {
        None if differences.is_empty() => Verdict::Unknown,
        None => Verdict::Sound { odd },
        Some(others) if others >= majority => Verdict::Odd,
        Some(_) if agreeing + 1 >= majority => Verdict::Sound { odd },
        Some(_) => Verdict::Doubtful,
    }
}

/// What one member needs to compare itself in one database.
pub struct Comparison {
    pub database: Database,
    pub shared: Arc<Shared>,
    pub roster: Arc<Roster>,
    pub health: Arc<HealthTable>,
}

impl Comparison {
    /// Compares, for ever.
    pub async fn run(self) {
        let (mut last, mut times) = (Verdict::Unknown, 0);
        loop {
            tokio::time::sleep(PERIOD).await;
            let verdict = self.compare();
            times = if verdict == last { times + 1 } else { 1 };
            last = verdict;
            if times == AGREED_AFTER && verdict != Verdict::Unknown {
                self.act(verdict);
            }
        }
    }

    fn compare(&self) -> Verdict {
        let told = self.health.marks(self.database, clock::now());
        let state = self.shared.read();
        let newest =
            |marks: &Vec<_>| marks.iter().rev().find_map(|mark| state.marks.difference(*mark));
        let differences: Vec<u64> = told.iter().filter_map(newest).collect();
        drop(state);
        judge(&differences, self.roster.living().len())
    }

    fn act(&self, verdict: Verdict) {
        match (verdict, self.shared.integrity()) {
            (Verdict::Odd, Integrity::Sound | Integrity::Doubtful) => {
                error!("this member holds something else than most others");
                self.shared.set_integrity(Integrity::Damaged(Damage::Differs));
            }
            (Verdict::Doubtful, Integrity::Sound) => {
                error!("members hold different things, and no majority agrees; see the page");
                self.shared.set_integrity(Integrity::Doubtful);
            }
            (Verdict::Sound { odd: 0 }, Integrity::Doubtful) => {
                info!("members hold the same again");
                self.shared.set_integrity(Integrity::Sound);
            }
            (Verdict::Sound { odd }, Integrity::Sound) if odd > 0 => {
                warn!(odd, "other members hold something else than most");
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_majority_decides_who_is_odd_and_without_one_nobody_does() {
        let cases: [(&[u64], usize, Verdict); 15] = [
            (&[], 1, Verdict::Unknown),
            (&[], 3, Verdict::Unknown),
            (&[0], 2, Verdict::Sound { odd: 0 }),
            (&[9], 2, Verdict::Doubtful),
            (&[0, 0], 3, Verdict::Sound { odd: 0 }),
            (&[0], 3, Verdict::Sound { odd: 0 }),
            (&[0, 9], 3, Verdict::Sound { odd: 1 }),
            (&[9, 9], 3, Verdict::Odd),
            (&[8, 9], 3, Verdict::Doubtful),
            (&[9], 3, Verdict::Doubtful),
            (&[9, 9, 0], 4, Verdict::Doubtful),
            (&[9, 9, 9], 4, Verdict::Odd),
            (&[9, 9, 9, 0], 5, Verdict::Odd),
            (&[9, 9, 0, 0], 5, Verdict::Sound { odd: 2 }),
            (&[9, 9, 8, 0], 5, Verdict::Doubtful),
        ];
        for (differences, members, verdict) in cases {
            assert_eq!(judge(differences, members), verdict, "{differences:?} of {members}");
        }
    }
}
