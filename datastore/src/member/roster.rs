//! What a member knows of itself and its peers, in memory and on disk.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dqlite::MemberId;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::peers::{Peer, Peers};
use super::timing::{choose_latency, patience};
use super::twofold::{self, Found};
use crate::proto::peer::PeerEntry;

/// The file in the datastore's directory.
pub const FILE: &str = "member.json";
/// The form of the file; a later one is refused.
const FORMAT: u32 = 1;

/// Why the file could not be used.
#[derive(Debug, thiserror::Error)]
pub enum RosterError {
    #[error("can't read {path}")]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("can't write {path}")]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(
        "{path} and its copy are damaged: remove this member on another one, empty the directory \
         and join again"
    )]
    Damaged { path: PathBuf },
    #[error("{path} makes no sense to this version")]
    Senseless {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
    #[error("{path} is in form {found}, this version knows {FORMAT}: a newer Skiff wrote it")]
    Newer { path: PathBuf, found: u32 },
}

/// How far a member has come that begins anew under another number, because
/// what it held was damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// dqlite's files are still those of the former number.
    Discard,
    /// They are out of the way; the new number is not known to the others.
    Join,
    /// It is; the former number is to be removed.
    Leave,
}

/// What a member does that begins anew.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Renewal {
    /// The numbers that it had, the last one last.
    pub formers: Vec<u64>,
    pub stage: Stage,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Kept {
    format: u32,
    id: u64,
    /// Missing until the member belongs to a cluster.
    cluster_id: Option<u64>,
    /// The largest smoothed round trip to a voter, for the next start.
    #[serde(default)]
    round_trip_us: u64,
    /// While the member begins anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    renewal: Option<Renewal>,
    peers: Peers,
}

/// See the module's words. Shared by everything that talks to peers.
pub struct Roster {
    own: MemberId,
    path: PathBuf,
    kept: Mutex<Kept>,
    changed: watch::Sender<u64>,
    /// The setting that the node began with.
    latency_us: AtomicU64,
    /// The largest round trip between members, as last seen.
    live_round_trip_us: AtomicU64,
}

impl Roster {
    /// Reads the file in `dir`, or begins one. The first member begins a
    /// cluster and has the number 1, by which libdqlite knows it; others get
    /// a random number, and a cluster when they join.
    pub fn open(dir: &Path, first: bool) -> Result<Roster, RosterError> {
        let path = dir.join(FILE);
        let kept = load(&path)?.unwrap_or_else(|| Kept {
            format: FORMAT,
            id: if first { MemberId::FIRST.0 } else { random() },
            cluster_id: first.then(random),
            round_trip_us: 0,
            renewal: None,
            peers: Peers::default(),
        });
        let roster = Roster::of(path, kept);
        roster.save(&roster.kept())?;
        Ok(roster)
    }

    /// Reads the file in `dir` and leaves it as it is.
    pub fn read(dir: &Path) -> Result<Roster, RosterError> {
        let path = dir.join(FILE);
        match load(&path)? {
            Some(kept) => Ok(Roster::of(path, kept)),
            None => Err(RosterError::Read { path, source: io::ErrorKind::NotFound.into() }),
        }
    }

    fn of(path: PathBuf, kept: Kept) -> Roster {
        Roster {
            own: MemberId(kept.id),
            path,
            latency_us: AtomicU64::new(0),
            live_round_trip_us: AtomicU64::new(kept.round_trip_us),
            kept: Mutex::new(kept),
            changed: watch::channel(0).0,
        }
    }

    /// Whether a directory is a member's already.
    pub fn exists(dir: &Path) -> bool {
        twofold::exists(&dir.join(FILE))
    }

    /// This member.
    pub fn own(&self) -> MemberId {
        self.own
    }

    /// The cluster, once this member belongs to one.
    pub fn cluster_id(&self) -> Option<u64> {
        self.kept().cluster_id
    }

    /// The line of a member.
    pub fn peer(&self, id: MemberId) -> Option<Peer> {
        self.kept().peers.get(id).cloned()
    }

    /// Members that were not removed, this one included.
    pub fn living(&self) -> Vec<(MemberId, Peer)> {
        self.kept().peers.living().map(|(id, peer)| (id, peer.clone())).collect()
    }

    /// The other members.
    pub fn others(&self) -> Vec<(MemberId, Peer)> {
        let mut living = self.living();
        living.retain(|(id, _)| *id != self.own);
        living
    }

    /// Whether a member was removed for good.
    pub fn is_removed(&self, id: MemberId) -> bool {
        self.kept().peers.is_removed(id)
    }

    /// The table as it is told to others.
    pub fn entries(&self) -> Vec<PeerEntry> {
        self.kept().peers.entries()
    }

    /// The largest round trip that was seen by the last run.
    pub fn round_trip_us(&self) -> u64 {
        self.kept().round_trip_us
    }

    /// Notes it for the next run.
    pub fn set_round_trip_us(&self, round_trip_us: u64) -> Result<(), RosterError> {
        self.live_round_trip_us.store(round_trip_us, Ordering::Relaxed);
        self.change(|kept| {
            std::mem::replace(&mut kept.round_trip_us, round_trip_us) != round_trip_us
        })
    }

    /// Chooses the setting of libdqlite's timeouts for a node that begins.
    pub fn begin(&self) -> Duration {
        let latency = choose_latency(Duration::from_micros(self.round_trip_us()));
        self.latency_us.store(latency.as_micros() as u64, Ordering::Relaxed);
        latency
    }

    /// The setting that the node began with.
    pub fn latency(&self) -> Duration {
        Duration::from_micros(self.latency_us.load(Ordering::Relaxed))
    }

    /// Notes the largest round trip between members.
    pub fn set_live_round_trip(&self, round_trip: Duration) {
        self.live_round_trip_us.store(round_trip.as_micros() as u64, Ordering::Relaxed);
    }

    /// How much longer than in a good network others are waited for.
    pub fn patience(&self) -> Duration {
        patience(Duration::from_micros(self.live_round_trip_us.load(Ordering::Relaxed)))
    }

    /// Notes that this member belongs to a cluster from now on.
    pub fn enter(&self, cluster_id: u64) -> Result<(), RosterError> {
        self.change(|kept| kept.cluster_id.replace(cluster_id) != Some(cluster_id))
    }

    /// What is left to do of beginning anew.
    pub fn renewal(&self) -> Option<Renewal> {
        self.kept().renewal.clone()
    }

    /// Notes how far it has come; nothing at its end.
    pub fn set_renewal(&self, renewal: Option<Renewal>) -> Result<(), RosterError> {
        self.change(|kept| {
            kept.renewal = renewal;
            true
        })
    }

    /// Gives the member in `dir` another number, by one write: from then on
    /// dqlite's files there are not its own. Its node does not run.
    pub fn renew(dir: &Path) -> Result<(), RosterError> {
        let roster = Roster::read(dir)?;
        let mut kept = roster.kept().clone();
        let mut formers = kept.renewal.take().map_or(Vec::new(), |renewal| renewal.formers);
        formers.push(kept.id);
        kept.id = random();
        kept.renewal = Some(Renewal { formers, stage: Stage::Discard });
        roster.save(&kept)
    }

    /// States where this member is reached.
    pub fn state(&self, stated: Peer) -> Result<(), RosterError> {
        self.change(|kept| kept.peers.state(self.own, stated))
    }

    /// Removes a member for good.
    pub fn remove(&self, id: MemberId) -> Result<(), RosterError> {
        self.change(|kept| {
            kept.peers.remove(id);
            true
        })
    }

    /// Takes in what another member knows.
    pub fn merge(&self, entries: Vec<PeerEntry>) -> Result<(), RosterError> {
        self.change(|kept| kept.peers.merge(entries))
    }

    /// To be woken when the table changes.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    fn change(&self, change: impl FnOnce(&mut Kept) -> bool) -> Result<(), RosterError> {
        let mut kept = self.kept();
        if !change(&mut kept) {
            return Ok(());
        }
        let saved = self.save(&kept);
        drop(kept);
        self.changed.send_modify(|changes| *changes += 1);
        saved
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A member that forgot its number would be another one.
    fn save(&self, kept: &Kept) -> Result<(), RosterError> {
        let text = serde_json::to_vec_pretty(kept).expect("numbers and texts can be written");
        let failed = |source| RosterError::Write { path: self.path.clone(), source };
        twofold::write(&self.path, &text).map_err(failed)
    }
}

/// What is kept, if anything is.
fn load(path: &Path) -> Result<Option<Kept>, RosterError> {
    let path = || path.to_owned();
    let found = twofold::read(&path()).map_err(|source| RosterError::Read { path: path(), source });
    let text = match found? {
        Found::Nothing => return Ok(None),
        Found::Damage => return Err(RosterError::Damaged { path: path() }),
        Found::Text(text) => text,
    };
    let senseless = |source| RosterError::Senseless { path: path(), source };
    let kept: Kept = serde_json::from_slice(&text).map_err(senseless)?;
    if kept.format > FORMAT {
        return Err(RosterError::Newer { path: path(), found: kept.format });
    }
    Ok(Some(kept))
}

/// A number that nobody has yet, almost certainly, and that is not 0 or 1.
fn random() -> u64 {
    (RandomState::new().hash_one(std::process::id()) >> 1).max(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_is_the_same_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let roster = Roster::open(dir.path(), false).unwrap();
        assert_eq!(roster.cluster_id(), None);
        roster.enter(7).unwrap();
        roster.state(Peer { address: "a:1".into(), ..Peer::default() }).unwrap();
        let again = Roster::open(dir.path(), true).unwrap();
        assert_eq!(again.own(), roster.own());
        assert_eq!(again.cluster_id(), Some(7));
        assert_eq!(again.living(), roster.living());
    }

    #[test]
    fn the_first_member_begins_a_cluster() {
        let dir = tempfile::tempdir().unwrap();
        let roster = Roster::open(dir.path(), true).unwrap();
        assert_eq!(roster.own(), MemberId::FIRST);
        assert!(roster.cluster_id().is_some());
    }

    #[test]
    fn a_damaged_or_newer_file_is_refused_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        for (content, word) in
            [("{", "damaged"), (r#"{"format":9,"id":1,"cluster_id":null,"peers":{}}"#, "newer")]
        {
            std::fs::write(&path, content).unwrap();
            let error = Roster::open(dir.path(), true).map(drop).unwrap_err();
            assert!(error.to_string().contains(word), "{error}");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), content);
        }
    }
}
