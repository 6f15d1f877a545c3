//! Raft's timeouts, from the round trips between members. Pure.
//!
//! libdqlite's latency setting is fixed while a node runs: a heartbeat takes
//! 1.5 times, an election 15 to 30 times of it. So a member whose setting does
//! not suit the network any more starts its node again. One after the other
//! does, the leader last:
//!
//! ```text
//!   round trip 600 ms,   1: 20 ms, leads   2: 20 ms      3: 20 ms
//!     restart 2          1: 20 ms, leads   2: 500 ms     3: 20 ms
//!     restart 3          1: 20 ms, leads   2: 500 ms     3: 500 ms
//!     1 gives way        1: 20 ms          2: leads      3: 500 ms
//!     restart 1          1: 500 ms         2: leads      3: 500 ms
//! ```

use std::time::Duration;

use dqlite::MemberId;

/// The setting at least: a leader's death is noticed after 15 to 30 times
/// this, so that the first new write comes within a second.
pub const LATENCY_MIN: Duration = Duration::from_millis(20);
/// And at most: then a leader's death costs up to 15 seconds.
pub const LATENCY_MAX: Duration = Duration::from_millis(500);
/// How many round trips the setting stands for.
const ROUND_TRIPS: u32 = 2;
/// Round trips for which a member may be silent beyond what a good network
/// needs: packets that are lost twice in a row come after as many.
const PATIENCE_ROUND_TRIPS: u32 = 8;
/// What that adds at most.
const PATIENCE_MAX: Duration = Duration::from_secs(6);

/// The setting for the largest round trip between members.
pub fn choose_latency(round_trip: Duration) -> Duration {
    (round_trip * ROUND_TRIPS).clamp(LATENCY_MIN, LATENCY_MAX)
}

/// How much longer than in a good network a member is waited for.
pub fn patience(round_trip: Duration) -> Duration {
    (round_trip * PATIENCE_ROUND_TRIPS).min(PATIENCE_MAX)
}

/// How a setting suits the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suits {
    Well,
    /// Elections could end before the votes have come.
    TooShort,
    /// A leader's death costs longer than it must.
    TooLong,
}

/// How a setting suits the largest round trip. There is much room between
/// what is chosen and what is bad, so that nothing swings to and fro.
pub fn suits(latency: Duration, round_trip: Duration) -> Suits {
    if latency < LATENCY_MAX && latency * 2 < round_trip {
        Suits::TooShort
    } else if latency > choose_latency(round_trip) * 4 {
        Suits::TooLong
    } else {
        Suits::Well
    }
}

/// A member as the leader sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuned {
    pub id: MemberId,
    pub votes: bool,
    pub is_leader: bool,
    /// Has answered for long enough to be counted on.
    pub is_steady: bool,
    /// Its setting; nothing while that is unknown.
    pub latency: Option<Duration>,
}

/// What is to be done about a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tuning {
    /// This member starts its node again.
    Restart(MemberId),
    /// Another one leads: the leader's own turn has come.
    GiveWay,
    /// Nothing can be done before more members answer.
    Wait,
}

/// The next step; nothing when every setting suits. A voter starts again
/// only while all others answer, so that a majority always does.
pub fn choose_tuning(members: &[Tuned], round_trip: Duration) -> Option<Tuning> {
    let is_unfit =
        |one: &&Tuned| one.latency.is_some_and(|latency| suits(latency, round_trip) != Suits::Well);
    let unfit: Vec<&Tuned> = members.iter().filter(is_unfit).collect();
    let is_ready = |one: &&&Tuned| one.is_steady && !one.is_leader;
    if let Some(one) = unfit.iter().filter(is_ready).find(|one| !one.votes) {
        return Some(Tuning::Restart(one.id));
    }
    let mut voters = members.iter().filter(|one| one.votes);
    let all_steady = voters.all(|one| one.is_steady);
    let votes = members.iter().filter(|one| one.votes).count();
    let others = unfit.iter().filter(is_ready).find(|one| one.votes);
    let leader = unfit.iter().find(|one| one.is_leader);
    match (others, leader) {
        (None, None) => None,
        _ if !all_steady => Some(Tuning::Wait),
        (Some(one), _) => Some(Tuning::Restart(one.id)),
        (None, Some(leader)) if votes == 1 => Some(Tuning::Restart(leader.id)),
        (None, Some(_)) => Some(Tuning::GiveWay),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn timeouts_follow_the_network_within_bounds() {
        assert_eq!(choose_latency(Duration::ZERO), LATENCY_MIN);
        assert_eq!(choose_latency(ms(20)), ms(40));
        assert_eq!(choose_latency(ms(600)), LATENCY_MAX);
        assert_eq!(patience(ms(1)), ms(8));
        assert_eq!(patience(ms(5000)), PATIENCE_MAX);
    }

    #[test]
    fn what_is_chosen_suits_and_stays_so_within_wide_bounds() {
        for round_trip in [0, 1, 5, 20, 80, 100, 200, 600, 3000] {
            let latency = choose_latency(ms(round_trip));
            assert_eq!(suits(latency, ms(round_trip)), Suits::Well, "{round_trip}");
            assert_eq!(suits(latency, ms(round_trip * 2)), Suits::Well, "{round_trip} doubled");
            assert_eq!(suits(latency, ms(round_trip / 2)), Suits::Well, "{round_trip} halved");
        }
        assert_eq!(suits(ms(20), ms(50)), Suits::TooShort);
        assert_eq!(suits(ms(500), ms(1)), Suits::TooLong);
    }

    /// `2` votes, `s` does not, `L` leads; then its setting in milliseconds,
    /// `?` behind it for one that does not answer.
    fn members(words: &str) -> Vec<Tuned> {
        let member = |(position, word): (usize, &str)| {
            let (kind, rest) = word.split_at(1);
            Tuned {
                id: MemberId(position as u64 + 1),
                votes: kind != "s",
                is_leader: kind == "L",
                is_steady: !rest.ends_with('?'),
                latency: rest.trim_end_matches('?').parse().ok().map(ms),
            }
        };
        words.split_whitespace().enumerate().map(member).collect()
    }

    #[test]
    fn members_start_again_one_by_one_and_the_leader_last() {
        let restart = |id| Some(Tuning::Restart(MemberId(id)));
        for (words, next) in [
            ("L500 v500 v500", None),
            ("L20 v20 v20", restart(2)),
            ("L20 v500 v20", restart(3)),
            ("L20 v500? v20", Some(Tuning::Wait)),
            ("L20 v500 v500", Some(Tuning::GiveWay)),
            ("v20 L500 v500", restart(1)),
            // Whoever does not vote is not waited for, and does not wait.
            ("L20 v500 v500? s20", restart(4)),
            ("L500 v500 v500 s20?", None),
            // Before it lets others vote, a single voter suits the network.
            ("L20 s500 s500", restart(1)),
            ("L20", restart(1)),
            // What is not known yet is not judged.
            ("L500 v v500", None),
        ] {
            assert_eq!(choose_tuning(&members(words), ms(600)), next, "{words}");
        }
    }
}
