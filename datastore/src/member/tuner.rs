//! Has nodes start again whose timeouts don't suit the network.

use std::time::{Duration, Instant};

use dqlite::{MemberId, MemberInfo, Role};
use tracing::{debug, info};

use super::VERSION;
use super::gossip::REACHABLE_FOR;
use super::keeper::Keeper;
use super::roles::Observed;
use super::timing::{Suits, Tuned, Tuning, choose_tuning, suits};
use crate::clock;
use crate::proto::peer::RetuneRequest;

/// Timeouts that are too short are suffered for so long, which a busy moment
/// is not.
const RAISE_AFTER: Duration = Duration::from_secs(3);
/// Timeouts that are too long do harm only when a leader dies.
const LOWER_AFTER: Duration = Duration::from_secs(600);
/// How long a member may take to agree.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Without a leader for so long, a member helps itself.
const LEADERLESS_MAX: Duration = Duration::from_secs(5);
/// A leader of a shorter time is none.
const LEADER_MIN: Duration = Duration::from_secs(3);
/// How often a member looks whether there is a leader.
const PERIOD: Duration = Duration::from_millis(250);

/// What a leader remembers of its members' timeouts.
#[derive(Default)]
pub struct Tuner {
    unfit_since: Option<Instant>,
    /// Until then a member that starts again may not have been missed yet.
    wait_until: Option<Instant>,
}

impl Tuner {
    /// Takes the next step, if one is due. Whether roles may change meanwhile.
    pub async fn look(
        &mut self,
        keeper: &Keeper,
        members: &[MemberInfo],
        observed: &[Observed],
    ) -> Result<bool, dqlite::Error> {
        let now = clock::now();
        let tuned = tuned(keeper, observed);
        let round_trip = keeper.health.round_trip_max(now);
        let next = round_trip.and_then(|one| Some((choose_tuning(&tuned, one)?, one)));
        let Some((tuning, round_trip)) = next else {
            self.unfit_since = None;
            return Ok(true);
        };
        let is_short = |one: &Tuned| {
            one.latency.is_some_and(|latency| suits(latency, round_trip) == Suits::TooShort)
        };
        let raise = tuned.iter().any(is_short);
        let due =
            *self.unfit_since.get_or_insert(now) + if raise { RAISE_AFTER } else { LOWER_AFTER };
        if now < due || self.wait_until.is_some_and(|until| now < until) {
            return Ok(!raise);
        }
        match tuning {
            Tuning::Wait => return Ok(!raise),
            Tuning::GiveWay => drop(keeper.hand_over(members).await?),
            Tuning::Restart(id) if id == keeper.roster.own() => restart(keeper, round_trip),
            Tuning::Restart(id) => ask(keeper, id, round_trip).await,
        }
        self.wait_until = Some(clock::now() + REACHABLE_FOR * 2 + keeper.roster.patience());
        Ok(false)
    }
}

fn tuned(keeper: &Keeper, observed: &[Observed]) -> Vec<Tuned> {
    let tuned = observed.iter().map(|one| Tuned {
        id: one.id,
        votes: one.role == Role::Voter,
        is_leader: one.is_leader,
        is_steady: one.is_steady,
        latency: match one.is_leader {
            true => Some(keeper.roster.latency()),
            false => keeper.health.get(one.id).and_then(|health| health.latency),
        },
    });
    tuned.collect()
}

/// Starts the own node again.
fn restart(keeper: &Keeper, round_trip: Duration) {
    let round_trip_us = round_trip.as_micros() as u64;
    info!(round_trip_us, "the timeouts don't suit the network: this node starts again");
    if let Err(error) = keeper.roster.set_round_trip_us(round_trip_us) {
        debug!(%error, "round trips are not kept");
        return;
    }
    keeper.restart.notify_one();
}

async fn ask(keeper: &Keeper, id: MemberId, round_trip: Duration) {
    let request = RetuneRequest {
        version: VERSION,
        cluster_id: keeper.roster.cluster_id().unwrap_or(0),
        from: keeper.roster.own().0,
        round_trip_us: round_trip.as_micros() as u64,
    };
    info!(member = id.0, ?round_trip, "its timeouts don't suit the network: it starts again");
    let mut client = keeper.channels.to(id);
    let asked = tokio::time::timeout(ANSWER_TIMEOUT, client.retune(request)).await;
    match asked {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => debug!(%error, member = id.0, "it did not agree"),
        Err(_) => debug!(member = id.0, "it did not answer"),
    }
}

/// Where timeouts are so short that nobody comes to lead, no leader can have
/// members start again: then each of them does by itself.
pub async fn rescue(keeper: Keeper) {
    let (mut led_since, mut leaderless_since) = (None, None);
    loop {
        tokio::time::sleep(PERIOD).await;
        let now = clock::now();
        if keeper.leader.borrow().is_some() {
            if now - *led_since.get_or_insert(now) >= LEADER_MIN {
                leaderless_since = None;
            }
            continue;
        }
        led_since = None;
        let since = *leaderless_since.get_or_insert(now);
        let Some(round_trip) = keeper.health.round_trip_max(now) else { continue };
        let is_short = suits(keeper.roster.latency(), round_trip) == Suits::TooShort;
        // Cut off from the others, it would gain nothing.
        let all = keeper.roster.living().len();
        let is_cut_off = (keeper.health.reachable(now) + 1) * 2 <= all;
        if is_short && !is_cut_off && now - since >= LEADERLESS_MAX {
            restart(&keeper, round_trip);
            return;
        }
    }
}
