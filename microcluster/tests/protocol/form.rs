//! What kind of history a seed makes: how many machines, how long, how much goes wrong.

use super::chance::Chance;
use super::world::MINUTE_US;

const HOUR_US: u64 = 60 * MINUTE_US;

/// See the module's words.
#[derive(Clone, Debug)]
pub struct Form {
    pub machines: usize,
    /// Control-plane nodes from the beginning on.
    pub deciders: usize,
    /// Between two looks of a node at its cluster.
    pub interval_us: u64,
    /// As long as things go wrong.
    pub trouble_us: u64,
    /// Renewals happen, and machines are off for weeks.
    pub of_days: bool,
    /// Every certificate of a node, or the one on which all depends.
    pub all_leaves: bool,
    /// Not all ask the same one first.
    pub spreads: bool,
    /// In a thousand steps somebody dies.
    pub falls: u64,
    /// In a thousand changes the outcome is not known.
    pub unknown: u64,
    /// Between two blows.
    pub pause_us: (u64, u64),
    /// Between two whims of a person.
    pub whim_us: (u64, u64),
}

impl Form {
    pub fn choose(chance: &mut Chance) -> Self {
        let of_days = chance.happens(250);
        let large = !of_days && chance.happens(60);
        let machines = match (of_days, large) {
            (true, _) => chance.within(3, 9),
            (_, true) => chance.within(30, 101),
            _ => chance.within(3, 16),
        } as usize;
        let deciders = *chance.pick(&[1, 2, 3, 3]);
        let hours_max = *chance.pick(&[96, 96, 240, 1_000]);
        let trouble_us = match of_days {
            true => chance.within(36, hours_max) * HOUR_US,
            false => chance.within(3, 16) * MINUTE_US,
        };
        let pace = if of_days { trouble_us / 60 } else { 12_000_000 };
        let calm = *chance.pick(&[1, 1, 2, 5]);
        Self {
            machines,
            deciders,
            interval_us: if of_days { chance.within(30, 120) * MINUTE_US } else { 15_000_000 },
            trouble_us,
            of_days,
            all_leaves: chance.happens(if large { 0 } else { 300 }),
            spreads: chance.happens(500),
            falls: *chance.pick(&[0, 4, 15, 40]),
            unknown: *chance.pick(&[0, 20, 80, 300]),
            pause_us: (pace * calm / 10, pace * calm),
            whim_us: (pace / 4, pace * 3),
        }
    }

    /// A cluster in which nothing happens.
    pub fn quiet(machines: usize) -> Self {
        Self {
            machines,
            deciders: machines.min(3),
            interval_us: 15_000_000,
            trouble_us: 0,
            of_days: false,
            all_leaves: true,
            spreads: false,
            falls: 0,
            unknown: 0,
            pause_us: (MINUTE_US, MINUTE_US),
            whim_us: (MINUTE_US, MINUTE_US),
        }
    }
}
