//! Begins anew with a member whose data is damaged, while others go on.
//!
//! ```text
//! damaged ── somebody leads? ──> another number ──> files aside ──> joins ──> former
//!                 │ nobody       (one write)        (damaged-N)    (empty)   number
//!                 └─> ends with an error                                     removed
//! ```
//!
//! Another number, because a voter that has forgotten entries it had
//! acknowledged must not vote under the old one. Each step is on disk before
//! the next and may be done twice: a member that is killed in between goes on
//! from there. What was damaged is kept in one directory beside the new files.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use dqlite::MemberId;
use tonic::{Code, Request};
use tracing::{debug, error, info};

use super::VERSION;
use super::channel::Channels;
use super::nodes::Nodes;
use super::open::MemberError;
use super::operator::Operator;
use super::refusals::{Refusals, is_foreign};
use super::roster::{Renewal, Roster, RosterError, Stage};
use super::tls;
use crate::clock;
use crate::options::Options;
use crate::proto::peer::members_server::Members;
use crate::proto::peer::{GossipMessage, RemoveRequest};

/// The directory of what was damaged begins with this.
const ASIDE: &str = "damaged-";
/// How long others are asked whether one of them leads: an election takes
/// less, and so does a start.
const LEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// Pause between two rounds of asking.
const ASK_PAUSE: Duration = Duration::from_millis(500);
/// How long one member may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// Pause before the others are asked again to remove the former number.
const LEAVE_PAUSE: Duration = Duration::from_secs(2);
/// Files that are found damaged more often in one run are on a bad disk.
pub const RENEWALS_MAX: u32 = 3;

/// Why a member could not begin anew.
#[derive(Debug, thiserror::Error)]
#[error("can't put the damaged files of {dir} aside")]
pub struct DiscardError {
    dir: PathBuf,
    #[source]
    source: io::Error,
}

/// Gives the member in the options' directory another number, if the others
/// go on without it; `why` is how its damage showed.
pub async fn renew(options: &Options, why: MemberError) -> Result<(), MemberError> {
    let dir = &options.dir;
    error!(error = &why as &dyn std::error::Error, "the data of this member is damaged");
    let roster = Arc::new(Roster::open(dir, options.join.is_empty())?);
    if roster.others().is_empty() {
        return Err(MemberError::Sole { dir: dir.clone(), source: Box::new(why) });
    }
    let (nodes, _) = Nodes::open(options.peer_nodes.as_deref())?;
    let identity = tls::Identity::load(options.pki.as_deref().unwrap_or(dir), nodes)?;
    let channels = Channels::new(roster.clone(), &identity);
    let found = tokio::time::timeout(LEADER_TIMEOUT, find_leader(&roster, &channels)).await;
    let dir = dir.clone();
    match found {
        _ if roster.is_removed(roster.own()) => Err(MemberError::Removed { dir }),
        Ok(Found::Leader(leader)) => {
            Roster::renew(&dir)?;
            info!(leader = leader.0, "this member begins anew and copies everything from others");
            Ok(())
        }
        Ok(Found::Disowned(by)) => {
            let address = roster.peer(by).unwrap_or_default().address;
            Err(MemberError::Disowned { dir, address })
        }
        Err(_) => Err(MemberError::Leaderless { dir, source: Box::new(why) }),
    }
}

/// What the others say.
enum Found {
    Leader(MemberId),
    /// They belong to another cluster now, this one among them.
    Disowned(MemberId),
}

/// Asks every other member until one says that it leads, or that this one
/// was removed, or all refuse this one for some seconds.
async fn find_leader(roster: &Roster, channels: &Channels) -> Found {
    let mut refusals = Refusals::default();
    let message = GossipMessage {
        version: VERSION,
        cluster_id: roster.cluster_id().unwrap_or(0),
        from: roster.own().0,
        ..GossipMessage::default()
    };
    loop {
        let asked = roster.others().into_iter().map(|(id, _)| {
            let (mut client, message) = (channels.to(id), message.clone());
            async move {
                let answer = tokio::time::timeout(ANSWER_TIMEOUT, client.gossip(message)).await;
                Some((id, answer.ok()?))
            }
        });
        for (id, answer) in futures::future::join_all(asked).await.into_iter().flatten() {
            let answer = match answer {
                Ok(answer) => answer.into_inner(),
                Err(status) if is_foreign(&status) => {
                    refusals.note(id, clock::now());
                    continue;
                }
                Err(_) => continue,
            };
            refusals.clear();
            let leads = answer.leads_epoch > 0;
            if let Err(error) = roster.merge(answer.peers) {
                debug!(%error, "the table of peers is not kept");
            }
            if leads || roster.is_removed(roster.own()) {
                return Found::Leader(id);
            }
        }
        if let Some(by) = refusals.last_word(clock::now()) {
            return Found::Disowned(by);
        }
        tokio::time::sleep(ASK_PAUSE).await;
    }
}

/// Puts aside what the former number left. Nothing is done otherwise.
pub fn discard(dir: &Path, roster: &Roster) -> Result<(), MemberError> {
    let Some(renewal) = roster.renewal().filter(|one| one.stage == Stage::Discard) else {
        return Ok(());
    };
    let former = renewal.formers.last().copied().unwrap_or_default();
    let aside = dir.join(format!("{ASIDE}{former:x}"));
    put_aside(dir, &aside).map_err(|source| DiscardError { dir: dir.to_owned(), source })?;
    info!(aside = %aside.display(), "the damaged files are kept here until the next time");
    Ok(roster.set_renewal(Some(Renewal { stage: Stage::Join, ..renewal }))?)
}

fn put_aside(dir: &Path, aside: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(aside)?;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if entry.file_type()?.is_dir() {
            let is_older = name.starts_with(ASIDE) && entry.path() != *aside;
            if is_older {
                fs::remove_dir_all(entry.path())?;
            }
        } else if is_of_dqlite(&name) {
            fs::rename(entry.path(), aside.join(&*name))?;
        }
    }
    File::open(aside)?.sync_all()?;
    File::open(dir)?.sync_all()
}

/// Whether dqlite keeps its data in a file of this name.
fn is_of_dqlite(name: &str) -> bool {
    let is_closed_segment = name.split_once('-').is_some_and(|(first, last)| {
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        digits(first) && digits(last)
    });
    let prefixes = ["metadata", "snapshot-", "open-", "tmp-"];
    is_closed_segment || prefixes.iter().any(|prefix| name.starts_with(prefix))
}

/// Through whom to join: those that were named, and every other member.
pub fn ways_in(roster: &Roster, named: &[String]) -> Vec<String> {
    let own = roster.peer(roster.own()).unwrap_or_default().address;
    let mut ways = named.to_vec();
    ways.extend(roster.others().into_iter().map(|(_, peer)| peer.address));
    ways.retain(|way| *way != own);
    ways.sort();
    ways.dedup();
    ways
}

/// Notes that the new number is known to the others.
pub fn joined(roster: &Roster) -> Result<(), RosterError> {
    let Some(renewal) = roster.renewal().filter(|one| one.stage == Stage::Join) else {
        return Ok(());
    };
    roster.set_renewal(Some(Renewal { stage: Stage::Leave, ..renewal }))
}

/// Has the former numbers removed, for as long as that takes.
pub async fn leave(operator: Operator) {
    let roster = operator.keeper.roster.clone();
    while let Some(mut renewal) = roster.renewal().filter(|one| one.stage == Stage::Leave) {
        let Some(id) = renewal.formers.last().copied() else { break };
        match Members::remove(&operator, Request::new(RemoveRequest { id })).await {
            Err(status) if status.code() != Code::NotFound => {
                debug!(%status, former = id, "the former number is not removed yet");
                tokio::time::sleep(LEAVE_PAUSE).await;
                continue;
            }
            _ => {}
        }
        info!(former = id, "the former number of this member is removed");
        renewal.formers.pop();
        let rest = (!renewal.formers.is_empty()).then_some(renewal);
        if let Err(error) = roster.set_renewal(rest) {
            debug!(%error, "that the former number is removed is not kept");
            return;
        }
    }
}

impl From<DiscardError> for MemberError {
    fn from(error: DiscardError) -> MemberError {
        MemberError::Discard(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::member::peers::Peer;

    #[test]
    fn a_member_that_begins_anew_keeps_its_identity_and_one_copy_of_what_was_damaged() {
        let dir = tempfile::tempdir().unwrap();
        let first = Roster::open(dir.path(), true).unwrap();
        first.state(Peer { address: "a:1".into(), ..Peer::default() }).unwrap();
        let ours = ["metadata1", "open-3", "snapshot-1-2-3", "snapshot-1-2-3.meta"];
        let segment = "0000000000000001-0000000000000009";
        for round in 0..3 {
            for name in ours.iter().chain([&segment, &"member.key", &"dqlite-lock"]) {
                fs::write(dir.path().join(name), format!("{round}")).unwrap();
            }
            let former = Roster::read(dir.path()).unwrap().own();
            Roster::renew(dir.path()).unwrap();
            let roster = Roster::open(dir.path(), true).unwrap();
            assert!(roster.own() != former && roster.own() != MemberId::FIRST);
            assert_eq!(roster.cluster_id(), first.cluster_id());
            // As a kill in the middle would have it: twice.
            fs::create_dir_all(dir.path().join(format!("{ASIDE}{:x}", former.0))).unwrap();
            fs::rename(
                dir.path().join("open-3"),
                dir.path().join(format!("{ASIDE}{:x}/open-3", former.0)),
            )
            .unwrap();
            discard(dir.path(), &roster).unwrap();
            discard(dir.path(), &roster).unwrap();
            let aside = dir.path().join(format!("{ASIDE}{:x}", former.0));
            for name in ours.iter().chain([&segment]) {
                assert!(!dir.path().join(name).exists(), "{name}");
                assert_eq!(fs::read_to_string(aside.join(name)).unwrap(), format!("{round}"));
            }
            assert!(dir.path().join("member.key").exists());
            let kept = fs::read_dir(dir.path()).unwrap().flatten();
            let kept = kept.filter(|one| one.file_type().unwrap().is_dir()).count();
            assert_eq!(kept, 1);
            joined(&roster).unwrap();
        }
        let renewal = Roster::read(dir.path()).unwrap().renewal().unwrap();
        assert_eq!((renewal.formers.len(), renewal.stage), (3, Stage::Leave));
        assert_eq!(renewal.formers[0], MemberId::FIRST.0);
    }
}
