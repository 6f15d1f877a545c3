//! What the members of a cluster without quorum hold, and who holds most.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use dqlite::MemberId;
use dqlite::recover::{LogPosition, last_entry};
use serde::Serialize;

use super::RecoveryError;
use crate::backup::ExtractError;
use crate::backup::extract::Scratch;
use crate::database::Databases;
use crate::member::VERSION;
use crate::member::channel::Channels;
use crate::member::roster::Roster;
use crate::member::tls::Identity;
use crate::proto::peer::GossipMessage;
use crate::record::Revision;
use crate::snapshot::Summary;

/// How long another member may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

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

/// Looks into the directories at hand, and asks everybody else.
pub async fn ask(
    roster: &Arc<Roster>,
    identity: Option<&Identity>,
    also: &[PathBuf],
    scratch: &Scratch,
) -> Result<Vec<Other>, RecoveryError> {
    let mut at_hand = Vec::new();
    for dir in also {
        let theirs = Roster::read(dir)?;
        if theirs.cluster_id() != roster.cluster_id() || theirs.own() == roster.own() {
            return Err(RecoveryError::Foreign { dir: dir.clone() });
        }
        let LogPosition { term, index } = position(dir, &scratch.copy(dir)?)?;
        at_hand.push((theirs.own(), State::Stopped { dir: dir.clone(), term, index }));
    }
    let channels = identity.map(|identity| Channels::new(roster.clone(), identity));
    let found = roster.others().into_iter().map(|(id, peer)| {
        let stopped = at_hand.iter().find(|(other, _)| *other == id);
        let stopped = stopped.map(|(_, state)| state.clone());
        let channels = &channels;
        async move {
            let state = match (stopped, channels) {
                (Some(stopped), _) => stopped,
                (None, Some(channels)) => ask_one(roster, channels, id).await,
                (None, None) => State::Silent { reason: "not asked: name --pki".to_owned() },
            };
            Other { member: id.to_string(), address: peer.address, node: peer.node, state }
        }
    });
    Ok(futures::future::join_all(found).await)
}

async fn ask_one(roster: &Roster, channels: &Channels, id: MemberId) -> State {
    let message = GossipMessage {
        version: VERSION,
        cluster_id: roster.cluster_id().unwrap_or(0),
        from: roster.own().0,
        ..GossipMessage::default()
    };
    let mut client = channels.to(id);
    match tokio::time::timeout(ANSWER_TIMEOUT, client.gossip(message)).await {
        Ok(Ok(answer)) => {
            let answer = answer.into_inner();
            let cluster_revision = answer.cluster.map(|cluster| cluster.revision);
            let leads = answer.leads_epoch != 0;
            State::Running { revision: answer.revision, cluster_revision, leads }
        }
        Ok(Err(status)) => State::Silent { reason: status.message().to_owned() },
        Err(_) => State::Silent { reason: "no answer".to_owned() },
    }
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
