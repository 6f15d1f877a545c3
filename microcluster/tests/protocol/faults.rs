//! What goes wrong, and when: the seed decides.

use std::net::IpAddr;
use std::rc::Rc;

use microcluster::message::{Message, Request};
use microcluster::record::NodeRole;

use super::links::{answer, exchange};
use super::world::{MINUTE_US, RELEASE, Recorded, World};

/// Clocks of machines that work are so near to each other.
const CLOCKS_US: u64 = 140 * 1_000_000;

/// Among so many the last that was said is.
const RECENT: usize = 8;

/// Does harm until all shall be quiet.
pub async fn harm(world: Rc<World>) {
    let (low, high) = world.form.pause_us;
    while !world.quiet.get() {
        let us = world.within(low, high);
        world.time.sleep(us).await;
        if !world.quiet.get() {
            blow(&world);
        }
    }
}

fn blow(world: &Rc<World>) {
    let count = world.machines.borrow().len() as u64;
    let number = world.within(0, count) as usize;
    match world.within(0, 100) {
        0..16 => {
            world.power_off(number);
            let us = match world.form.of_days && world.happens(300) {
                true => world.within(20, 35 * 24) * 60 * MINUTE_US,
                false => world.within(100_000, 120_000_000),
            };
            let back = world.clone();
            later(world, us, async move { back.power_on(number) });
        }
        16..28 => {
            world.note(format_args!("{number}: skiffd is killed"));
            world.kill_daemon(number);
            let (us, back) = (world.within(1_000, 3_000_000), world.clone());
            later(world, us, async move { back.start_daemon(number) });
        }
        28..45 => cut(world, number),
        45..57 => {
            let mut links = world.links.borrow_mut();
            links.heal();
            links.loss = *world.chance.borrow_mut().pick(&[0, 10, 60, 200]);
            let slow = world.within(1_000, 400_000);
            links.delay_us = (100, slow);
            world.note(format_args!("links heal, lose {}, take {slow}", links.loss));
        }
        57..70 => {
            let gone_us = world.within(100_000, 9_000_000);
            world.note(format_args!("the leader goes for {gone_us}"));
            world.ledger().change_leader(world.now_us(), gone_us);
        }
        70..76 => {
            let mut ledger = world.ledger();
            ledger.now(world.now_us());
            if !ledger.cut.remove(&number) && number >= world.form.deciders.min(2) {
                ledger.cut.insert(number);
            }
        }
        76..86 => set_clock(world, number),
        _ => move_away(world, number),
    }
}

fn later(world: &World, us: u64, work: impl Future<Output = ()> + 'static) {
    let process = world.tasks.process();
    let time = world.time.clone();
    world.tasks.spawn(process, async move {
        time.sleep(us).await;
        work.await;
    });
}

/// Cuts a machine off from all others or some, in both directions or one.
fn cut(world: &World, number: usize) {
    let (way, whom) = (world.within(0, 3), *world.chance.borrow_mut().pick(&[300, 1_000]));
    world.note(format_args!("{number}: cut off, {way} {whom}"));
    for other in 0..world.machines.borrow().len() {
        if world.happens(whom) {
            let mut links = world.links.borrow_mut();
            if way != 1 {
                links.cut(number, other);
            }
            if way != 2 {
                links.cut(other, number);
            }
        }
    }
}

/// Clocks wander; those of workers may be anywhere for a while.
fn set_clock(world: &World, number: usize) {
    let decides = world.machines.borrow()[number].role == NodeRole::ControlPlane;
    let wander = world.within(0, CLOCKS_US) as i64 - (CLOCKS_US / 2) as i64;
    let jump = world.within(0, 50 * 3_600) as i64 * 1_000_000 - 25 * 3_600_000_000;
    let offset_us = if decides || world.happens(700) { wander } else { jump };
    world.note(format_args!("{number}: its clock is {offset_us} off"));
    world.machines.borrow()[number].set_clock(offset_us);
}

/// Another lease: an address that nobody has had, or one that nobody has any more, while the record
/// may still say so. The control plane's own stay.
fn move_away(world: &World, number: usize) {
    if world.machines.borrow()[number].role == NodeRole::Worker {
        let address = world.lease();
        world.note(format_args!("{number}: has {address} from now on"));
        world.machines.borrow_mut()[number].address = address;
    }
}

/// Starts what has died, as systemd and people do.
pub async fn restart(world: Rc<World>) {
    loop {
        let is_slow = world.form.of_days && !world.quiet.get();
        world.time.sleep(if is_slow { 2 * MINUTE_US } else { 250_000 }).await;
        for (number, process) in world.falls.take() {
            world.note(format_args!("{number}: dies at a step"));
            let is_command = world.machines.borrow()[number].command == Some(process);
            match (is_command, world.happens(400)) {
                (_, true) => world.power_off(number),
                (true, false) => world.machines.borrow_mut()[number].command = None,
                (false, false) => world.kill_daemon(number),
            }
            let (us, back) = (world.within(100_000, 20_000_000), world.clone());
            later(&world, us, async move { back.power_on(number) });
        }
        world.find_removed_deciders();
    }
}

/// Somebody who has recorded requests says them again, to whomever, as whoever said them or as
/// nobody; and somebody has a copy of a node's identity from before its last renewal.
pub async fn eavesdrop(world: Rc<World>) {
    let (low, high) = world.form.pause_us;
    let mut copies: Vec<Recorded> = Vec::new();
    while !world.quiet.get() {
        let us = world.within(low / 8, high / 4);
        world.time.sleep(us).await;
        let said = {
            let recorded = world.recorded.borrow();
            if recorded.is_empty() {
                continue;
            }
            let few = recorded.len().saturating_sub(RECENT);
            let from = if world.happens(500) { few } else { 0 };
            world.pick(&recorded[from..]).clone()
        };
        if said.shown.is_some() && copies.len() < 16 {
            copies.push(said.clone());
        }
        let Some((seat, desk)) = super::people::a_desk(&world) else { continue };
        let said = match copies.is_empty() || world.happens(700) {
            true => said,
            false => {
                // Who has the key can say something new.
                let (release, sent) = (RELEASE, world.clock(seat.0));
                let bytes = Message { release, sent, request: Request::Members {} }.to_bytes();
                Recorded { bytes, ..world.pick(&copies).clone() }
            }
        };
        let as_nobody = world.happens(300);
        let said = Recorded { shown: said.shown.filter(|_| !as_nobody), ..said };
        world.count("replays");
        if world.happens(500) {
            let replay = world.clone();
            let work = async move {
                answer(&replay, &desk, &said.bytes, said.shown.as_deref()).await;
            };
            world.tasks.spawn(seat.1, work);
        } else {
            let (to, replay) = (world.machines.borrow()[seat.0].address, world.clone());
            later(&world, 0, async move {
                let _ = exchange(&replay, 0, to, &said).await;
            });
        }
    }
}

/// Everything is repaired.
pub fn repair(world: &Rc<World>) {
    world.quiet.set(true);
    world.falls.set(0);
    world.note(format_args!("all is repaired"));
    world.links.borrow_mut().heal();
    world.ledger().heal(world.now_us());
    let count = world.machines.borrow().len();
    for number in 0..count {
        let wander = world.within(0, 20_000_000) as i64 - 10_000_000;
        world.machines.borrow()[number].set_clock(wander);
        if world.form.of_days {
            // Nobody waits for an hour.
            world.power_off(number);
        }
        world.power_on(number);
    }
}

impl World {
    /// An address that no machine has now; seldom one that another worker has.
    fn lease(&self) -> IpAddr {
        if self.happens(200) {
            let machines = self.machines.borrow();
            let workers = machines.iter().filter(|m| m.role == NodeRole::Worker);
            let taken: Vec<IpAddr> = workers.map(|machine| machine.address).collect();
            return *self.pick(&taken);
        }
        let free: Vec<IpAddr> = {
            let machines = self.machines.borrow();
            let all = self.addresses.borrow();
            let is_free = |one: &&IpAddr| machines.iter().all(|m| m.address != **one);
            all.iter().filter(is_free).copied().collect()
        };
        match free.is_empty() || self.happens(600) {
            true => self.fresh_address(),
            false => *self.pick(&free),
        }
    }

    pub fn pick<'a, T>(&self, all: &'a [T]) -> &'a T {
        self.chance.borrow_mut().pick(all)
    }

    /// The datastore's member of a control-plane node that was removed is removed with it.
    fn find_removed_deciders(&self) {
        let now_us = self.now_us();
        let machines = self.machines.borrow();
        let mut ledger = self.ledger();
        for (number, machine) in machines.iter().enumerate().filter(|(_, m)| m.desk.is_some()) {
            let own = machine.disk.membership.as_ref().map(|own| own.id);
            let record = ledger.now(now_us);
            if record.zip(own).is_some_and(|(record, id)| record.member(id).is_none()) {
                ledger.out.insert(number);
            }
        }
    }
}
