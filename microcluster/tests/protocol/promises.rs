//! What must hold at every moment, judged by what the record was at each change and by what was
//! answered. Nothing of the code that is judged says what is true.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use microcluster::message::{Answer, Entered, GivenUp, Message, RefusalCode, Request, Undo};
use microcluster::protocol::Caller;
use microcluster::record::{
    ClusterRecord, Fingerprint, MemberState, MemberView, NodeId, NodeName, NodeRole, RemovalReason,
};
use microcluster::store::{Change, Key};
use microcluster::token::TokenId;
use microcluster::trust::{IssuedLeaf, PeerIdentity};

use super::leaf;

/// Broken promises that are told of one history.
const TOLD_MAX: usize = 12;

/// A node from its first change to its last, as the record had it.
pub struct Life {
    pub name: NodeName,
    pub role: NodeRole,
    token: Option<TokenId>,
    /// All that it ever had.
    pub addresses: BTreeSet<IpAddr>,
    entered_us: u64,
    pub confirmed: bool,
    pub gone_us: Option<u64>,
    /// In the order in which certificates were made for them.
    keys: Vec<Fingerprint>,
    /// Those that another one has taken the place of, and since when.
    former: BTreeMap<Fingerprint, u64>,
}

/// One request with its answer.
pub struct Visit<'a> {
    pub began_us: u64,
    pub message: &'a Message,
    pub caller: &'a Caller,
    pub answer: &'a Answer,
}

/// See the module's words.
#[derive(Default)]
pub struct Promises {
    pub broken: Vec<String>,
    pub lives: BTreeMap<NodeId, Life>,
    living: BTreeMap<NodeName, NodeId>,
    /// Which machine made a key.
    makers: BTreeMap<Fingerprint, usize>,
    pub owners: BTreeMap<NodeId, usize>,
    /// To whom a machine let the authorities' keys be sealed first.
    recipients: BTreeMap<NodeId, Option<String>>,
    undone: BTreeSet<NodeId>,
    leaves: BTreeSet<Fingerprint>,
    /// How often somebody ordered a node of this name away, and how many went for that.
    orders: BTreeMap<NodeName, (u64, u64)>,
    /// Joins that hold a use.
    holders: BTreeMap<TokenId, u32>,
}

impl Promises {
    pub fn broke(&mut self, name: &str, what: String) {
        if self.broken.len() < TOLD_MAX {
            self.broken.push(format!("{name}: {what}"));
        }
    }

    /// A machine made a key; the first one of a join names the node.
    pub fn made_key(&mut self, machine: usize, public_key: &[u8], is_own: bool) {
        self.makers.insert(Fingerprint::of(public_key), machine);
        if is_own {
            self.owners.insert(NodeId::of_key(public_key), machine);
        }
    }

    pub fn stated(&mut self, id: NodeId, recipient: Option<String>) {
        self.recipients.entry(id).or_insert(recipient);
    }

    pub fn ordered_away(&mut self, name: &NodeName) {
        self.orders.entry(name.clone()).or_default().0 += 1;
    }

    /// The record has changed to this.
    pub fn committed(&mut self, changes: &[Change], record: &ClusterRecord, now_us: u64) {
        let mut concerns_members = false;
        for change in changes {
            if let Key::Member(name) = change.key() {
                concerns_members = true;
                self.member_changed(&name, record, now_us);
            }
        }
        if concerns_members {
            self.check_members(record);
        }
        self.check_uses(record);
        if let Err(error) = record.check() {
            self.broke("record-makes-sense", error.to_string());
        }
    }

    fn member_changed(&mut self, name: &NodeName, record: &ClusterRecord, now_us: u64) {
        let now = record.members.get(name).map(|member| &member.value);
        let before = self.living.get(name).copied();
        if let Some(id) = before.filter(|id| now.is_none_or(|now| now.id != *id)) {
            self.living.remove(name);
            self.gone(id, record, now_us);
        }
        let Some(now) = now else { return };
        if before != Some(now.id) {
            self.living.insert(name.clone(), now.id);
            if self.lives.contains_key(&now.id) {
                self.broke("removed-stays-out", format!("{name} ({}) came back", now.id));
            }
            if self.undone.contains(&now.id) {
                self.broke("undone-stays-undone", format!("{name} ({}) entered after", now.id));
            }
            if let Some(token) = now.joins_with() {
                *self.holders.entry(token).or_default() += 1;
            }
            let life = Life {
                name: name.clone(),
                role: now.role,
                token: now.joins_with(),
                addresses: BTreeSet::new(),
                entered_us: now_us,
                confirmed: now.joins_with().is_none(),
                gone_us: None,
                keys: Vec::new(),
                former: BTreeMap::new(),
            };
            self.lives.insert(now.id, life);
        }
        self.leaves.extend(now.certificates.iter().map(|certificate| certificate.fingerprint));
        let Some(life) = self.lives.get_mut(&now.id) else { return };
        life.addresses.extend(now.addresses.iter().copied());
        for key in &now.keys {
            if !life.keys.contains(key) {
                life.keys.push(*key);
            }
        }
        let joins = matches!(now.state, MemberState::Joining { .. });
        if joins && life.confirmed {
            self.broke("members-stay-members", format!("{name} joins again"));
        } else {
            life.confirmed = !joins;
        }
    }

    fn gone(&mut self, id: NodeId, record: &ClusterRecord, now_us: u64) {
        let Some(life) = self.lives.get_mut(&id) else { return };
        life.gone_us = Some(now_us);
        let name = life.name.clone();
        if let Some(token) = life.token.filter(|_| !life.confirmed)
            && let Some(holders) = self.holders.get_mut(&token)
        {
            *holders = holders.saturating_sub(1);
        }
        let Some(removed) = record.removed.get(&id) else {
            self.broke("removed-leaves-a-line", format!("{name} ({id}) went without one"));
            return;
        };
        if removed.value.reason == RemovalReason::Removed {
            let (orders, gone) = self.orders.entry(name.clone()).or_default();
            *gone += 1;
            if gone > orders {
                let what = format!("{gone} nodes {name} went for {orders} orders");
                self.broke("one-order-removes-one-node", what);
            }
        }
    }

    fn check_members(&mut self, record: &ClusterRecord) {
        let (mut addresses, mut ids) = (BTreeSet::new(), BTreeSet::new());
        let mut deciders = 0;
        for member in record.living() {
            if !ids.insert(member.id) {
                self.broke("one-node-once", format!("{} is there twice", member.id));
            }
            for address in &member.addresses {
                if !addresses.insert(*address) {
                    let what = format!("{address} of {} is another's, too", member.name);
                    self.broke("an-address-is-ones-own", what);
                }
            }
            let decides = member.role == NodeRole::ControlPlane;
            deciders += u32::from(decides && matches!(member.state, MemberState::Member));
        }
        if deciders == 0 {
            self.broke("a-control-plane-stays", "nobody is left who decides".into());
        }
    }

    fn check_uses(&mut self, record: &ClusterRecord) {
        let mut wrong = Vec::new();
        for (id, token) in &record.tokens {
            let (uses, left) = (token.value.uses, token.value.uses_left);
            let held = self.holders.get(id).copied().unwrap_or_default();
            if held > uses {
                wrong.push(("uses-are-never-exceeded", format!("{id}: {held} of {uses}")));
            } else if uses.saturating_sub(left) != held {
                let what = format!("{id}: {held} hold one, and {left} of {uses} are left");
                wrong.push(("uses-are-counted", what));
            }
        }
        for (name, what) in wrong {
            self.broke(name, what);
        }
    }

    /// Somebody was answered; `record` is as it was then.
    pub fn answered(&mut self, visit: &Visit<'_>, record: Option<&ClusterRecord>, now_us: u64) {
        if let Caller::Node(identity) = visit.caller {
            self.check_standing(visit, identity, record);
        }
        let id = |caller: &Caller| match caller {
            Caller::Node(identity) | Caller::Former(identity) => Some(identity.id),
            Caller::Stranger => None,
        };
        match visit.answer {
            Answer::Entered(entered) => self.check_entered(visit, entered),
            Answer::Renewed(renewed) => {
                if let Caller::Node(identity) = visit.caller {
                    self.check_leaves(identity.id, &renewed.leaves);
                    self.supersede(identity, now_us);
                }
            }
            Answer::Confirmed {} => {
                let life = id(visit.caller).and_then(|id| self.lives.get(&id));
                if life.is_none_or(|life| !life.confirmed) {
                    self.broke("what-was-answered-is-so", "confirmed, and is no member".into());
                }
            }
            Answer::Undone {} => self.check_undone(visit, record),
            Answer::Members { members, .. } => self.check_list(visit, members),
            _ => {}
        }
    }

    fn check_standing(
        &mut self,
        visit: &Visit<'_>,
        identity: &PeerIdentity,
        record: Option<&ClusterRecord>,
    ) {
        let Some(life) = self.lives.get(&identity.id) else { return };
        let what = format!("{} ({}): {:?}", identity.name, identity.id, kind(visit.message));
        let has_key = |record: &ClusterRecord| {
            let member = record.members.get(&life.name).map(|member| &member.value);
            member.is_some_and(|m| m.id == identity.id && m.keys.contains(&identity.key))
        };
        match visit.answer {
            // Said again, these are done already.
            Answer::Undone {} | Answer::Leaving(_) | Answer::Keys { .. } => {}
            Answer::Refused(refusal) => {
                let out = matches!(refusal.code, RefusalCode::Removed | RefusalCode::NotMember);
                if out && life.confirmed && record.is_some_and(has_key) {
                    self.broke("members-are-believed", format!("{what}: {refusal}"));
                }
            }
            _ if life.gone_us.is_some_and(|gone_us| gone_us <= visit.began_us) => {
                self.broke("removed-is-not-believed", what);
            }
            _ if life.former.get(&identity.key).is_some_and(|since| *since <= visit.began_us) => {
                self.broke("former-keys-are-not-believed", what);
            }
            _ => {}
        }
    }

    /// A renewal shows a key: whatever came before it is over.
    fn supersede(&mut self, identity: &PeerIdentity, now_us: u64) {
        let Some(life) = self.lives.get_mut(&identity.id) else { return };
        let before = life.keys.iter().take_while(|key| **key != identity.key);
        for key in before {
            life.former.entry(*key).or_insert(now_us);
        }
    }

    fn check_entered(&mut self, visit: &Visit<'_>, entered: &Entered) {
        let id = entered.id;
        let Some(life) = self.lives.get(&id) else {
            self.broke("what-was-answered-is-so", format!("{} entered, nowhere", entered.name));
            return;
        };
        let is_same = life.name == entered.name && life.role == entered.role;
        let is_gone = life.gone_us.is_some_and(|gone_us| gone_us <= visit.began_us);
        let sealed = match self.recipients.get(&id) {
            Some(Some(recipient)) if life.role == NodeRole::ControlPlane => {
                entered.sealed.as_deref() == Some(&*format!("sealed to {recipient}"))
            }
            _ => life.role == NodeRole::Worker && entered.sealed.is_none(),
        };
        let (name, role) = (entered.name.clone(), life.role);
        if !is_same || is_gone {
            self.broke("what-was-answered-is-so", format!("{name} entered as {role}"));
        }
        if !sealed {
            self.broke("keys-go-to-whom-they-are-for", format!("{name}, {role}"));
        }
        self.check_leaves(id, &entered.leaves);
    }

    fn check_leaves(&mut self, id: NodeId, leaves: &[IssuedLeaf]) {
        let mut wrong = Vec::new();
        for issued in leaves {
            let Some(life) = self.lives.get(&id) else { return };
            let what = format!("{} for {} ({id})", issued.purpose, life.name);
            if !self.leaves.contains(&issued.fingerprint) {
                wrong.push(("every-leaf-is-known", what.clone()));
            }
            match leaf::check(issued, id, life) {
                Ok(key) if self.makers.get(&key) != self.owners.get(&id) => {
                    wrong.push(("a-name-goes-to-its-node-only", format!("{what}: foreign key")));
                }
                Ok(_) => {}
                Err(why) => wrong.push(("a-name-goes-to-its-node-only", format!("{what}: {why}"))),
            }
        }
        for (name, what) in wrong {
            self.broke(name, what);
        }
    }

    fn check_undone(&mut self, visit: &Visit<'_>, record: Option<&ClusterRecord>) {
        let id = match &visit.message.request {
            Request::Undo(Undo::Proven(proven)) => {
                serde_json::from_str::<GivenUp>(&proven.statement).ok().map(|stated| stated.id)
            }
            _ => match visit.caller {
                Caller::Node(identity) | Caller::Former(identity) => Some(identity.id),
                Caller::Stranger => None,
            },
        };
        let Some(id) = id else { return };
        self.undone.insert(id);
        if record.is_some_and(|record| record.member(id).is_some()) {
            self.broke("what-was-answered-is-so", format!("{id} is undone, and is there"));
        }
    }

    /// What is told is the record of one moment between question and answer.
    fn check_list(&mut self, visit: &Visit<'_>, members: &[MemberView]) {
        let told: BTreeSet<NodeId> = members.iter().map(|member| member.id).collect();
        let mut wrong = Vec::new();
        for (id, life) in &self.lives {
            let was_gone = life.gone_us.is_some_and(|gone_us| gone_us <= visit.began_us);
            let was_there = life.gone_us.is_none() && life.entered_us <= visit.began_us;
            if (was_gone && told.contains(id)) || (was_there && !told.contains(id)) {
                wrong.push(format!("{}: was gone {was_gone}, was there {was_there}", life.name));
            }
        }
        for what in wrong {
            self.broke("lists-are-true", what);
        }
    }
}

fn kind(message: &Message) -> &'static str {
    match &message.request {
        Request::Ask(_) => "ask",
        Request::Enter(_) => "enter",
        Request::Confirm {} => "confirm",
        Request::Undo(_) => "undo",
        Request::Renew(_) => "renew",
        Request::Members {} => "members",
        Request::Leave(_) => "leave",
        Request::Keys { .. } => "keys",
    }
}
