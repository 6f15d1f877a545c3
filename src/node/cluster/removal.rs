//! A control-plane node is taken away by another one: its member of the datastore first, since
//! cutting it off while it votes could cost the others their majority, then the record.
//!
//! ```text
//!   remove.json: ID ──> the datastore removes its member ──> the record forgets the node ──> nothing
//!      │ cut off, or nobody knows       │ cut off
//!      v                                v
//!   the member is still there: it stays a node      it is gone: the record forgets the node
//! ```

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use microcluster::message::{Refusal, RefusalCode};
use microcluster::protocol::{Outcome, RemoveRequest};
use microcluster::record::{NodeId, NodeName};
use serde::{Deserialize, Serialize};
use skiff_datastore::member::report::OperatorError;

use super::membership::{read, remove as remove_file, write};
use super::{Cluster, ClusterDesk, MembershipError, peers};

const FILE: &str = "remove.json";
/// How often is looked whether a removal was cut off.
const INTERVAL: Duration = Duration::from_secs(5);
/// A member that the datastore has for so long after a removal was cut off is not on its way out:
/// whatever was asked of a leader is done or lost by then.
const STILL_THERE: Duration = Duration::from_secs(15);

/// Whose removal has begun here and has not ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Removals(BTreeMap<NodeId, NodeName>);

/// What is to be done with a removal that was cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// The record forgets the node, too.
    Finish,
    /// It is over: done, or as if it had not begun.
    Forget,
    Wait,
}

impl Removals {
    /// One that is damaged is none: nobody can know what it said, and the command can be typed again.
    fn read(dir: &Path) -> Result<Self, MembershipError> {
        match read(&dir.join(FILE)) {
            Err(MembershipError::Damaged { path, .. }) => {
                tracing::warn!(path = %path.display(), "removals that were cut off are forgotten");
                Self::default().write(dir)?;
                Ok(Self::default())
            }
            all => Ok(all?.unwrap_or_default()),
        }
    }

    fn write(&self, dir: &Path) -> Result<(), MembershipError> {
        let path = dir.join(FILE);
        match self.0.is_empty() {
            true => remove_file(&path).map_err(|source| MembershipError::Remove { path, source }),
            false => write(&path, self),
        }
    }

    fn change(dir: &Path, change: impl FnOnce(&mut Self)) -> Result<(), MembershipError> {
        let mut all = Self::read(dir)?;
        change(&mut all);
        all.write(dir)
    }
}

/// Takes a control-plane node away. Said again, it goes on from where it was.
pub async fn remove(
    cluster: &Cluster,
    desk: &ClusterDesk,
    request: &RemoveRequest,
    id: NodeId,
) -> Result<Outcome, Refusal> {
    let _turn = cluster.removing.lock().await;
    let dir = cluster.paths.node();
    let kept = |error: MembershipError| {
        Refusal::new(RefusalCode::Unavailable, super::upkeep::chain(&error)).hint("skiff status")
    };
    Removals::change(&dir, |all| drop(all.0.insert(id, request.name.clone()))).map_err(kept)?;
    let forget = || Removals::change(&dir, |all| drop(all.0.remove(&id))).map_err(kept);
    if let Err(error) = peers::remove(&cluster.paths, id).await {
        if matches!(error, OperatorError::Refused(_)) {
            forget()?;
        }
        return Err(peers::refusal(&error));
    }
    let outcome = desk.remove(request).await?;
    forget()?;
    Ok(outcome)
}

/// Ends what was cut off, while nobody is at work on it. Never ends before skiffd.
pub async fn run(cluster: Arc<Cluster>) {
    let Some(desk) = &cluster.desk else { return };
    let (mut since, mut told) = (BTreeMap::new(), String::new());
    loop {
        let failure = match tend(&cluster, desk, &mut since).await {
            Ok(()) => String::new(),
            Err(reason) => reason,
        };
        if failure != told && !failure.is_empty() {
            tracing::warn!(reason = failure, "a removal that was cut off cannot be ended yet");
        }
        told = failure;
        tokio::time::sleep(INTERVAL).await;
    }
}

/// `since` is when each was found first.
async fn tend(
    cluster: &Cluster,
    desk: &ClusterDesk,
    since: &mut BTreeMap<NodeId, Instant>,
) -> Result<(), String> {
    let Ok(_turn) = cluster.removing.try_lock() else { return Ok(()) };
    let dir = cluster.paths.node();
    let all = Removals::read(&dir).map_err(|error| super::upkeep::chain(&error))?;
    since.retain(|id, _| all.0.contains_key(id));
    for (id, name) in all.0 {
        let members = peers::list(&cluster.paths).await;
        let members = members.map_err(|error| super::upkeep::chain(&error))?;
        let record = desk.record().await.map_err(|refusal| refusal.message)?;
        let is_member = record.members.get(&name).is_some_and(|member| member.value.id == id);
        let has_peer = members.iter().any(|member| member.node == id.to_string());
        let waited = since.entry(id).or_insert_with(Instant::now).elapsed();
        let next = plan(is_member, has_peer, waited);
        tracing::info!(node = %name, ?next, "a removal was cut off");
        if next == Next::Finish {
            let here = cluster.membership().name;
            let request = RemoveRequest { name, force: true, is_reachable: false, here };
            desk.remove(&request).await.map_err(|refusal| refusal.message)?;
            cluster.wake();
        }
        if next != Next::Wait {
            let forgotten = Removals::change(&dir, |all| drop(all.0.remove(&id)));
            forgotten.map_err(|error| super::upkeep::chain(&error))?;
        }
    }
    Ok(())
}

fn plan(is_member: bool, has_peer: bool, waited: Duration) -> Next {
    match (is_member, has_peer) {
        (false, _) => Next::Forget,
        (true, false) => Next::Finish,
        (true, true) if waited < STILL_THERE => Next::Wait,
        (true, true) => Next::Forget,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_removal_that_was_cut_off_is_done_where_the_datastore_has_done_it_and_undone_elsewhere() {
        let late = STILL_THERE;
        assert_eq!(plan(true, false, Duration::ZERO), Next::Finish);
        assert_eq!(plan(true, true, Duration::ZERO), Next::Wait, "it may be on its way");
        assert_eq!(plan(true, true, late), Next::Forget, "it stays a node");
        assert_eq!(plan(false, false, Duration::ZERO), Next::Forget, "it is done");
        assert_eq!(plan(false, true, Duration::ZERO), Next::Forget, "the keeper removes members");
    }

    #[test]
    fn what_was_begun_is_read_back_and_the_last_one_leaves_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        let (beta, gamma) = (NodeId::of_key(b"beta"), NodeId::of_key(b"gamma"));
        let begin = |id, name: &str| {
            let name = name.parse().unwrap();
            Removals::change(dir, |all| drop(all.0.insert(id, name))).unwrap();
        };
        let end = |id| Removals::change(dir, |all| drop(all.0.remove(&id))).unwrap();
        assert_eq!(Removals::read(dir).unwrap(), Removals::default());
        begin(beta, "beta");
        begin(gamma, "gamma");
        end(beta);
        assert_eq!(Removals::read(dir).unwrap().0, [(gamma, "gamma".parse().unwrap())].into());
        end(gamma);
        end(gamma);
        assert!(!dir.join(FILE).exists());
        std::fs::write(dir.join(FILE), "{").unwrap();
        assert_eq!(Removals::read(dir).unwrap(), Removals::default(), "nobody knows what it said");
        assert!(!dir.join(FILE).exists(), "and nobody is told of it for ever");
    }
}
