//! New authorities of a node that is alone: the same decisions as in a cluster, on a record of its own
//! that knows nothing else. When the node founds a cluster, the record goes on there.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use microcluster::desk::{Desk, SystemClock};
use microcluster::message::Refusal;
use microcluster::protocol::{Founder, decide_found};
use microcluster::record::{
    ClusterId, ClusterRecord, ClusterSettings, DoneSteps, Fingerprint, Rest, Revision,
    RotationRecord, SharedSettings, Side,
};
use microcluster::store::{Change, MemoryStore, Store, StoreError};
use skiff_api::AuthorityRotation;
use time::OffsetDateTime;

use super::former;
use super::membership::{MembershipError, read, write};
use super::release;
use super::signer::AuthoritySigner;
use super::upkeep::chain;
use crate::node::authorities::step::{self, StepError};
use crate::node::authorities::{NEXT, Standing, StandingError, extension, forget_next};
use crate::node::core::Node;
use crate::paths::Paths;

const FILE: &str = "rotation.json";
/// How often it is looked at: for the end of a hold, and when something failed.
const INTERVAL: Duration = Duration::from_secs(15);

#[derive(Debug, thiserror::Error)]
pub enum AloneError {
    #[error(transparent)]
    Record(#[from] MembershipError),
    #[error("{0}")]
    Refused(Refusal),
    #[error(transparent)]
    Step(#[from] StepError),
    #[error(transparent)]
    Standing(#[from] StandingError),
    #[error("cannot remove keys that belong to nothing")]
    Forget(#[source] io::Error),
}

/// What a lone node's record says.
pub fn record(paths: &Paths) -> Result<RotationRecord, MembershipError> {
    Ok(read(&paths.node().join(FILE))?.unwrap_or_default())
}

/// Keeps it, as if it were that of a cluster.
pub struct AloneStore {
    dir: PathBuf,
    base: ClusterSettings,
    founder: Founder,
    done: DoneSteps,
}

/// Decides; none on a worker, and where keys cannot be read.
pub fn desk(
    node: &Node,
) -> Result<Option<Desk<AloneStore, AuthoritySigner, SystemClock>>, AloneError> {
    let Some(shared) = &node.authorities else { return Ok(None) };
    let (context, paths) = (node.context(), node.paths());
    let own = shared.now().believed().fingerprint();
    let standing = Standing::read(&paths.pki())?;
    let Some(own) = standing.two.as_deref().map_or(own, |two| two.old.fingerprint()) else {
        return Ok(None);
    };
    let base = ClusterSettings {
        cluster: ClusterId("alone".into()),
        pod_cidrs: vec![ANYWHERE],
        service_cidrs: vec![ANYWHERE],
        dns_domain: context.domain.clone(),
        dns_address: context.dns_address,
        api_names: vec![],
        api_port: context.api_port,
        authorities: vec![own],
        datastore: None,
        shared: SharedSettings::default(),
        rotation: record(&paths)?,
        rest: Rest::default(),
    };
    let founder = Founder {
        // Nobody reads it: the name of a lone node may be one that a cluster refuses.
        name: "alone".parse().expect("it is a plain word"),
        addresses: vec![[192, 0, 2, 1].into()],
        public_key: b"alone".to_vec(),
        release: release(),
        kubernetes: node.kubernetes(),
        failure_domain: String::new(),
    };
    let dir = paths.node();
    let store = AloneStore { dir, base, founder, done: standing.said() };
    let signer = AuthoritySigner::new(shared.clone(), paths.pki());
    Ok(Some(Desk::new(store, signer, SystemClock, release())))
}

/// What the record of a cluster must have of ranges.
const ANYWHERE: ipnet::IpNet =
    ipnet::IpNet::V4(ipnet::Ipv4Net::new_assert(std::net::Ipv4Addr::new(10, 0, 0, 0), 8));

impl AloneStore {
    fn now(&self) -> Result<MemoryStore, StoreError> {
        let read = read::<RotationRecord>(&self.dir.join(FILE));
        let rotation = read.map_err(|error| StoreError::Unavailable(chain(&error)))?;
        let rotation = rotation.unwrap_or_default();
        let authorities = match &rotation.current {
            Some(current) => current.authorities(),
            None => self.base.authorities.clone(),
        };
        let settings = ClusterSettings { rotation, authorities, ..self.base.clone() };
        let founded = decide_found(&settings, &self.founder, OffsetDateTime::UNIX_EPOCH);
        let founded = founded.map_err(|refusal| StoreError::Unavailable(refusal.message))?;
        let mut changes = founded.changes;
        for change in &mut changes {
            if let Change::PutMember { member, .. } = change {
                member.rotation = self.done.clone();
            }
        }
        let store = MemoryStore::default();
        store.apply_now(&changes)?;
        Ok(store)
    }
}

impl Store for AloneStore {
    async fn read(&self) -> Result<ClusterRecord, StoreError> {
        self.now()?.read_now()
    }

    async fn apply(&self, changes: &[Change]) -> Result<Revision, StoreError> {
        let store = self.now()?;
        let revision = store.apply_now(changes)?;
        let rotation = store.read_now()?.settings.value.rotation;
        let written = write(&self.dir.join(FILE), &rotation);
        written.map_err(|error| StoreError::Unavailable(chain(&error)))?;
        Ok(revision)
    }

    async fn later_than(&self, _: Revision) -> Result<Revision, StoreError> {
        std::future::pending().await
    }
}

/// Takes each step as it comes. Ends when the node is one of a cluster.
pub async fn run(node: Arc<Node>) {
    let (mut told, mut forgot) = (None, false);
    loop {
        let outcome = {
            let _still = node.setting.lock().await;
            if node.cluster().is_some() || node.authorities.is_none() {
                return;
            }
            turn(&node, &mut forgot).await
        };
        let failure = outcome.as_ref().err().map(|error| chain(error));
        if let Some(reason) = failure.as_ref().filter(|_| failure != told) {
            tracing::warn!(reason, "new authorities are not taken up yet");
        }
        told = failure;
        let woken = node.rotation_wake.notified();
        match outcome {
            Ok(Next::Turn) => {}
            Ok(Next::Nothing) => woken.await,
            Ok(Next::Look) | Err(_) => drop(tokio::time::timeout(INTERVAL, woken).await),
        }
    }
}

/// What follows.
enum Next {
    /// There may be more to do.
    Turn,
    /// Something ends by itself, or is to be tried again.
    Look,
    /// Somebody asks for it.
    Nothing,
}

/// Does what is to be done.
async fn turn(node: &Node, forgot: &mut bool) -> Result<Next, AloneError> {
    let paths = node.paths();
    let (record, standing) = (record(&paths)?, Standing::read(&paths.pki())?);
    let Some(rotation) = record.current.as_deref() else {
        if let Some(two) = standing.two.as_deref() {
            let is_new = two.at == microcluster::record::Position::New;
            let left = if is_new { Side::New } else { Side::Old };
            step::settle(node, left, record.step)?;
            *forgot = false;
        } else if paths.pki().join(NEXT).exists() {
            forget_next(&paths.pki()).map_err(AloneError::Forget)?;
        }
        former::keep(node, &record)?;
        *forgot = *forgot || extension::forget(node).await;
        return Ok(if *forgot { Next::Nothing } else { Next::Look });
    };
    let has_failed = standing.said().failure(record.step).is_some();
    if record.work(standing.step).is_some() && !has_failed {
        let own = own(node, &standing).ok_or(StepError::Unknown)?;
        match step::begin(node, &own, rotation).await {
            Err(StepError::Unwell(reason)) => step::give_up(node, record.step, reason).await?,
            begun => {
                begun?;
                match step::end(node, record.step).await {
                    Err(StepError::Unwell(reason)) => {
                        step::give_up(node, record.step, reason).await?;
                    }
                    ended => ended?,
                }
            }
        }
        return Ok(Next::Turn);
    }
    let _alone = node.rotation_turn.lock().await;
    let Some(desk) = desk(node)? else { return Ok(Next::Look) };
    let step = desk.advance_rotation().await.map_err(AloneError::Refused)?;
    let has_changed = step != record.step || self::record(&paths)?.current.is_none();
    Ok(if has_changed { Next::Turn } else { Next::Look })
}

fn own(node: &Node, standing: &Standing) -> Option<Fingerprint> {
    match standing.two.as_deref() {
        Some(two) => two.side(two.at.signs()).fingerprint(),
        None => node.authorities()?.believed().fingerprint(),
    }
}

/// How far it is.
pub fn view(node: &Node) -> Option<AuthorityRotation> {
    let paths = node.paths();
    let (record, standing) = (record(&paths).ok()?, Standing::read(&paths.pki()).ok()?);
    let now = OffsetDateTime::now_utc();
    let mut view = super::rotate::view(&record, &[], now)?;
    let said = standing.said();
    view.nodes = vec![skiff_api::RotationNode {
        name: node.context().node_name,
        done: said.step == record.step,
        waited_for: true,
        reason: said.failure(record.step).map(str::to_owned),
        last_contact: now
            .format(&time::format_description::well_known::Rfc3339)
            .unwrap_or_default(),
    }];
    Some(view)
}
