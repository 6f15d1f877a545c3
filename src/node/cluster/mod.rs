//! A node's part in a cluster of several.
//!
//! A lone node has none of this. The first `skiff add-node` founds a cluster of one; a machine that
//! joins runs the control plane too, or is a worker. What comes in: what root asks for here, and what
//! other nodes ask at 7443, which the agent passes on. What goes out: changes of the cluster's record,
//! certificates, and the lists of API servers for the balancer and of peers for the datastore. Tasks,
//! while a node belongs to a cluster: the upkeep; and where the record is, the listener for the agent,
//! one that follows the record, and what the API server here is told of removed nodes; one that ends
//! what a `skiff leave` was cut off from; one that does so with a removal; and one that is told where
//! others may be.

pub(super) mod alone;
mod ask;
mod departure;
mod fit;
mod former;
mod found;
mod ground;
pub mod join;
mod keys;
pub mod leave;
mod listener;
mod member_leaf;
mod membership;
mod nodes;
mod peers;
mod quorum;
pub mod recover;
mod refused;
mod removal;
mod renewal;
pub mod restored;
mod rotate;
mod rotation;
pub mod routes;
mod seal;
pub mod settings;
mod signer;
pub mod store;
mod token;
mod trial;
mod upkeep;
mod ways;

use std::sync::{Arc, Mutex};

use microcluster::desk::{Desk, SystemClock};
use microcluster::record::NodeRole;
use microcluster::version::Version;
use skiff_api::Quorum;
use tokio::sync::Notify;

pub use departure::{Departure, Step};
pub use found::{FoundError, found};
pub use ground::{GroundError, ground};
pub use member_leaf::{LeafError, ensure as ensure_member_leaf, replace as replace_member_leaf};
pub use membership::{Begun, Membership, MembershipError, Stage};
pub(super) use renewal::{renew, show_identity};
pub use trial::{TrialError, try_and_record};
pub(super) use upkeep::{UpkeepError, chain};
pub use ways::{PEERS_MAX, Ways};

use super::core::Node;
use crate::paths::Paths;
use signer::AuthoritySigner;
use store::RecordStore;

/// Decides on this node what the cluster's record says.
type ClusterDesk = Desk<RecordStore, AuthoritySigner, SystemClock>;

/// This node in its cluster.
pub struct Cluster {
    paths: Paths,
    membership: Mutex<Membership>,
    /// Of control-plane nodes.
    desk: Option<ClusterDesk>,
    /// One takes over what the record says at a time, so that an older one never comes later.
    looking: tokio::sync::Mutex<()>,
    /// What this node's member of the datastore does, when last asked.
    datastore: Mutex<Option<String>>,
    /// Who votes in the datastore and is there, when last looked, and whether too few are.
    quorum: Mutex<Option<(Quorum, bool)>>,
    /// Something has changed that the upkeep should look at now.
    wake: Notify,
    /// One asks for certificates at a time: of two new keys the record would know one.
    renewing: tokio::sync::Mutex<()>,
    /// The cluster's settings may be others.
    settings_wake: Notify,
    /// One takes another control-plane node away at a time.
    removing: tokio::sync::Mutex<()>,
}

impl Cluster {
    /// To ask as a node whose daemon may not be running.
    fn of_disk(paths: &Paths, membership: Membership) -> Self {
        Self::new(paths.clone(), membership, None)
    }

    fn new(paths: Paths, membership: Membership, desk: Option<ClusterDesk>) -> Self {
        let membership = Mutex::new(membership);
        let (looking, datastore, quorum, wake) = Default::default();
        let (renewing, settings_wake, removing) = Default::default();
        Self {
            paths,
            membership,
            desk,
            looking,
            datastore,
            quorum,
            wake,
            renewing,
            settings_wake,
            removing,
        }
    }

    pub fn membership(&self) -> Membership {
        self.membership.lock().expect("no holder of this lock panics").clone()
    }

    /// Changes what is known and keeps it; nothing is written when nothing has changed.
    fn update(&self, change: impl FnOnce(&mut Membership)) -> Result<(), MembershipError> {
        let mut membership = self.membership.lock().expect("no holder of this lock panics");
        let mut fresh = membership.clone();
        change(&mut fresh);
        if fresh != *membership {
            fresh.write(&self.paths.node())?;
            *membership = fresh;
        }
        Ok(())
    }

    /// Has the upkeep look again at once.
    pub fn wake(&self) {
        self.wake.notify_one();
    }
}

/// Takes up a node's part in its cluster: everything on the disk is prepared.
pub fn begin(node: &Arc<Node>, membership: Membership) -> Result<Arc<Cluster>, GroundError> {
    let paths = node.paths();
    let desk = match (membership.role, &node.authorities) {
        (NodeRole::ControlPlane, Some(authorities)) => {
            let signer = AuthoritySigner::new(authorities.clone(), paths.pki())
                .with_settings(node.config.subscribe());
            let store = RecordStore::at(&paths.cluster_database_socket())?;
            Some(Desk::new(store, signer, SystemClock, release()))
        }
        _ => None,
    };
    let listener = match desk {
        Some(_) => Some(listener::bind(&paths)?),
        None => None,
    };
    let cluster = Arc::new(Cluster::new(paths, membership, desk));
    *node.cluster.lock().expect("no holder of this lock panics") = Some(cluster.clone());
    if let Some(listener) = listener {
        tokio::spawn(listener::serve(listener, cluster.clone()));
    }
    tokio::spawn(quorum::run(node.clone(), cluster.clone()));
    tokio::spawn(refused::run(node.clone(), cluster.clone()));
    tokio::spawn(settings::run(node.clone(), cluster.clone()));
    tokio::spawn(rotation::run(node.clone(), cluster.clone()));
    tokio::spawn(upkeep::run(node.clone(), cluster.clone()));
    tokio::spawn(leave::run(node.clone(), cluster.clone()));
    tokio::spawn(ways::run(cluster.clone()));
    tokio::spawn(removal::run(cluster.clone()));
    Ok(cluster)
}

/// How far the cluster of a node is with new authorities, as the node knows.
pub(super) fn rotation_of(node: &Node) -> Option<skiff_api::AuthorityRotation> {
    let Some(cluster) = node.cluster() else { return alone::view(node) };
    let membership = cluster.membership();
    let now = time::OffsetDateTime::now_utc();
    rotate::view(&membership.settings.rotation, &membership.members, now)
}

/// Of a component; one that says nothing of itself goes with none.
pub fn version_of(text: &str) -> Version {
    text.parse().unwrap_or(Version::new(0, 0, 0))
}

/// Of Skiff, here.
fn release() -> Version {
    env!("CARGO_PKG_VERSION").parse().expect("our own version can be read")
}
