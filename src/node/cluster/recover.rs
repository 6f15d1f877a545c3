//! A cluster that lost most of its datastore's voters goes on from this node, which is stopped.
//!
//! ```text
//!   datastore ─ read, others asked ─> found ─ yes, go on ─┐
//!   record ── the other control-plane nodes are former ───┴> built beside, compared, one rename
//!                                                            membership.json: without them
//! ```
//!
//! The rename is the moment: both databases change with it. What the node itself knows of its
//! cluster is written after it, and again by whoever finds that it was not.

use std::fs::File;
use std::io;
use std::path::PathBuf;

use microcluster::message::Refusal;
use microcluster::protocol::decide_recover;
use microcluster::record::{ClusterRecord, MemberView, NodeId, NodeRole};
use microcluster::store::Change;
use skiff_datastore::backup::place::{Place, PlaceError};
use skiff_datastore::member::open::is_lone_store;
use skiff_datastore::recovery::{Found, Options, Recovery, RecoveryError};
use skiff_supervisor::cgroup::Cgroups;
use time::OffsetDateTime;

use super::{LeafError, Membership, MembershipError, Stage, member_leaf, ways};
use crate::backup::{Kept, RecordError, SwitchError, go_on_locked, read_record};
use crate::daemons::datastore;
use crate::node::authorities::{Authorities, AuthoritiesError, Standing, StandingError};
use crate::node::{Lock, LockError};
use crate::paths::Paths;

/// Why nothing was recovered. The node is as it was.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    #[error("the node runs")]
    Runs,
    #[error("daemons of the node run, though skiffd does not")]
    DaemonsRun,
    #[error("this node is in no cluster of several")]
    Alone,
    #[error("this node is a worker of its cluster: it holds none of the cluster's data")]
    Worker,
    #[error("this node is not a member yet: its join is not over")]
    Joining,
    #[error("the datastore here has no other members: nothing of it is lost")]
    Sole,
    #[error("the datastore here holds no record of a cluster")]
    NoRecord,
    #[error("{0}")]
    Refused(Refusal),
    #[error(transparent)]
    Lock(#[from] LockError),
    #[error(transparent)]
    Switch(#[from] SwitchError),
    #[error(transparent)]
    Membership(#[from] MembershipError),
    #[error(transparent)]
    Authority(#[from] AuthoritiesError),
    #[error(transparent)]
    Standing(#[from] StandingError),
    #[error(transparent)]
    Leaf(#[from] LeafError),
    #[error(transparent)]
    Recovery(#[from] RecoveryError),
    #[error(transparent)]
    Place(#[from] PlaceError),
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Record(#[from] RecordError),
}

/// What there is on a node that is stopped.
pub enum Looked {
    /// What can be brought back.
    Survivor(Box<Survivor>),
    /// A recovery put the datastore in place and was interrupted then.
    Unfinished(Box<Unfinished>),
}

/// A node that is recovered, but for what it knows of its cluster itself.
pub struct Unfinished {
    paths: Paths,
    fresh: Membership,
    stamp: String,
    _lock: Lock,
}

/// What this node holds, ready to become the cluster. Nobody can start the node meanwhile.
pub struct Survivor {
    paths: Paths,
    membership: Membership,
    kept: Kept,
    changes: Vec<Change>,
    recovery: Recovery,
    _lock: Lock,
}

/// A cluster that was brought back.
#[derive(Debug)]
pub struct Recovered {
    pub node: String,
    /// Where revisions go on.
    pub revision: i64,
    pub removed: Vec<String>,
    /// Where the datastore of before is.
    pub former: Option<PathBuf>,
}

/// Reads what this node holds and asks the others. Changes nothing.
pub async fn look(paths: &Paths, stamp: &str) -> Result<Looked, RecoverError> {
    let lock = match Lock::take(&paths.run().join("skiffd.pid")) {
        Err(LockError::Held(_)) => return Err(RecoverError::Runs),
        lock => lock?,
    };
    go_on_locked(paths)?;
    let membership = Membership::read(&paths.node())?.ok_or(RecoverError::Alone)?;
    if membership.role == NodeRole::Worker {
        return Err(RecoverError::Worker);
    }
    if membership.stage == Stage::Joining {
        return Err(RecoverError::Joining);
    }
    let cgroup = format!("/{}/daemon", paths.instance());
    if !Cgroups::detect().processes(&cgroup).is_empty() {
        return Err(RecoverError::DaemonsRun);
    }
    if is_lone_store(&paths.datastore()) {
        // The rename was done, or the datastore never had others.
        let fresh = without_former(membership.clone());
        if fresh == membership {
            return Err(RecoverError::Sole);
        }
        let (paths, stamp) = (paths.clone(), stamp.to_owned());
        return Ok(Looked::Unfinished(Box::new(Unfinished { paths, fresh, stamp, _lock: lock })));
    }
    let now = OffsetDateTime::now_utc();
    // Those that run answer whoever has a certificate that is good, and ours may have ended.
    let authorities = Authorities::ensure(&paths.pki(), now)?;
    member_leaf::ensure(paths, &membership, &authorities, now)?;
    let recovery = Recovery::look(Options {
        dir: paths.datastore(),
        pki: Some(paths.daemon_pki(datastore::NAME)),
        also: vec![],
        ways: ways::of(paths, &membership).into_iter().collect(),
        stamp: stamp.to_owned(),
    });
    let recovery = recovery.await?;
    if recovery.found().others.is_empty() {
        return Err(RecoverError::Sole);
    }
    let path = recovery.cluster().ok_or(RecoverError::NoRecord)?.to_owned();
    let file = File::open(&path).map_err(|source| RecoverError::Read { path, source })?;
    let kept = read_record(io::BufReader::new(file))?.ok_or(RecoverError::NoRecord)?;
    let reached = Standing::read(&paths.pki())?.reached();
    let decision = decide_recover(&kept.record, membership.id, reached, now);
    let changes = decision.map_err(RecoverError::Refused)?.changes;
    let paths = paths.clone();
    let survivor = Survivor { paths, membership, kept, changes, recovery, _lock: lock };
    Ok(Looked::Survivor(Box::new(survivor)))
}

impl Unfinished {
    /// This node.
    pub fn name(&self) -> String {
        self.fresh.name.to_string()
    }

    /// Does what was left.
    pub fn finish(self) -> Result<(), RecoverError> {
        // Gives the datastore of before its plain name.
        drop(Place::claim(&self.paths.datastore(), true, &self.stamp)?);
        Ok(self.fresh.write(&self.paths.node())?)
    }
}

impl Survivor {
    /// What the datastore holds, here and on the others.
    pub fn found(&self) -> &Found {
        self.recovery.found()
    }

    /// The node of a member of the datastore, as the record knows it.
    pub fn node(&self, id: &str) -> Option<MemberView> {
        let id = id.parse::<NodeId>().ok()?;
        self.kept.record.member(id).map(|member| member.value.view())
    }

    /// This node.
    pub fn name(&self) -> String {
        self.membership.name.to_string()
    }

    /// Nodes that will not belong to the cluster any more.
    pub fn leaves_behind(&self) -> Vec<String> {
        left_behind(&self.kept.record, self.membership.id)
    }

    /// Puts the cluster of which this node is the only one of the control plane in the place of
    /// what is here; revisions rise by `bump`.
    pub async fn finish(self, bump: i64) -> Result<Recovered, RecoverError> {
        let removed = self.leaves_behind();
        let Survivor { paths, membership, kept, changes, mut recovery, _lock } = self;
        let file = recovery.cluster().ok_or(RecoverError::NoRecord)?.with_extension("changed");
        recovery.set_cluster(kept.write(&changes, &file)?);
        let restored = recovery.finish(bump).await?;
        let fresh = without_former(membership);
        fresh.write(&paths.node())?;
        Ok(Recovered {
            node: fresh.name.to_string(),
            revision: restored.contents.revision.0,
            removed,
            former: restored.former,
        })
    }
}

fn left_behind(record: &ClusterRecord, own: NodeId) -> Vec<String> {
    let others = record.control_plane().filter(|member| member.id != own);
    others.map(|member| member.name.to_string()).collect()
}

/// What the node knows of its cluster when nobody else of the control plane is left.
fn without_former(mut membership: Membership) -> Membership {
    let own = membership.id;
    membership.members.retain(|one| one.id == own || one.role == NodeRole::Worker);
    membership
}
