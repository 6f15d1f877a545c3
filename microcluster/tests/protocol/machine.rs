//! A machine: what its disk holds, as `src/node/cluster/membership.rs` keeps it, and what runs.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use microcluster::desk::{Clock, Desk};
use microcluster::record::{MemberView, NodeId, NodeName, NodeRole};
use microcluster::token::JoinToken;
use microcluster::trust::Purpose;
use time::{Duration, OffsetDateTime};
use tokio::sync::Notify;

use super::executor::{Process, Time};
use super::keys::SimSigner;
use super::store::SimStore;
use super::world::BEGINNING;

/// Production's desk, on what a history has.
pub type SimDesk = Desk<SimStore, SimSigner, SimClock>;

/// A machine's clock: the history's, and how far off it is.
#[derive(Clone)]
pub struct SimClock {
    pub time: Time,
    pub offset_us: Arc<AtomicI64>,
}

impl Clock for SimClock {
    fn now(&self) -> OffsetDateTime {
        let offset_us = self.offset_us.load(Ordering::Relaxed);
        BEGINNING + Duration::microseconds(self.time.now_us() as i64 + offset_us)
    }
}

/// How far a node belongs to its cluster, by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    Joining,
    Member,
}

/// `membership.json`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Membership {
    pub name: NodeName,
    pub id: NodeId,
    pub role: NodeRole,
    pub stage: Stage,
    pub members: Vec<MemberView>,
    pub endpoints: Vec<IpAddr>,
}

/// `join.json`.
#[derive(Clone)]
pub struct Begun {
    pub token: JoinToken,
    pub id: NodeId,
}

/// `leave.json`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Moving,
    Going,
    Gone,
}

/// A certificate with its key, in one file.
#[derive(Clone)]
pub struct Leaf {
    pub der: Vec<u8>,
    pub key: usize,
    pub not_before: OffsetDateTime,
    pub not_after: OffsetDateTime,
    /// The key beside the certificate is its own.
    pub fits: bool,
}

/// What survives a crash.
#[derive(Clone, Default)]
pub struct Disk {
    pub begun: Option<Begun>,
    pub membership: Option<Membership>,
    /// Of the node with this id.
    pub departure: Option<(NodeId, Step)>,
    pub leaves: BTreeMap<Purpose, Leaf>,
}

/// Where a join stands, by what lies on the disk.
pub enum Stand {
    Free,
    CutOff(Begun),
    Settled,
    Member(NodeRole),
}

/// See the module's words.
pub struct Machine {
    pub name: String,
    pub role: NodeRole,
    pub address: IpAddr,
    pub clock: Arc<AtomicI64>,
    pub disk: Disk,
    pub is_on: bool,
    pub command: Option<Process>,
    pub daemon: Option<Process>,
    pub desk: Option<Rc<SimDesk>>,
    /// Ctrl-C.
    pub interrupt: Rc<Notify>,
    /// When its daemons are ready.
    pub ready_us: u64,
    /// It was told that it is no member any more.
    pub is_told: bool,
    /// Somebody wants it to be as new.
    pub is_resetting: bool,
    /// When it was last told who belongs to the cluster.
    pub heard_us: u64,
    /// Nodes that it was, whose end the cluster could not be told.
    pub untold: Vec<NodeId>,
    /// When the keeper was run here.
    pub kept_us: u64,
}

impl Machine {
    pub fn new(name: String, role: NodeRole, address: IpAddr) -> Self {
        Self {
            name,
            role,
            address,
            clock: Arc::default(),
            disk: Disk::default(),
            is_on: true,
            command: None,
            daemon: None,
            desk: None,
            interrupt: Rc::default(),
            ready_us: 0,
            is_told: false,
            is_resetting: false,
            heard_us: 0,
            untold: Vec::new(),
            kept_us: 0,
        }
    }

    pub fn offset_us(&self) -> i64 {
        self.clock.load(Ordering::Relaxed)
    }

    pub fn set_clock(&self, offset_us: i64) {
        self.clock.store(offset_us, Ordering::Relaxed);
    }

    pub fn stand(&self) -> Stand {
        match (&self.disk.membership, &self.disk.begun) {
            (Some(membership), _) if membership.stage == Stage::Member => {
                Stand::Member(membership.role)
            }
            (Some(_), _) => Stand::Settled,
            (None, Some(begun)) => Stand::CutOff(begun.clone()),
            (None, None) => Stand::Free,
        }
    }

    /// How far the node has left its cluster.
    pub fn step(&self) -> Option<Step> {
        let (own, (id, step)) = (self.disk.membership.as_ref()?, self.disk.departure?);
        (own.id == id).then_some(step)
    }

    /// Whom to ask: the control plane as last heard of, then where the token said that it is.
    pub fn addresses(&self) -> Vec<IpAddr> {
        let Some(membership) = &self.disk.membership else { return vec![] };
        let mut all = Vec::new();
        let decides = |member: &&MemberView| member.role == NodeRole::ControlPlane;
        let known = membership.members.iter().filter(decides).flat_map(|m| m.addresses.clone());
        for address in known.chain(membership.endpoints.iter().copied()) {
            if !all.contains(&address) && address != self.address {
                all.push(address);
            }
        }
        all
    }

    /// The certificate that it shows at 7443, if it has the key.
    pub fn shown(&self) -> Option<Vec<u8>> {
        let leaf = self.disk.leaves.get(&Purpose::Node)?;
        leaf.fits.then(|| leaf.der.clone())
    }
}
