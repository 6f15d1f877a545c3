//! What the members of a cluster without quorum hold, and who holds most.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use dqlite::MemberId;
use dqlite::recover::{LogPosition, last_entry};
use futures::future::join_all;
use serde::Serialize;

use super::RecoveryError;
use crate::backup::ExtractError;
use crate::backup::extract::Scratch;
use crate::database::Databases;
use crate::member::VERSION;
use crate::member::channel::Channels;
use crate::member::peers::Peer;
use crate::member::roster::Roster;
use crate::member::tls::Identity;
use crate::proto::peer::GossipMessage;
use crate::record::Revision;
use crate::snapshot::Summary;

/// How long another member may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// How often whoever answers elsewhere may name further places: with five voters, one leads to the
/// next at most so many times.
const ROUNDS_MAX: u32 = 4;
/// Places that are tried in a round.
const WAYS_MAX: usize = 24;

/// What was found of another member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "lowercase")]
pub enum State {
    /// Did not answer, or could not be asked.
    Silent { reason: String },
    /// Runs, and says how far it is.
    Running {
        revision: i64,
        /// Of the database `cluster`; nothing when it does not serve that.
        #[serde(skip_serializing_if = "Option::is_none")]
        cluster_revision: Option<i64>,
        leads: bool,
    },
    /// Its directory is at hand.
    Stopped { dir: PathBuf, term: u64, index: u64 },
}

/// Another member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Other {
    /// Its number, as the status shows it.
    pub member: String,
    pub address: String,
    /// The node that it runs on; empty where members are told by their numbers
    /// alone.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub node: String,
    #[serde(flatten)]
    pub state: State,
}

/// What the survivor holds, and what was found of the others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Found {
    pub member: String,
    pub address: String,
    /// Term and index of the last entry of its log.
    pub term: u64,
    pub index: u64,
    pub revision: i64,
    pub keys: u64,
    pub leases: u64,
    /// Of the database `cluster`; nothing when there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster: Option<Record>,
    pub others: Vec<Other>,
}

/// What the database `cluster` holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Record {
    pub revision: i64,
    pub keys: u64,
}

/// Whether the survivor is the one to recover from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// This one leads: the quorum is not lost.
    Led(String),
    /// These hold more.
    Behind(Vec<String>),
    /// Nobody who could be asked holds more; these could not be asked.
    Best { unasked: Vec<String> },
}

impl Found {
    /// Puts together what was found.
    pub fn new(
        roster: &Roster,
        position: LogPosition,
        summaries: Databases<&Summary>,
        others: Vec<Other>,
    ) -> Found {
        let own = roster.own();
        let Databases { kube, cluster } = summaries;
        Found {
            member: own.to_string(),
            address: roster.peer(own).unwrap_or_default().address,
            term: position.term,
            index: position.index,
            revision: kube.revision.0,
            keys: kube.keys,
            leases: kube.leases,
            cluster: cluster.map(|one| Record { revision: one.revision.0, keys: one.keys }),
            others,
        }
    }

    /// Whether to recover from this survivor.
    pub fn verdict(&self) -> Verdict {
        let is_led = |other: &&Other| matches!(other.state, State::Running { leads: true, .. });
        if let Some(leader) = self.others.iter().find(is_led) {
            return Verdict::Led(leader.member.clone());
        }
        let names = |is_such: &dyn Fn(&State) -> bool| -> Vec<String> {
            let such = self.others.iter().filter(|other| is_such(&other.state));
            such.map(|other| other.member.clone()).collect()
        };
        let ahead = names(&|state| match state {
            State::Silent { .. } => false,
            State::Running { revision, cluster_revision, .. } => {
                let held = self.cluster.map_or(Revision::EMPTY_STORE.0, |one| one.revision);
                *revision > self.revision || cluster_revision.is_some_and(|theirs| theirs > held)
            }
            // Raft's order of logs: by the last term, then by length.
            State::Stopped { term, index, .. } => (*term, *index) > (self.term, self.index),
        });
        if !ahead.is_empty() {
            return Verdict::Behind(ahead);
        }
        Verdict::Best { unasked: names(&|state| matches!(state, State::Silent { .. })) }
    }
}

/// The last entry of the log in a copy of a stopped member's directory.
pub fn position(dir: &Path, copied: &Path) -> Result<LogPosition, RecoveryError> {
    last_entry(copied).map_err(|source| ExtractError::Log { dir: dir.to_owned(), source }.into())
}

/// Who is asked, and where.
pub struct Survey<'a> {
    pub roster: &'a Arc<Roster>,
    /// Without one nobody is asked.
    pub identity: Option<&'a Identity>,
    /// Where others may be that are not where they were.
    pub ways: &'a [String],
}

impl Survey<'_> {
    /// Looks into the directories at hand, and asks everybody else.
    pub async fn ask(
        &self,
        also: &[PathBuf],
        scratch: &Scratch,
    ) -> Result<Vec<Other>, RecoveryError> {
        let mut others = BTreeMap::new();
        for (id, Peer { address, node, .. }) in self.roster.others() {
            let state = State::Silent { reason: "not asked: name --pki".to_owned() };
            others.insert(id, Other { member: id.to_string(), address, node, state });
        }
        let mut asked: BTreeSet<MemberId> = others.keys().copied().collect();
        for dir in also {
            let theirs = Roster::read(dir)?;
            if theirs.cluster_id() != self.roster.cluster_id() || theirs.own() == self.roster.own()
            {
                return Err(RecoveryError::Foreign { dir: dir.clone() });
            }
            let LogPosition { term, index } = position(dir, &scratch.copy(dir)?)?;
            if let Some(other) = others.get_mut(&theirs.own()) {
                other.state = State::Stopped { dir: dir.clone(), term, index };
                asked.remove(&theirs.own());
            }
        }
        if let Some(identity) = self.identity {
            let channels = Channels::new(self.roster.clone(), identity);
            self.ask_where_they_were(&channels, &asked, &mut others).await;
        }
        Ok(others.into_values().collect())
    }

    async fn ask_where_they_were(
        &self,
        channels: &Channels,
        asked: &BTreeSet<MemberId>,
        others: &mut BTreeMap<MemberId, Other>,
    ) {
        let lines = others.iter().filter(|(id, _)| asked.contains(id));
        let answers = lines.map(async |(id, other)| {
            (*id, self.ask_member(channels, *id, &other.address, &other.node).await)
        });
        let mut places: BTreeSet<String> = self.ways.iter().cloned().collect();
        for (id, answer) in join_all(answers).await {
            let other = others.get_mut(&id).expect("whoever was asked is among them");
            match answer {
                Ok(answer) => {
                    other.state = running(&answer);
                    places.extend(places_in(answer));
                }
                Err(reason) => other.state = State::Silent { reason },
            }
        }
        self.ask_elsewhere(channels, places, others).await;
    }

    /// Members that are silent where they were are looked for at other places: where somebody said
    /// that one may be, and then where whoever answers says that the others are.
    async fn ask_elsewhere(
        &self,
        channels: &Channels,
        mut places: BTreeSet<String>,
        others: &mut BTreeMap<MemberId, Other>,
    ) {
        let mut tried: BTreeSet<String> =
            others.values().map(|other| other.address.clone()).collect();
        for _ in 0..ROUNDS_MAX {
            let next: Vec<String> = places.difference(&tried).take(WAYS_MAX).cloned().collect();
            if next.is_empty() || !others.values().any(is_silent) {
                return;
            }
            tried.extend(next.iter().cloned());
            let answers =
                next.iter().map(async |place| (place, self.ask_at(channels, place, "").await));
            for (place, answer) in join_all(answers).await {
                let Ok(answer) = answer else { continue };
                let id = MemberId(answer.from);
                places.extend(places_in(answer));
                let Some(other) = others.get_mut(&id).filter(|other| is_silent(other)) else {
                    continue;
                };
                // Whoever says to be a member shows that it is its node.
                if let Ok(answer) = self.ask_member(channels, id, place, &other.node).await {
                    other.address.clone_from(place);
                    other.state = running(&answer);
                }
            }
        }
    }

    async fn ask_member(
        &self,
        channels: &Channels,
        id: MemberId,
        address: &str,
        node: &str,
    ) -> Result<GossipMessage, String> {
        let answer = self.ask_at(channels, address, node).await?;
        match answer.from == id.0 {
            true => Ok(answer),
            false => Err("another member answers there".to_owned()),
        }
    }

    /// Tells nothing but who asks.
    async fn ask_at(
        &self,
        channels: &Channels,
        address: &str,
        node: &str,
    ) -> Result<GossipMessage, String> {
        let cluster_id = self.roster.cluster_id().unwrap_or(0);
        let message = GossipMessage {
            version: VERSION,
            cluster_id,
            from: self.roster.own().0,
            ..GossipMessage::default()
        };
        let mut client = channels.to_node_at(address, node);
        match tokio::time::timeout(ANSWER_TIMEOUT, client.gossip(message)).await {
            Ok(Ok(answer)) if answer.get_ref().cluster_id == cluster_id => Ok(answer.into_inner()),
            Ok(Ok(_)) => Err("a member of another cluster answers there".to_owned()),
            Ok(Err(status)) => Err(status.message().to_owned()),
            Err(_) => Err("no answer".to_owned()),
        }
    }
}

fn is_silent(other: &Other) -> bool {
    matches!(other.state, State::Silent { .. })
}

fn running(answer: &GossipMessage) -> State {
    State::Running {
        revision: answer.revision,
        cluster_revision: answer.cluster.as_ref().map(|cluster| cluster.revision),
        leads: answer.leads_epoch != 0,
    }
}

/// Where a member says that members are.
fn places_in(answer: GossipMessage) -> impl Iterator<Item = String> {
    let living = answer.peers.into_iter().filter(|peer| !peer.removed);
    living.map(|peer| peer.address).filter(|address| !address.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(states: Vec<State>) -> Found {
        let others = states.into_iter().enumerate().map(|(position, state)| Other {
            member: format!("m{position}"),
            address: String::new(),
            node: String::new(),
            state,
        });
        Found {
            member: "own".to_owned(),
            address: String::new(),
            term: 3,
            index: 10,
            revision: 100,
            keys: 0,
            leases: 0,
            cluster: None,
            others: others.collect(),
        }
    }

    #[test]
    fn whoever_holds_most_is_the_one_to_recover_from() {
        let silent = || State::Silent { reason: String::new() };
        let runs = |revision, cluster_revision, leads| State::Running {
            revision,
            cluster_revision,
            leads,
        };
        let running = |revision| runs(revision, None, false);
        let stopped = |term, index| State::Stopped { dir: PathBuf::new(), term, index };
        let best = |unasked: &[&str]| Verdict::Best {
            unasked: unasked.iter().map(|name| (*name).to_owned()).collect(),
        };
        let behind = |name: &str| Verdict::Behind(vec![name.to_owned()]);
        for (states, verdict) in [
            (vec![silent(), silent()], best(&["m0", "m1"])),
            (vec![running(100), silent()], best(&["m1"])),
            (vec![silent(), running(101)], behind("m1")),
            (vec![stopped(3, 10), stopped(2, 99)], best(&[])),
            (vec![stopped(3, 11), running(1)], behind("m0")),
            (vec![stopped(4, 1), running(1)], behind("m0")),
            (vec![running(101), runs(5, None, true)], Verdict::Led("m1".to_owned())),
            (vec![runs(100, Some(1), false)], best(&[])),
            (vec![runs(99, Some(2), false)], behind("m0")),
        ] {
            assert_eq!(found(states.clone()).verdict(), verdict, "{states:?}");
        }
    }
}
