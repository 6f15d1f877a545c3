//! Signs with the node's own authority.

use std::path::PathBuf;
use std::sync::Arc;

use microcluster::trust::{
    AuthorityBundle, BACKDATE, IssuedLeaf, LEAF_LIFE, LeafOrder, SignError, Signer, certify,
};
use rcgen::{Issuer, KeyPair};
use time::Duration;
use tokio::sync::watch;

use super::seal::ClusterKeys;
use crate::config::Config;
use crate::node::prepare::Authorities;

/// See the module's words.
pub struct AuthoritySigner {
    issuer: Issuer<'static, KeyPair>,
    bundle: AuthorityBundle,
    /// Whose leaves live no longer than those of the node.
    settings: Option<watch::Receiver<Arc<Config>>>,
    /// Where the keys are that a control-plane node gets.
    pki: PathBuf,
}

impl AuthoritySigner {
    pub fn new(authorities: &Authorities, pki: PathBuf) -> Result<Self, rcgen::Error> {
        let bundle = AuthorityBundle {
            cluster: authorities.cluster.certificate_pem().into(),
            front_proxy: authorities.front_proxy.certificate_pem().into(),
        };
        Ok(Self { issuer: authorities.cluster.issuer()?, bundle, settings: None, pki })
    }

    /// The same for leaves that live as long from now on as the settings say, when that is shorter
    /// than what was ordered.
    #[must_use]
    pub fn with_settings(self, settings: watch::Receiver<Arc<Config>>) -> Self {
        Self { settings: Some(settings), ..self }
    }

    fn life(&self) -> Duration {
        let Some(settings) = &self.settings else { return LEAF_LIFE };
        Duration::minutes(i64::from(settings.borrow().pki.leaf_ttl_minutes))
    }
}

impl Signer for AuthoritySigner {
    fn sign(&self, order: &LeafOrder) -> Result<IssuedLeaf, SignError> {
        let end = order.not_before + BACKDATE + self.life();
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
