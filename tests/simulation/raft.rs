//! Raft as libdqlite does it, as far as a datastore can tell: a pure machine
//! from ticks and messages to messages. Pre-votes, a leader that steps down
//! without a majority's word, transfer of leadership, a log on disk, and roles,
//! which change one at a time by entries of the log.
//!
//! What is left out: snapshots (the log stays whole), and members that are added
//! or removed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use dqlite::{Role as Vote, Value};
use tokio::time::Instant;

use super::plant::Plant;
use datastore_history::chance::Chance;

/// What libdqlite makes of a latency of 20 ms.
const HEARTBEAT: Duration = Duration::from_millis(30);
const ELECTION: Duration = Duration::from_millis(300);
/// Entries in one message.
const ENTRIES_MAX: usize = 64;
/// A member that lacks no more than so many entries may vote.
const LAG_MAX: u64 = 16;

/// What an entry does.
#[derive(Clone, Debug)]
pub enum Command {
    /// Proves that its leader leads.
    Nothing,
    Sql {
        sql: Arc<str>,
        values: Arc<[Value]>,
    },
    /// Counts from the moment that it stands in a log, committed or not.
    Members(Members),
}

/// Who there is, and whether it votes.
pub type Members = Arc<BTreeMap<u64, Vote>>;

/// An entry of the log.
#[derive(Clone, Debug)]
pub struct Entry {
    pub term: u64,
    pub command: Command,
}

impl Entry {
    /// Whether that is the very same, wherever it is kept.
    pub fn is(&self, other: &Entry) -> bool {
        let is_same = match (&self.command, &other.command) {
            (Command::Nothing, Command::Nothing) => true,
            (Command::Sql { values, .. }, Command::Sql { values: others, .. }) => {
                Arc::ptr_eq(values, others)
            }
            (Command::Members(members), Command::Members(others)) => Arc::ptr_eq(members, others),
            _ => false,
        };
        is_same && self.term == other.term
    }
}

/// A place in the log: its term, its index from 1.
type Place = (u64, u64);

/// What members say to each other.
#[derive(Clone, Debug)]
pub enum Message {
    Vote {
        term: u64,
        last: Place,
        pre: bool,
        disrupts: bool,
    },
    Voted {
        term: u64,
        granted: bool,
        pre: bool,
    },
    Append {
        term: u64,
        previous: Place,
        entries: Vec<Entry>,
        commit: u64,
    },
    /// Up to where the logs are the same, or from where to try again.
    Appended {
        term: u64,
        matched: Result<u64, u64>,
    },
    /// Leadership is given away.
    Lead {
        term: u64,
    },
}

/// What is to be done.
#[derive(Debug)]
pub enum Out {
    Send(u64, Message),
    /// Bring so many entries to disk, in this generation of the log.
    Sync(u64, u64),
    /// This member leads no more.
    Deposed,
}

/// What a member is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Follower,
    Asks { pre: bool },
    Leader,
}

/// One member.
#[derive(Debug)]
pub struct Raft {
    own: u64,
    /// Where in the log members were said; the first before it begins.
    members: Vec<(u64, Members)>,
    pub term: u64,
    voted: Option<u64>,
    pub log: Vec<Entry>,
    /// So many entries are on disk.
    synced: u64,
    generation: u64,
    pub role: Role,
    pub leader: Option<u64>,
    pub commit: u64,
    due: Instant,
    heard: Option<Instant>,
    beat_due: Instant,
    quorum_due: Instant,
    contacts: BTreeSet<u64>,
    votes: BTreeSet<u64>,
    next: BTreeMap<u64, u64>,
    matched: BTreeMap<u64, u64>,
    /// Acknowledgements that wait for the disk.
    owed: Vec<(u64, u64)>,
    /// Until when nothing is proposed, because leadership is given away.
    giving_until: Option<Instant>,
    chance: Chance,
    plant: Option<Plant>,
    out: Vec<Out>,
}

impl Raft {
    /// A member that begins with an empty log.
    pub fn new(own: u64, members: Members, chance: Chance, plant: Option<Plant>) -> Raft {
        let now = Instant::now();
        let mut raft = Raft {
            own,
            members: vec![(0, members)],
            term: 0,
            voted: None,
            log: Vec::new(),
            synced: 0,
            generation: 0,
            role: Role::Follower,
            leader: None,
            commit: 0,
            due: now,
            heard: None,
            beat_due: now,
            quorum_due: now,
            contacts: BTreeSet::new(),
            votes: BTreeSet::new(),
            next: BTreeMap::new(),
            matched: BTreeMap::new(),
            owed: Vec::new(),
            giving_until: None,
            chance,
            plant,
            out: Vec::new(),
        };
        raft.wait_anew();
        raft
    }

    /// The power goes: of what is not on disk a part is lost, and an entry
    /// that was torn counts as lost.
    pub fn crash(&mut self) {
        let kept = self.chance.within(self.synced, self.length() + 1);
        self.cut(kept);
        self.synced = kept;
        self.generation += 1;
        (self.role, self.leader, self.heard, self.commit) = (Role::Follower, None, None, 0);
        self.owed.clear();
        self.out.clear();
    }

    /// The power is back.
    pub fn restart(&mut self) {
        self.wait_anew();
    }

    /// What is to be done, once.
    pub fn take(&mut self) -> Vec<Out> {
        std::mem::take(&mut self.out)
    }

    /// How many entries there are.
    pub fn length(&self) -> u64 {
        self.log.len() as u64
    }

    fn last(&self) -> Place {
        (self.term_at(self.length()), self.length())
    }

    fn term_at(&self, index: u64) -> u64 {
        if index == 0 { 0 } else { self.log.get(index as usize - 1).map_or(0, |one| one.term) }
    }

    /// Who there is, as far as this member's log says.
    pub fn members(&self) -> Members {
        self.members.last().expect("the first ones stay").1.clone()
    }

    fn votes(&self, id: u64) -> bool {
        self.members().get(&id) == Some(&Vote::Voter)
    }

    fn majority(&self) -> usize {
        self.members().values().filter(|role| **role == Vote::Voter).count() / 2 + 1
    }

    /// Those of `some` that vote.
    fn voters_of(&self, some: &BTreeSet<u64>) -> usize {
        some.iter().filter(|id| self.votes(**id)).count()
    }

    /// The others, spares or not.
    fn others(&self) -> Vec<u64> {
        self.members().keys().copied().filter(|id| *id != self.own).collect()
    }

    fn cut(&mut self, length: u64) {
        self.log.truncate(length as usize);
        self.members.retain(|(index, _)| *index <= length);
    }

    fn push(&mut self, entry: Entry) {
        self.log.push(entry);
        if let Some(Entry { command: Command::Members(members), .. }) = self.log.last() {
            self.members.push((self.length(), members.clone()));
        }
    }

    /// Gives a member a role; the place of that in the log. One that is to vote
    /// has to have the log first, and one change is made at a time.
    pub fn assign(&mut self, id: u64, role: Vote) -> Option<u64> {
        let (known, members) = self.members.last().cloned().expect("the first ones stay");
        let is_proven = self.commit > 0 && self.term_at(self.commit) == self.term;
        let has_log = |matched: &u64| *matched > 0 && matched + LAG_MAX >= self.length();
        let has_all = self.matched.get(&id).is_some_and(has_log);
        let is_free = self.role == Role::Leader && is_proven && known <= self.commit;
        if !is_free || (role == Vote::Voter && !has_all) {
            return None;
        }
        let mut members = (*members).clone();
        members.insert(id, role);
        Some(self.propose(Command::Members(Arc::new(members))))
    }

    fn wait_anew(&mut self) {
        let low = ELECTION.as_micros() as u64;
        self.due = Instant::now() + self.chance.time_us(low, 2 * low);
    }

    fn send(&mut self, to: u64, message: Message) {
        self.out.push(Out::Send(to, message));
    }

    /// Time has passed.
    pub fn tick(&mut self) {
        let now = Instant::now();
        if self.role != Role::Leader {
            if now >= self.due && self.votes(self.own) {
                self.ask(true, false);
            }
            return;
        }
        if now >= self.beat_due {
            self.beat();
        }
        if now >= self.quorum_due {
            self.quorum_due = now + ELECTION;
            let mut heard = std::mem::take(&mut self.contacts);
            heard.insert(self.own);
            if self.voters_of(&heard) < self.majority() {
                self.step_down(self.term);
            }
        }
    }

    fn step_down(&mut self, term: u64) {
        self.giving_until = None;
        if term > self.term {
            (self.term, self.voted) = (term, None);
        }
        if std::mem::replace(&mut self.role, Role::Follower) == Role::Leader {
            self.leader = None;
            self.out.push(Out::Deposed);
            self.wait_anew();
        }
    }

    fn ask(&mut self, pre: bool, disrupts: bool) {
        (self.role, self.leader) = (Role::Asks { pre }, None);
        let mut term = self.term + 1;
        if !pre {
            (self.term, self.voted) = (term, Some(self.own));
            term = self.term;
        }
        self.votes = BTreeSet::from([self.own]);
        self.wait_anew();
        let last = self.last();
        for to in self.others().into_iter().filter(|id| self.votes(*id)).collect::<Vec<_>>() {
            self.send(to, Message::Vote { term, last, pre, disrupts });
        }
        self.count();
    }

    fn count(&mut self) {
        if self.voters_of(&self.votes) < self.majority() {
            return;
        }
        match self.role {
            Role::Asks { pre: true } => self.ask(false, false),
            Role::Asks { pre: false } => self.lead(),
            _ => {}
        }
    }

    fn lead(&mut self) {
        let now = Instant::now();
        (self.role, self.leader) = (Role::Leader, Some(self.own));
        (self.quorum_due, self.contacts) = (now + ELECTION, BTreeSet::new());
        let next = self.length() + 1;
        self.next = self.others().into_iter().map(|id| (id, next)).collect();
        self.matched = self.others().into_iter().map(|id| (id, 0)).collect();
        self.propose(Command::Nothing);
    }

    /// Adds an entry; its index.
    pub fn propose(&mut self, command: Command) -> u64 {
        self.push(Entry { term: self.term, command });
        self.out.push(Out::Sync(self.length(), self.generation));
        self.beat();
        self.advance();
        self.length()
    }

    fn beat(&mut self) {
        self.beat_due = Instant::now() + HEARTBEAT;
        // Spares are told nothing.
        let members = self.members();
        for to in self.others().into_iter().filter(|id| members[id] != Vote::Spare) {
            self.append_to(to);
        }
    }

    fn append_to(&mut self, to: u64) {
        let previous = self.next[&to] - 1;
        let entries = self.log.iter().skip(previous as usize).take(ENTRIES_MAX);
        let entries: Vec<Entry> = entries.cloned().collect();
        // A pipeline: what was sent is not sent again until it is asked for.
        self.next.insert(to, previous + 1 + entries.len() as u64);
        let previous = (self.term_at(previous), previous);
        let (term, commit) = (self.term, self.commit);
        self.send(to, Message::Append { term, previous, entries, commit });
    }

    /// Gives leadership away to a member that has the whole log.
    pub fn transfer(&mut self, to: u64) -> bool {
        let is_equal = self.matched.get(&to).is_some_and(|matched| *matched == self.length())
            && self.votes(to);
        if is_equal {
            self.giving_until = Some(Instant::now() + ELECTION);
            self.send(to, Message::Lead { term: self.term });
        }
        is_equal
    }

    /// Whether leadership is being given away: then nothing is proposed.
    pub fn is_giving(&self) -> bool {
        self.giving_until.is_some_and(|until| Instant::now() < until)
    }

    /// So many entries are on disk.
    pub fn synced(&mut self, length: u64, generation: u64) {
        if generation != self.generation {
            return;
        }
        self.synced = self.synced.max(length);
        let (synced, term) = (self.synced, self.term);
        let owed = std::mem::take(&mut self.owed);
        for (to, length) in owed {
            if length <= synced {
                self.send(to, Message::Appended { term, matched: Ok(length) });
            } else {
                self.owed.push((to, length));
            }
        }
        self.advance();
    }

    fn on_disk(&self) -> u64 {
        if self.plant == Some(Plant::AnswerBeforeSync) { self.length() } else { self.synced }
    }

    fn advance(&mut self) {
        if self.role != Role::Leader {
            return;
        }
        let voters = self.matched.iter().filter(|(id, _)| self.votes(**id));
        let mut all: Vec<u64> = voters.map(|(_, matched)| *matched).collect();
        all.push(self.on_disk());
        all.sort_unstable();
        let index = all[all.len() - self.majority()];
        if index > self.commit && self.term_at(index) == self.term {
            self.commit = index;
        }
    }

    /// A message has come.
    pub fn receive(&mut self, from: u64, message: Message) {
        match message {
            Message::Vote { term, last, pre, disrupts } => {
                self.vote(from, (term, last), pre, disrupts);
            }
            Message::Voted { term, granted, pre } => self.voted(from, term, granted, pre),
            Message::Append { term, previous, entries, commit } => {
                self.append(from, term, previous, entries, commit);
            }
            Message::Appended { term, matched } => self.appended(from, term, matched),
            Message::Lead { term } => {
                if term == self.term && self.role == Role::Follower && self.votes(self.own) {
                    self.ask(false, true);
                }
            }
        }
    }

    fn vote(&mut self, from: u64, (term, last): (u64, Place), pre: bool, disrupts: bool) {
        let recent = self.heard.is_some_and(|heard| heard.elapsed() < ELECTION);
        let has_leader = self.role == Role::Leader || (recent && self.leader.is_some());
        // Whether this member votes is for the candidate's log to say: its own may lack that.
        if has_leader && !disrupts {
            return;
        }
        if term > self.term && !pre {
            self.step_down(term);
            (self.role, self.leader) = (Role::Follower, None);
        }
        let forgets = self.plant == Some(Plant::VoteTwice);
        let is_free = pre || forgets || self.voted.is_none_or(|voted| voted == from);
        let is_blind = self.plant == Some(Plant::VoteForAnyone);
        let has_all = is_blind || last >= self.last();
        let granted = term >= self.term + u64::from(pre) && is_free && has_all;
        if granted && !pre {
            self.voted = Some(from);
            self.wait_anew();
        }
        self.send(from, Message::Voted { term: if pre { term } else { self.term }, granted, pre });
    }

    fn voted(&mut self, from: u64, term: u64, granted: bool, pre: bool) {
        let expected = self.term + u64::from(pre);
        if self.role == (Role::Asks { pre }) && granted && term == expected {
            self.votes.insert(from);
            self.count();
        } else if term > self.term && !pre {
            self.step_down(term);
            self.role = Role::Follower;
        }
    }

    fn append(&mut self, from: u64, term: u64, previous: Place, entries: Vec<Entry>, commit: u64) {
        if term < self.term {
            let (term, length) = (self.term, self.length());
            return self.send(from, Message::Appended { term, matched: Err(length) });
        }
        self.step_down(term);
        (self.role, self.leader, self.heard) = (Role::Follower, Some(from), Some(Instant::now()));
        self.wait_anew();
        let (before_term, before) = previous;
        if before > self.length() || self.term_at(before) != before_term {
            let hint = self.length().min(before.saturating_sub(1));
            return self.send(from, Message::Appended { term, matched: Err(hint) });
        }
        let end = before + entries.len() as u64;
        for (entry, index) in entries.into_iter().zip(before + 1..) {
            if self.term_at(index) == entry.term {
                continue;
            }
            if index <= self.length() {
                self.cut(index - 1);
                self.synced = self.synced.min(self.length());
                self.generation += 1;
                self.owed.clear();
            }
            self.push(entry);
        }
        self.commit = self.commit.max(commit.min(end));
        if end <= self.on_disk() {
            self.send(from, Message::Appended { term, matched: Ok(end) });
        } else {
            self.owed.push((from, end));
            self.out.push(Out::Sync(self.length(), self.generation));
        }
    }

    fn appended(&mut self, from: u64, term: u64, matched: Result<u64, u64>) {
        if term > self.term {
            return self.step_down(term);
        }
        if self.role != Role::Leader || term != self.term {
            return;
        }
        self.contacts.insert(from);
        match matched {
            Ok(index) => {
                let known = self.matched.get_mut(&from).expect("every member has a place");
                *known = (*known).max(index);
                let next = self.next.get_mut(&from).expect("every member has a place");
                *next = (*next).max(index + 1);
                self.advance();
                if self.next[&from] <= self.length() {
                    self.append_to(from);
                }
            }
            Err(hint) => {
                let next = (hint + 1).max(self.matched[&from] + 1);
                self.next.insert(from, next);
                self.append_to(from);
            }
        }
    }
}
