//! What goes wrong, and when: the seed decides.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::boat::Boat;
use super::schemes::{Scheme, isolate};
use datastore_history::chance::Chance;

/// Of a thousand events so many are the history's scheme, if it has one.
const SCHEMES: u64 = 800;

/// Does harm until `until`; then everything is repaired.
pub async fn harm(boat: Arc<Boat>, mut chance: Chance, until: Instant, scheme: Scheme) {
    // Some histories are mild, so that rare orders of good days are seen too.
    let pauses = [(150, 500), (300, 1_200), (1_000, 3_000)];
    let pause = if scheme == Scheme::None { *chance.pick(&pauses) } else { pauses[0] };
    let mut down: Vec<(u64, Instant)> = Vec::new();
    while Instant::now() < until {
        sleep(Duration::from_millis(chance.within(pause.0, pause.1))).await;
        let now = Instant::now();
        for (id, _) in down.extract_if(.., |(_, back)| *back <= now) {
            boat.start(id);
        }
        if scheme != Scheme::None && chance.happens(SCHEMES) {
            scheme.play(&boat, &mut chance).await;
            continue;
        }
        let leads = |id: &&u64| boat.cluster.leads(**id).is_some();
        // Leaders are where harm does most.
        let leader = boat.ids.iter().find(leads).copied().filter(|_| chance.happens(400));
        let id = leader.unwrap_or(*chance.pick(&boat.ids));
        let is_up = boat.up().iter().any(|up| up.id == id);
        let back = now + chance.time_us(50_000, 2_500_000);
        match chance.within(0, 100) {
            0..18 if is_up => {
                boat.kill(id);
                down.push((id, back));
            }
            18..24 if is_up => {
                boat.stop(id).await;
                down.push((id, back));
            }
            24..38 => isolate(&boat, leader.unwrap_or(id)),
            38..50 => cut(&boat, &mut chance, id),
            50..65 => {
                boat.trace.note("links heal");
                boat.network.links.heal();
            }
            65..75 => {
                let (loss, delay) = (chance.within(0, 150), chance.within(500, 40_000));
                boat.trace.note(format!("links lose {loss}, delay {delay}"));
                boat.network.links.worsen(loss, (100, delay));
            }
            75..85 => {
                let slow = chance.within(1_000, 120_000);
                boat.trace.note(format!("disk {id} takes {slow}"));
                boat.cluster.set_disk(id, (50, slow));
            }
            _ => {
                let leader = boat.ids.iter().find(|one| boat.cluster.leads(**one).is_some());
                if let Some(leader) = leader.filter(|leader| **leader != id) {
                    let tried = boat.cluster.transfer(*leader, id);
                    boat.trace.note(format!("leadership from {leader} to {id}: {tried}"));
                }
            }
        }
    }
    boat.trace.note("all is repaired");
    boat.network.links.heal();
    for id in &boat.ids {
        boat.cluster.set_disk(*id, (50, 1_500));
        if !boat.up().iter().any(|up| up.id == *id) {
            boat.start(*id);
        }
    }
}

/// Cuts a member off from some others, in both directions or in one.
fn cut(boat: &Boat, chance: &mut Chance, id: u64) {
    let (one_way, back) = (chance.happens(300), chance.happens(500));
    let everybody = chance.happens(600);
    boat.trace.note(format!("links of {id} are cut: {everybody} {one_way} {back}"));
    for other in boat.ids.iter().copied().filter(|other| *other != id) {
        if !everybody && chance.happens(500) {
            continue;
        }
        if !one_way || back {
            boat.network.links.cut(other, id);
        }
        if !one_way || !back {
            boat.network.links.cut(id, other);
        }
    }
}
