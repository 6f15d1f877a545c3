//! The modelled nodes together: raft's messages over the links, entries over
//! disks, and committed entries into SQLite.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use dqlite::model::{Database, Failed, Ran, Table};
use dqlite::{Role as Vote, Value};
use skiff_datastore::Revision;
use skiff_datastore::store::{LogRow, Sequence};
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::Instant;

use super::links::Links;
use super::plant::Plant;
use super::raft::{Command, Entry, Members, Message, Out, Raft, Role};
use super::trace::Trace;
use datastore_history::chance::Chance;

/// How often raft looks at its clock.
const TICK: Duration = Duration::from_millis(15);

/// What becomes of an entry.
#[derive(Debug)]
pub enum Fate {
    Done(Result<Ran, Failed>),
    /// Its leader lost leadership before it was committed.
    Lost,
}

/// Why a statement is not run.
#[derive(Debug)]
pub enum Refusal {
    NotLeader,
    /// The statement before is not committed yet.
    Busy,
    /// The leader has yet to prove that it leads.
    NotReady,
    Sql(Failed),
}

/// What a proposal gives.
pub enum Proposed {
    /// Nothing changes, so nothing is replicated.
    Unchanged(Ran),
    Waits(oneshot::Receiver<Fate>),
}

struct Member {
    raft: Raft,
    incarnation: u64,
    killed: watch::Sender<bool>,
    /// Whether its process hears its node.
    awake: watch::Sender<bool>,
    disk_us: (u64, u64),
    database: Database,
    applied: u64,
    waiting: BTreeMap<u64, (u64, oneshot::Sender<Fate>)>,
}

enum Event {
    Message { from: u64, to: u64, message: Message },
    Synced { at: u64, incarnation: u64, length: u64, generation: u64 },
    Tick { at: u64, incarnation: u64 },
}

struct State {
    members: BTreeMap<u64, Member>,
    events: BTreeMap<(Instant, u64), Event>,
    count: u64,
    links: Arc<Links>,
    chance: Chance,
    plant: Option<Plant>,
    trace: Trace,
    /// Rows that were committed, and the entries that were.
    rows: BTreeMap<i64, LogRow>,
    committed: BTreeMap<u64, Entry>,
    violations: Vec<String>,
}

/// See the module's words.
pub struct Cluster {
    state: Mutex<State>,
    changed: Notify,
}

impl Cluster {
    /// Members that run, with empty disks.
    pub fn start(
        roles: Members,
        links: Arc<Links>,
        mut chance: Chance,
        plant: Option<Plant>,
        trace: Trace,
    ) -> Arc<Cluster> {
        let mut members = BTreeMap::new();
        for id in roles.keys() {
            let chance = Chance::new(chance.within(0, u64::MAX), *id);
            let member = Member {
                raft: Raft::new(*id, roles.clone(), chance, plant),
                incarnation: 0,
                killed: watch::channel(true).0,
                awake: watch::channel(true).0,
                disk_us: (50, 1_500),
                database: Database::open().expect("memory is there"),
                applied: 0,
                waiting: BTreeMap::new(),
            };
            members.insert(*id, member);
        }
        let state = State {
            members,
            events: BTreeMap::new(),
            count: 0,
            links,
            chance,
            plant,
            trace,
            rows: BTreeMap::new(),
            committed: BTreeMap::new(),
            violations: Vec::new(),
        };
        let cluster = Arc::new(Cluster { state: Mutex::new(state), changed: Notify::new() });
        tokio::spawn(drive(cluster.clone()));
        cluster
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Starts the process of a member; which one of it, and when it dies.
    pub fn boot(&self, id: u64) -> (u64, watch::Receiver<bool>) {
        let mut state = self.state();
        let member = state.member(id);
        member.incarnation += 1;
        member.killed = watch::channel(false).0;
        member.awake.send_replace(true);
        member.raft.restart();
        let booted = (member.incarnation, member.killed.subscribe());
        let incarnation = booted.0;
        state.after(TICK, Event::Tick { at: id, incarnation });
        self.changed.notify_one();
        booted
    }

    /// Ends a process at once, and what its disk had not written with it.
    pub fn kill(&self, id: u64) {
        let mut state = self.state();
        let member = state.member(id);
        member.incarnation += 1;
        member.killed.send_replace(true);
        member.raft.crash();
        member.database = Database::open().expect("memory is there");
        member.applied = 0;
        member.waiting.clear();
    }

    /// Has a process hear nothing of its node, whose raft goes on, or hear it again:
    /// in production raft has a thread of its own.
    pub fn set_awake(&self, id: u64, awake: bool) {
        self.state().member(id).awake.send_replace(awake);
    }

    /// Waits until the process of a member hears its node.
    pub async fn awake(&self, id: u64) {
        let mut awake = self.state().member(id).awake.subscribe();
        // The sender lives as long as the cluster.
        let _ = awake.wait_for(|awake| *awake).await;
    }

    /// How long a disk takes.
    pub fn set_disk(&self, id: u64, disk_us: (u64, u64)) {
        self.state().member(id).disk_us = disk_us;
    }

    /// Who leads, as a member knows.
    pub fn leader(&self, id: u64) -> Option<u64> {
        self.state().member(id).raft.leader
    }

    /// The term in which a member leads.
    pub fn leads(&self, id: u64) -> Option<u64> {
        let mut state = self.state();
        let raft = &state.member(id).raft;
        (raft.role == Role::Leader).then_some(raft.term)
    }

    /// Gives leadership away; whether that could be tried.
    pub fn transfer(&self, id: u64, to: u64) -> bool {
        let mut state = self.state();
        let raft = &mut state.member(id).raft;
        let tried = raft.role == Role::Leader && raft.transfer(to);
        state.settle(id);
        self.changed.notify_one();
        tried
    }

    /// Who there is, and whether it votes, as a member knows.
    pub fn members(&self, id: u64) -> Members {
        self.state().member(id).raft.members()
    }

    /// Gives a member a role, if this one leads and that can be tried now.
    pub fn assign(&self, id: u64, to: u64, role: Vote) -> Option<oneshot::Receiver<Fate>> {
        let mut state = self.state();
        let member = state.member(id);
        member.check().ok()?;
        let term = member.raft.term;
        let index = member.raft.assign(to, role)?;
        let (reply, fate) = oneshot::channel();
        member.waiting.insert(index, (term, reply));
        state.trace.note(format!("{to} is to be a {role:?}"));
        state.settle(id);
        self.changed.notify_one();
        Some(fate)
    }

    /// Runs a query on the leader's own database, as libdqlite does: whether
    /// somebody else leads by now is not asked.
    pub fn query(&self, id: u64, sql: &str, values: &[Value]) -> Result<Table, Refusal> {
        let mut state = self.state();
        let member = state.member(id);
        member.check()?;
        member.database.query(sql, values).map_err(Refusal::Sql)
    }

    /// How many parameters a statement takes.
    pub fn parameters(&self, id: u64, sql: &str) -> Result<u64, Refusal> {
        let mut state = self.state();
        let member = state.member(id);
        member.check()?;
        member.database.parameters(sql).map_err(Refusal::Sql)
    }

    /// Tries statements on the leader, and replicates them if they change anything.
    pub fn propose(&self, id: u64, sql: &str, values: &[Value]) -> Result<Proposed, Refusal> {
        let mut state = self.state();
        let plant = state.plant;
        let member = state.member(id);
        member.check()?;
        if member.raft.is_giving() {
            return Err(Refusal::NotLeader);
        }
        if !member.waiting.is_empty() {
            return Err(Refusal::Busy);
        }
        let ran = member.database.run(sql, values, true).map_err(Refusal::Sql)?;
        let is_forgotten = plant == Some(Plant::EmptyBarrier) && sql.starts_with("UPDATE barrier");
        if !ran.changed || is_forgotten {
            return Ok(Proposed::Unchanged(ran));
        }
        let (reply, fate) = oneshot::channel();
        let command = Command::Sql { sql: sql.into(), values: values.into() };
        let term = member.raft.term;
        let index = member.raft.propose(command);
        member.waiting.insert(index, (term, reply));
        state.settle(id);
        self.changed.notify_one();
        if plant == Some(Plant::AnswerBeforeCommit) {
            return Ok(Proposed::Unchanged(ran));
        }
        Ok(Proposed::Waits(fate))
    }

    /// What was committed, in order.
    pub fn rows(&self) -> Vec<LogRow> {
        self.state().rows.values().cloned().collect()
    }

    /// What raft itself did wrong.
    pub fn violations(&self) -> Vec<String> {
        self.state().violations.clone()
    }
}

impl Member {
    fn check(&self) -> Result<(), Refusal> {
        if self.raft.role != Role::Leader {
            return Err(Refusal::NotLeader);
        }
        // A new leader answers when its whole log is committed and applied.
        let committed = self.raft.commit.checked_sub(1).map(|at| &self.raft.log[at as usize]);
        let proven = committed.is_some_and(|entry| entry.term == self.raft.term);
        if proven && self.applied == self.raft.commit { Ok(()) } else { Err(Refusal::NotReady) }
    }
}

impl State {
    fn member(&mut self, id: u64) -> &mut Member {
        self.members.get_mut(&id).expect("there are as many members as at the start")
    }

    fn after(&mut self, delay: Duration, event: Event) {
        self.count += 1;
        self.events.insert((Instant::now() + delay, self.count), event);
    }

    /// Does what a member's raft wants.
    fn settle(&mut self, id: u64) {
        let (outs, incarnation, disk_us) = {
            let member = self.member(id);
            (member.raft.take(), member.incarnation, member.disk_us)
        };
        for out in outs {
            match out {
                Out::Send(to, message) => {
                    if let Some(delay) = self.links.datagram(id, to) {
                        self.after(delay, Event::Message { from: id, to, message });
                    }
                }
                Out::Sync(length, generation) => {
                    let delay = self.chance.time_us(disk_us.0, disk_us.1);
                    self.after(delay, Event::Synced { at: id, incarnation, length, generation });
                }
                Out::Deposed => {
                    self.trace.note(format!("raft {id} leads no more"));
                    for (_, reply) in std::mem::take(&mut self.member(id).waiting).into_values() {
                        let _ = reply.send(Fate::Lost);
                    }
                }
            }
        }
        self.apply(id);
    }

    /// A leader's database takes in what is committed. Others do when they lead.
    fn apply(&mut self, id: u64) {
        let member = self.members.get_mut(&id).expect("the member is there");
        while member.raft.role == Role::Leader && member.applied < member.raft.commit {
            member.applied += 1;
            let index = member.applied;
            let entry = member.raft.log[index as usize - 1].clone();
            let first = self.committed.entry(index).or_insert_with(|| entry.clone());
            if !first.is(&entry) {
                let text = format!("entry {index} of term {} is another one", first.term);
                self.violations.push(format!("committed-entries-stay: {text}"));
            }
            let ran = match entry.command {
                Command::Sql { sql, values } => {
                    let ran = member.database.run(&sql, &values, false);
                    let row = row_of(&sql, &values);
                    if let (Ok(Ran { rows_affected: 1, .. }), Some(row)) = (&ran, row) {
                        self.rows.entry(row.sequence.0).or_insert(row);
                    }
                    ran
                }
                Command::Nothing | Command::Members(_) => Ok(NOTHING),
            };
            if let Some((_, reply)) = member.waiting.remove(&index) {
                let _ = reply.send(Fate::Done(ran));
            }
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Message { from, to, message } => {
                let member = self.member(to);
                if *member.killed.borrow() {
                    return;
                }
                let former = (member.raft.role, member.raft.term);
                member.raft.receive(from, message);
                if member.raft.role == Role::Leader && former.0 != Role::Leader {
                    let term = member.raft.term;
                    self.trace.note(format!("raft {to} leads in term {term}"));
                }
                self.settle(to);
            }
            Event::Synced { at, incarnation, length, generation } => {
                let member = self.member(at);
                if member.incarnation == incarnation {
                    member.raft.synced(length, generation);
                    self.settle(at);
                }
            }
            Event::Tick { at, incarnation } => {
                let member = self.member(at);
                if member.incarnation == incarnation {
                    member.raft.tick();
                    self.settle(at);
                    self.after(TICK, Event::Tick { at, incarnation });
                }
            }
        }
    }
}

/// What an entry does that is no statement.
const NOTHING: Ran = Ran { last_insert_id: 0, rows_affected: 0, changed: true };

/// The row of the log that a statement writes, if it is that statement.
fn row_of(sql: &str, values: &[Value]) -> Option<LogRow> {
    if !sql.starts_with("INSERT INTO log") {
        return None;
    }
    let [
        Value::Integer(sequence),
        Value::Integer(first),
        Value::Integer(last),
        Value::Blob(data),
        ..,
    ] = values
    else {
        return None;
    };
    Some(LogRow {
        sequence: Sequence(*sequence),
        first: Revision(*first),
        last: Revision(*last),
        data: data.to_vec(),
    })
}

/// Lets events happen, in order.
async fn drive(cluster: Arc<Cluster>) {
    loop {
        let next = {
            let mut state = cluster.state();
            while let Some(entry) = state.events.first_entry() {
                if entry.key().0 > Instant::now() {
                    break;
                }
                let event = entry.remove();
                state.handle(event);
            }
            state.events.first_key_value().map(|((at, _), _)| *at)
        };
        match next {
            Some(at) => tokio::select! {
                biased;
                () = cluster.changed.notified() => {}
                () = tokio::time::sleep_until(at) => {}
            },
            None => cluster.changed.notified().await,
        }
    }
}
