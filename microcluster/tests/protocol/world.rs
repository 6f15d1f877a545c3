//! One history's machines, links, record and clock, and what all of its tasks use.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard};

use microcluster::desk::Desk;
use microcluster::record::NodeRole;
use microcluster::token::JoinToken;
use microcluster::trust::Purpose;
use microcluster::version::Version;
use time::macros::datetime;
use time::{Duration, OffsetDateTime};

use super::chance::Chance;
use super::daemon;
use super::executor::{Tasks, Time};
use super::form::Form;
use super::keys::{self, SimSigner};
use super::ledger::Ledger;
use super::links::Links;
use super::machine::{Disk, Machine, SimClock, SimDesk, Stage};
use super::plant::Plant;
use super::store::{Falls, Seat, SimStore};
use super::trace::Trace;

pub const BEGINNING: OffsetDateTime = datetime!(2026-11-27 12:00 UTC);
pub const RELEASE: Version = Version::new(0, 2, 0);
pub const KUBERNETES: Version = Version::new(1, 36, 3);
pub const MINUTE_US: u64 = 60_000_000;

/// A token in somebody's hands.
#[derive(Clone)]
pub struct Handed {
    pub token: JoinToken,
    pub role: NodeRole,
}

/// What somebody has recorded of a request.
#[derive(Clone)]
pub struct Recorded {
    pub bytes: Vec<u8>,
    pub shown: Option<Vec<u8>>,
}

/// See the module's words.
pub struct World {
    pub time: Time,
    pub tasks: Tasks,
    pub ledger: Arc<Mutex<Ledger>>,
    pub falls: Falls,
    pub links: RefCell<Links>,
    pub machines: RefCell<Vec<Machine>>,
    pub chance: RefCell<Chance>,
    pub trace: Trace,
    pub form: Form,
    pub plant: Option<Plant>,
    pub signer: SimSigner,
    pub handed: RefCell<Vec<Handed>>,
    pub recorded: RefCell<Vec<Recorded>>,
    pub counts: RefCell<BTreeMap<&'static str, u64>>,
    /// Harm and whims are over.
    pub quiet: Cell<bool>,
    next_key: Cell<usize>,
    /// All that any machine has had.
    pub addresses: RefCell<Vec<IpAddr>>,
}

impl World {
    pub fn new(
        (time, tasks): (Time, Tasks),
        form: Form,
        ledger: Ledger,
        chances: (Chance, Chance, Chance),
        trace: Trace,
    ) -> Rc<Self> {
        let plant = ledger.plant;
        let (chance, of_links, of_falls) = chances;
        Rc::new(Self {
            time,
            tasks,
            ledger: Arc::new(Mutex::new(ledger)),
            falls: Falls::new(of_falls),
            links: RefCell::new(Links::new(of_links)),
            machines: RefCell::default(),
            chance: RefCell::new(chance),
            trace,
            form,
            plant,
            signer: SimSigner { plant, last: Arc::default() },
            handed: RefCell::default(),
            recorded: RefCell::default(),
            counts: RefCell::default(),
            quiet: Cell::new(false),
            next_key: Cell::new(0),
            addresses: RefCell::default(),
        })
    }

    pub fn now_us(&self) -> u64 {
        self.time.now_us()
    }

    pub fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap()
    }

    /// What a machine's clock says.
    pub fn clock(&self, number: usize) -> OffsetDateTime {
        let offset_us = self.machines.borrow()[number].offset_us();
        BEGINNING + Duration::microseconds(self.now_us() as i64 + offset_us)
    }

    pub fn note(&self, what: fmt::Arguments<'_>) {
        self.trace.note(self.now_us(), what);
    }

    pub fn count(&self, what: &'static str) {
        *self.counts.borrow_mut().entry(what).or_default() += 1;
    }

    pub fn within(&self, low: u64, high: u64) -> u64 {
        self.chance.borrow_mut().within(low, high)
    }

    pub fn happens(&self, per_mille: u64) -> bool {
        self.chance.borrow_mut().happens(per_mille)
    }

    /// An address that no machine has had.
    pub fn fresh_address(&self) -> IpAddr {
        let mut addresses = self.addresses.borrow_mut();
        let number = addresses.len() as u16 + 1;
        let [high, low] = number.to_be_bytes();
        addresses.push([172, 16, high, low].into());
        [172, 16, high, low].into()
    }

    /// A key that no machine has had, which this one makes.
    pub fn new_key(&self, number: usize, purpose: Purpose) -> usize {
        let key = self.next_key.get();
        self.next_key.set(key + 1);
        let made = &keys::key(key).public_key;
        self.ledger().promises.made_key(number, made, purpose == Purpose::Node);
        key
    }

    /// Changes the disk in one step; the process may die before it and after it.
    pub async fn write(
        &self,
        seat: Seat,
        (before, after): (&'static str, &'static str),
        change: impl FnOnce(&mut Disk),
    ) {
        self.falls.step(&self.time, seat, before).await;
        change(&mut self.machines.borrow_mut()[seat.0].disk);
        self.time.sleep(1_000).await;
        self.falls.step(&self.time, seat, after).await;
    }

    /// Starts skiffd, unless it runs, or there is nothing for it to do.
    pub fn start_daemon(self: &Rc<Self>, number: usize) {
        let mut machines = self.machines.borrow_mut();
        let machine = &mut machines[number];
        if !machine.is_on || machine.daemon.is_some() || machine.disk.membership.is_none() {
            return;
        }
        let process = self.tasks.process();
        machine.daemon = Some(process);
        machine.ready_us = self.now_us() + self.within(500_000, 20_000_000);
        drop(machines);
        self.note(format_args!("{number}: skiffd starts"));
        self.open_desk((number, process));
        self.tasks.spawn(process, daemon::run(self.clone(), (number, process)));
    }

    /// A control-plane node that is a member decides.
    pub fn open_desk(&self, seat: Seat) {
        let mut machines = self.machines.borrow_mut();
        let machine = &mut machines[seat.0];
        let decides = machine.disk.membership.as_ref().is_some_and(|membership| {
            membership.role == NodeRole::ControlPlane && membership.stage == Stage::Member
        });
        if !decides || machine.desk.is_some() {
            return;
        }
        let (ledger, falls) = (self.ledger.clone(), self.falls.clone());
        let store = SimStore { ledger, time: self.time.clone(), falls, seat };
        let clock = SimClock { time: self.time.clone(), offset_us: machine.clock.clone() };
        let desk: SimDesk = Desk::new(store, self.signer.clone(), clock, RELEASE);
        machine.desk = Some(Rc::new(desk));
    }

    /// Ends skiffd as `kill -9` does.
    pub fn kill_daemon(&self, number: usize) {
        let mut machines = self.machines.borrow_mut();
        machines[number].desk = None;
        if let Some(process) = machines[number].daemon.take() {
            self.time.kill(process);
        }
    }

    /// Pulls the plug.
    pub fn power_off(&self, number: usize) {
        self.kill_daemon(number);
        let mut machines = self.machines.borrow_mut();
        machines[number].is_on = false;
        if let Some(process) = machines[number].command.take() {
            self.time.kill(process);
        }
        drop(machines);
        self.note(format_args!("{number}: power off"));
    }

    /// And the machine boots.
    pub fn power_on(self: &Rc<Self>, number: usize) {
        self.machines.borrow_mut()[number].is_on = true;
        self.note(format_args!("{number}: power on"));
        self.start_daemon(number);
    }

    /// Who answers at an address.
    pub fn at(&self, address: IpAddr) -> Option<usize> {
        self.machines.borrow().iter().position(|m| m.address == address && m.is_on)
    }
}
