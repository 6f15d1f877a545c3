//! Signs with the node's own authority.

use std::path::PathBuf;

use microcluster::trust::{
    AuthorityBundle, BACKDATE, IssuedLeaf, LEAF_LIFE, LeafOrder, SignError, Signer, certify,
};
use rcgen::{Issuer, KeyPair};
use time::Duration;

use super::seal::ClusterKeys;
use crate::node::prepare::Authorities;

/// See the module's words.
pub struct AuthoritySigner {
    issuer: Issuer<'static, KeyPair>,
    bundle: AuthorityBundle,
    life: Duration,
    /// Where the keys are that a control-plane node gets.
    pki: PathBuf,
}

impl AuthoritySigner {
    pub fn new(authorities: &Authorities, pki: PathBuf) -> Result<Self, rcgen::Error> {
        let bundle = AuthorityBundle {
            cluster: authorities.cluster.certificate_pem().into(),
            front_proxy: authorities.front_proxy.certificate_pem().into(),
        };
        Ok(Self { issuer: authorities.cluster.issuer()?, bundle, life: LEAF_LIFE, pki })
    }

    /// The same for leaves that live so long from now on, when that is shorter than what was
    /// ordered.
    #[must_use]
    pub fn with_life(self, life: Duration) -> Self {
        Self { life, ..self }
    }
}

impl Signer for AuthoritySigner {
    fn sign(&self, order: &LeafOrder) -> Result<IssuedLeaf, SignError> {
        let end = order.not_before + BACKDATE + self.life;
        let not_after = order.not_after.min(end);
        certify(&LeafOrder { not_after, ..order.clone() }, &self.issuer)
    }

    fn bundle(&self) -> AuthorityBundle {
        self.bundle.clone()
    }

    fn seal(&self, recipient: &str) -> Result<String, SignError> {
        let sealed = ClusterKeys::read(&self.pki).and_then(|keys| keys.seal(recipient));
        sealed.map_err(|error| SignError::Seal(error.to_string()))
    }
}
