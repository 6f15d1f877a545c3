//! The certificate by which this node's datastore is known to the others. It is signed with the
//! authority that lies here: a member that was off for a month has none that is good, and could
//! ask nobody before it is a member again.

use std::path::Path;

use microcluster::record::NodeRole;
use microcluster::trust::{
    DATASTORE_SERVER_NAME, Purpose, Subject, certify, order_leaf, read_request,
};
use time::OffsetDateTime;

use super::Membership;
use super::keys::{self, KeyError, Keys};
use crate::node::account::{self, AccountError};
use crate::node::authorities::{Authorities, store_public};
use crate::paths::Paths;
use crate::pki::{self, StoreError};

#[derive(Debug, thiserror::Error)]
pub enum LeafError {
    #[error(transparent)]
    Account(#[from] AccountError),
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the cluster's authority cannot sign")]
    Authority(#[source] rcgen::Error),
    #[error("the identity of the datastore's member cannot be signed: {0}")]
    Sign(String),
}

/// Signs a new one at half of the life of the old one; answers when to look again.
pub fn ensure(
    paths: &Paths,
    membership: &Membership,
    authorities: &Authorities,
    now: OffsetDateTime,
) -> Result<OffsetDateTime, LeafError> {
    let place = keys::place(paths, Purpose::DatastoreMember);
    let issuer = authorities.cluster.subject_der();
    // Whom it believes comes before what it shows.
    store_public(&place.with_file_name(AUTHORITY_FILE), &authorities.believed().cluster)?;
    let store = account::ensure()?.datastore;
    if let Some(until) = good_until(&place, membership, &issuer).filter(|until| now < *until) {
        pki::ensure_private(&place, 0o600, (store.uid, store.gid))?;
        return Ok(until);
    }
    replace(paths, membership, authorities, now)
}

/// Signs a new one, whatever is left of the life of the old one; answers when to look again.
pub fn replace(
    paths: &Paths,
    membership: &Membership,
    authorities: &Authorities,
    now: OffsetDateTime,
) -> Result<OffsetDateTime, LeafError> {
    let (place, store) =
        (keys::place(paths, Purpose::DatastoreMember), account::ensure()?.datastore);
    let issuer = authorities.cluster.issuer().map_err(LeafError::Authority)?;
    let keys = Keys::generate(&[Purpose::DatastoreMember])?;
    let failed = |error: &dyn std::error::Error| LeafError::Sign(error.to_string());
    // As everybody else's: from a request that proves the key.
    let request = keys.request(Purpose::DatastoreMember)?;
    let key = read_request(&request).map_err(|error| failed(&error))?;
    let subject = Subject {
        name: &membership.name,
        id: membership.id,
        role: NodeRole::ControlPlane,
        addresses: &[],
    };
    let order = order_leaf(Purpose::DatastoreMember, subject, &key, now);
    let leaf = certify(&order, &issuer).map_err(|error| failed(&error))?;
    store_public(&place.with_file_name(AUTHORITY_FILE), &authorities.believed().cluster)?;
    keys.store(&[leaf], paths, store)?;
    tracing::info!("signed the identity of this node's member of the datastore");
    Ok(now + (order.not_after - now) / 2)
}

/// Beside the certificate lies what it is signed by.
const AUTHORITY_FILE: &str = skiff_datastore::member::tls::AUTHORITY_FILE;

/// Half of its life, when it is this node's own.
fn good_until(place: &Path, membership: &Membership, issuer: &[u8]) -> Option<OffsetDateTime> {
    let leaf = pki::inspect(place).filter(|leaf| leaf.issuer_der == issuer)?;
    let own = format!("{}.{DATASTORE_SERVER_NAME}", membership.id);
    let is_own = leaf.dns_names.contains(&own) && place.with_file_name(AUTHORITY_FILE).is_file();
    is_own.then(|| leaf.due())
}
