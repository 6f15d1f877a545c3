//! Signs with the authorities of this node: with the one that the cluster's settings name first.

use std::path::PathBuf;
use std::sync::Arc;

use microcluster::record::{ClusterSettings, Fingerprint, Position, Rotation};
use microcluster::trust::{
    AuthorityBundle, BACKDATE, IssuedLeaf, LEAF_LIFE, LeafOrder, Purpose, SignError, Signer,
    certify,
};
use time::{Duration, OffsetDateTime};
use tokio::sync::watch;

use super::seal::ClusterKeys;
use crate::config::Config;
use crate::node::authorities::{Authorities, Pair, SharedAuthorities};

/// See the module's words.
pub struct AuthoritySigner {
    authorities: SharedAuthorities,
    /// Whose leaves live no longer than those of the node.
    settings: Option<watch::Receiver<Arc<Config>>>,
    /// Where the key of Secrets is, which a control-plane node gets too.
    pki: PathBuf,
}

impl AuthoritySigner {
    pub fn new(authorities: SharedAuthorities, pki: PathBuf) -> Self {
        Self { authorities, settings: None, pki }
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
    fn sign(&self, order: &LeafOrder, settings: &ClusterSettings) -> Result<IssuedLeaf, SignError> {
        let end = order.not_before + BACKDATE + self.life();
        let not_after = order.not_after.min(end);
        let authorities = self.authorities.now();
        let pair = signing(&authorities, settings).ok_or(SignError::NotYet)?;
        let issuer = pair.cluster.issuer();
        let issuer = issuer.map_err(|error| SignError::Authority(error.to_string()))?;
        let mut leaf = certify(&LeafOrder { not_after, ..order.clone() }, &issuer)?;
        // Clients are believed by whoever believes the authority itself.
        if matches!(order.purpose, Purpose::Node | Purpose::KubeletServing) {
            leaf.certificate.push_str(&crossed(settings, OffsetDateTime::now_utc()));
        }
        Ok(leaf)
    }

    fn bundle(&self, settings: &ClusterSettings) -> AuthorityBundle {
        let authorities = self.authorities.now();
        let of = |cluster: &str, front_proxy: &str| AuthorityBundle {
            cluster: cluster.to_owned(),
            front_proxy: front_proxy.to_owned(),
        };
        if let Some(rotation) = settings.rotation.current.as_deref() {
            let text = |text: fn(&microcluster::record::AuthorityCertificates) -> &String| {
                let sides = rotation.target.believes().iter();
                sides.map(|side| text(rotation.side(*side)).as_str()).collect::<String>()
            };
            return of(&text(|side| &side.cluster), &text(|side| &side.front_proxy));
        }
        match signing(&authorities, settings) {
            Some(pair) => of(&pair.certificates.cluster, &pair.certificates.front_proxy),
            None => of(&authorities.believed().cluster, &authorities.believed().front_proxy),
        }
    }

    fn seal(&self, recipient: &str, settings: &ClusterSettings) -> Result<String, SignError> {
        let authorities = self.authorities.now();
        let find = |authority: Option<Fingerprint>| {
            authority.and_then(|authority| authorities.find(&authority)).ok_or(SignError::NotYet)
        };
        let (side, next) = match settings.rotation.current.as_deref() {
            Some(rotation) => {
                (find(rotation.old.fingerprint())?, Some(find(rotation.new.fingerprint())?))
            }
            None => (find(settings.authorities.first().copied())?, None),
        };
        let sealed = ClusterKeys::of(side, next, &self.pki).and_then(|keys| keys.seal(recipient));
        sealed.map_err(|error| SignError::Seal(error.to_string()))
    }
}

fn signing<'a>(authorities: &'a Authorities, settings: &ClusterSettings) -> Option<&'a Pair> {
    authorities.find(settings.authorities.first()?)
}

/// What a server shows behind its leaf by these settings.
fn crossed(settings: &ClusterSettings, now: OffsetDateTime) -> String {
    let signs = |rotation: &Rotation| rotation.side(rotation.target.signs()).crossed.clone();
    let is_over = |rotation: &Rotation| rotation.distrust && rotation.target == Position::New;
    if settings.rotation.current.as_deref().is_some_and(is_over) {
        return String::new();
    }
    let current = settings.rotation.current.as_deref().map(signs).unwrap_or_default();
    let former: Vec<_> = settings.rotation.former_at(now).collect();
    former.into_iter().rev().fold(current, |all, former| all + &former.crossed)
}
