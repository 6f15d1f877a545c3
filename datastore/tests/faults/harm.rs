//! What goes wrong, and when: the seed decides.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use datastore_history::chance::Chance;
use lossy_disk::{Faults, Loss};

use super::world::{MEMBERS, World};

/// What a test looks at the members' processes.
const LOOK: Duration = Duration::from_millis(50);
/// When a supervisor starts a process again that ended.
const RESTART_PAUSE: Duration = Duration::from_millis(500);

/// What is told of a log.
const LAST_LINES: usize = 20;

/// What was done, how often, and how members ended by themselves.
#[derive(Debug, Default)]
pub struct Harm {
    pub done: BTreeMap<&'static str, u32>,
    pub ended: Vec<String>,
}

/// What stands out until a member is well again.
#[derive(Default)]
struct Due {
    start: Option<Instant>,
    repair: Option<Instant>,
}

/// Does harm until `until`; then everything is repaired.
pub async fn harm(world: &mut World, mut chance: Chance, until: Instant) -> Harm {
    let mut harm = Harm::default();
    let mut due: Vec<Due> = (0..MEMBERS).map(|_| Due::default()).collect();
    let pause = *chance.pick(&[(200, 800), (500, 2_000), (1_000, 4_000)]);
    let mut next = Instant::now();
    while Instant::now() < until {
        tokio::time::sleep(LOOK).await;
        look_after(world, &mut due, &mut harm);
        if Instant::now() >= next {
            next = Instant::now() + Duration::from_millis(chance.within(pause.0, pause.1));
            let name = strike(world, &mut chance, &mut due);
            *harm.done.entry(name).or_default() += 1;
        }
    }
    world.network.wire.set_weather(Duration::ZERO, 0);
    (0..MEMBERS).for_each(|host| world.repair(host));
    for (host, due) in due.iter_mut().enumerate() {
        *due = Due { start: (!world.network.has_process(host)).then(Instant::now), repair: None };
    }
    look_after(world, &mut due, &mut harm);
    harm
}

/// Starts what ended and repairs what is due, as a supervisor and an operator do.
fn look_after(world: &mut World, due: &mut [Due], harm: &mut Harm) {
    let now = Instant::now();
    for (host, due) in due.iter_mut().enumerate() {
        if let Some(status) = world.network.ended(host) {
            harm.ended.push(how(world, host, status));
            due.start = Some(now + RESTART_PAUSE);
        }
        if due.repair.is_some_and(|at| at <= now) {
            due.repair = None;
            world.repair(host);
        }
        if due.start.is_some_and(|at| at <= now) {
            due.start = None;
            world.start_member(host);
        }
    }
}

/// How a member ended; with its last words when that was not its own decision.
fn how(world: &World, host: usize, status: ExitStatus) -> String {
    let log = match status.signal() {
        Some(_) => world.network.log(host),
        None => String::new(),
    };
    let lines: Vec<&str> = log.lines().collect();
    let last = &lines[lines.len().saturating_sub(LAST_LINES)..];
    std::iter::once(format!("member {host}: {status}"))
        .chain(last.iter().map(|line| format!("\n  {line}")))
        .collect()
}

/// Keeps an eye on members that should all be well.
pub fn look_after_all(world: &mut World, harm: &mut Harm) {
    for host in 0..MEMBERS {
        if let Some(status) = world.network.ended(host) {
            harm.ended.push(format!("when all was well, {}", how(world, host, status)));
        }
        world.start_member(host);
    }
}

/// One thing that goes wrong, with one member in the middle; what it is called.
fn strike(world: &mut World, chance: &mut Chance, due: &mut [Due]) -> &'static str {
    let host = chance.within(0, MEMBERS as u64) as usize;
    let other = (host + chance.within(1, MEMBERS as u64) as usize) % MEMBERS;
    let now = Instant::now();
    let soon = now + Duration::from_millis(chance.within(300, 3_000));
    let kind = chance.within(0, 100);
    if !matches!(kind, 0..32) {
        due[host].repair = Some(soon);
    }
    match kind {
        0..15 => {
            world.kill(host);
            due[host].start = Some(soon);
            "kill -9"
        }
        15..25 => {
            let torn = Loss::Torn(chance.within(0, u64::MAX));
            world.power_cut(host, *chance.pick(&[Loss::All, torn]));
            due[host].start = Some(soon);
            "power cut"
        }
        25..28 => {
            for (host, due) in due.iter_mut().enumerate() {
                world.power_cut(host, Loss::All);
                due.start = Some(soon);
            }
            "power cut of all"
        }
        28..32 => {
            let (delay, loss) = (chance.within(0, 40), chance.within(0, 20) as u32);
            world.network.wire.set_weather(Duration::from_millis(delay), loss);
            "delay and loss"
        }
        32..45 => {
            world.stop(host);
            "SIGSTOP"
        }
        45..55 => {
            world.network.wire.set_link(host, false);
            "partition"
        }
        55..65 => {
            world.network.wire.set_way(host, other, false);
            "one-way partition"
        }
        65..75 => {
            let sync_delay = Duration::from_millis(chance.within(10, 400));
            world.set_disk(host, Faults { sync_delay, ..Faults::default() });
            "slow disk"
        }
        75..83 => {
            world.fill(host, chance.within(0, 1 << 20));
            "full disk"
        }
        83..90 => {
            world.set_disk(host, Faults { fail_writes: true, ..Faults::default() });
            "disk that fails"
        }
        _ => {
            let seconds = chance.within(0, 7_200) as i64 - 3_600;
            world.hosts[host].clock.set(seconds);
            "clock jump"
        }
    }
}
