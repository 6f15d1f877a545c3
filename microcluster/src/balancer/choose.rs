//! Decides who serves a client, and whose clients had better go elsewhere.

use std::time::Duration;

/// Connections of one that refuses or is not ready are closed this long after. One that stops on
/// purpose still answers what it was asked (the connections of one that died are closed already),
/// and when the datastore is away none is ready, which by then was found out of all.
const LEAVE_AFTER: Duration = Duration::from_secs(2);

/// What is known of an API server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// It answers.
    Healthy,
    /// Nobody has asked it yet.
    Unknown,
    /// It answers that it is not ready, for so long.
    Unready(Duration),
    /// Somebody answers whom the check does not believe. Clients see for themselves.
    Strange,
    /// Nobody listens, for so long.
    Refusing(Duration),
    /// It was asked and did not answer.
    Silent,
}

/// One of those that could serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    pub health: Health,
    /// It runs on this node.
    pub local: bool,
    /// Those of this node that it serves.
    pub connections: usize,
}

impl Health {
    /// Who is tried first; nothing for who is not tried at all.
    fn rank(self) -> Option<u8> {
        match self {
            Health::Healthy => Some(0),
            Health::Unknown => Some(1),
            // What it can't do the others can't either, or they would be before it.
            Health::Unready(_) => Some(2),
            // Perhaps it is the check that is wrong: a clock, an authority that has just changed.
            Health::Strange => Some(3),
            Health::Refusing(_) | Health::Silent => None,
        }
    }
}

/// Who is tried, in this order: by health, the local one first, then who serves fewest. Between
/// equals `turn` decides: every node begins with another number.
pub fn order_candidates(candidates: &[Candidate], turn: usize) -> Vec<usize> {
    let all = candidates.len();
    let key = |place: usize| {
        let Candidate { health, local, connections } = candidates[place];
        let turned = (place + all - turn % all) % all;
        health.rank().map(|rank| ((rank, !local, connections, turned), place))
    };
    let mut order: Vec<_> = (0..all).filter_map(key).collect();
    order.sort_unstable();
    order.into_iter().map(|(_, place)| place).collect()
}

/// Whose connections are closed: of those that are not well, and only while another one is, or
/// may be: a connection that may come to life again is better than none.
pub fn choose_closed(candidates: &[Candidate]) -> Vec<usize> {
    let is_there = |wanted: Health| candidates.iter().any(|other| other.health == wanted);
    let healthy = is_there(Health::Healthy);
    let hopeful = healthy || is_there(Health::Unknown);
    let is_closed = |candidate: &Candidate| match candidate.health {
        Health::Healthy | Health::Unknown => false,
        Health::Unready(since) => healthy && since >= LEAVE_AFTER,
        Health::Strange => healthy,
        Health::Refusing(since) => hopeful && since >= LEAVE_AFTER,
        Health::Silent => hopeful,
    };
    let places = 0..candidates.len();
    places.filter(|place| is_closed(&candidates[*place])).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Health::{Healthy, Refusing, Silent, Strange, Unknown, Unready};
    use super::*;

    fn remote(health: Health, connections: usize) -> Candidate {
        Candidate { health, local: false, connections }
    }

    fn local(health: Health) -> Candidate {
        Candidate { health, local: true, connections: 9 }
    }

    #[test]
    fn the_healthy_come_first_then_the_unknown_and_the_dead_never() {
        let now = Duration::ZERO;
        let all = [Refusing(now), Strange, Unready(now), Unknown, Silent, Healthy];
        assert_eq!(order_candidates(&all.map(|health| remote(health, 0)), 0), [5, 3, 2, 1]);
    }

    #[test]
    fn the_local_one_is_preferred_while_it_is_well() {
        assert_eq!(order_candidates(&[remote(Healthy, 0), local(Healthy)], 0), [1, 0]);
        assert_eq!(order_candidates(&[remote(Healthy, 0), local(Unknown)], 0), [0, 1]);
        assert_eq!(order_candidates(&[remote(Healthy, 0), local(Silent)], 0), [0]);
    }

    #[test]
    fn connections_are_spread_and_nodes_begin_differently() {
        let all = [remote(Healthy, 2), remote(Healthy, 1), remote(Healthy, 1)];
        assert_eq!(order_candidates(&all, 0), [1, 2, 0]);
        assert_eq!(order_candidates(&all, 2), [2, 1, 0]);
        assert_eq!(order_candidates(&[], 7), [0; 0]);
    }

    #[test]
    fn connections_are_closed_only_when_another_one_is_better() {
        let (now, later) = (Duration::ZERO, LEAVE_AFTER);
        let bad = [Silent, Refusing(later), Unready(later), Strange, Refusing(now), Unready(now)];
        let closed = |other: Option<Health>| {
            let all = bad.into_iter().chain(other);
            choose_closed(&all.map(|health| remote(health, 1)).collect::<Vec<_>>())
        };
        assert_eq!(closed(Some(Healthy)), [0, 1, 2, 3]);
        assert_eq!(closed(Some(Unknown)), [0, 1]);
        assert_eq!(closed(None), [0; 0]);
        assert_eq!(choose_closed(&[remote(Healthy, 1), remote(Unknown, 1)]), [0; 0]);
    }

    fn any_health() -> impl Strategy<Value = Health> {
        prop_oneof![
            Just(Healthy),
            Just(Unknown),
            Just(Strange),
            Just(Silent),
            (0_u64..5).prop_map(|s| Unready(Duration::from_secs(s))),
            (0_u64..5).prop_map(|s| Refusing(Duration::from_secs(s))),
        ]
    }

    proptest! {
        #[test]
        fn nobody_is_named_twice_and_nobody_better_is_left_out(
            all in proptest::collection::vec((any_health(), any::<bool>(), 0_usize..4), 0..8),
            turn: usize,
        ) {
            let all: Vec<Candidate> = all
                .into_iter()
                .map(|(health, local, connections)| Candidate { health, local, connections })
                .collect();
            let order = order_candidates(&all, turn);
            let ranks: Vec<_> = order.iter().map(|place| all[*place].health.rank()).collect();
            prop_assert!(ranks.is_sorted());
            let alive = all.iter().filter(|each| each.health.rank().is_some()).count();
            prop_assert_eq!(order.len(), alive);
            prop_assert!(choose_closed(&all).iter().all(|place| all[*place].health != Healthy));
            if choose_closed(&all).len() == all.len() {
                prop_assert!(all.is_empty(), "somebody is left to serve");
            }
        }
    }
}
