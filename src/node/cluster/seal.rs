//! The cluster's keys on their way to a control-plane node that joins: sealed to a key that the
//! joiner has made for this and forgets, since the answer passes through the agents of both.
//!
//! A worker never gets them: who asks for a worker's place has no recipient.

use std::path::{Path, PathBuf};
use std::{fs, io};

use age::x25519;
use data_encoding::BASE64;
use microcluster::record::{AuthorityCertificates, Rotation};
use microcluster::trust::AuthorityBundle;
use serde::{Deserialize, Serialize};

use crate::node::authorities::{
    AuthoritiesError, CLUSTER_CERTIFICATE, CLUSTER_KEY, FRONT_PROXY_CERTIFICATE, FRONT_PROXY_KEY,
    Pair, SERVICE_ACCOUNT_KEY, Standing, StandingError, TwoSides, store_next,
};
use crate::pki::{StoreError, service_account_public, write_private};

/// What every control-plane node has besides, below its `pki`.
const ENCRYPTION: &str = "encryption.yaml";

/// See the module's words.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterKeys {
    #[serde(flatten)]
    side: SideKeys,
    /// Those that take the place of these, while they do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    next: Option<SideKeys>,
    /// Under which Secrets are stored.
    encryption: String,
}

/// One set of keys.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
struct SideKeys {
    cluster: String,
    front_proxy: String,
    /// Signs the tokens of service accounts.
    service_account: String,
}

/// Keys that fit what the cluster's record says.
pub struct OpenedKeys {
    pub side: Pair,
    pub next: Option<Pair>,
    encryption: String,
}

#[derive(Debug, thiserror::Error)]
pub enum SealError {
    #[error("cannot read {}", .0.display())]
    Read(PathBuf, #[source] io::Error),
    #[error("{0:?} is no recipient of age")]
    Recipient(String),
    #[error("the keys cannot be sealed")]
    Seal(#[source] age::EncryptError),
    #[error("the cluster sent no keys, which a control-plane node needs")]
    Missing,
    #[error("the cluster's keys are damaged or sealed for somebody else")]
    Open,
    #[error("the keys of {0} do not fit their certificates")]
    Foreign(&'static str),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Standing(#[from] StandingError),
    #[error(transparent)]
    Authorities(#[from] AuthoritiesError),
}

/// Opens what was sealed to it.
pub struct Opener(x25519::Identity);

impl Opener {
    /// A fresh one.
    pub fn generate() -> Self {
        Self(x25519::Identity::generate())
    }

    /// To whom the keys are to be sealed.
    pub fn recipient(&self) -> String {
        self.0.to_public().to_string()
    }

    /// The keys, when they are those of the authorities in the bundle, or of both while one takes the
    /// other's place. The joiner has compared them with its token.
    pub fn open(
        &self,
        sealed: Option<&str>,
        bundle: &AuthorityBundle,
        rotation: Option<&Rotation>,
    ) -> Result<OpenedKeys, SealError> {
        let sealed = BASE64.decode(sealed.ok_or(SealError::Missing)?.as_bytes());
        let opened = age::decrypt(&self.0, &sealed.map_err(|_| SealError::Open)?);
        let opened = opened.map_err(|_| SealError::Open)?;
        let keys: ClusterKeys = serde_json::from_slice(&opened).map_err(|_| SealError::Open)?;
        let ClusterKeys { side, next, encryption } = keys;
        let (side, next) = match (rotation, next) {
            (None, _) => {
                let certificates = side.certificates(bundle)?;
                (side.fitting(&certificates)?, None)
            }
            (Some(rotation), Some(next)) => {
                (side.fitting(&rotation.old)?, Some(next.fitting(&rotation.new)?))
            }
            (Some(_), None) => return Err(SealError::Missing),
        };
        Ok(OpenedKeys { side, next, encryption })
    }
}

impl ClusterKeys {
    /// Of a control-plane node, whose `pki` that is.
    pub fn of(side: &Pair, next: Option<&Pair>, pki: &Path) -> Result<Self, SealError> {
        let path = pki.join(ENCRYPTION);
        let encryption = fs::read_to_string(&path).map_err(|error| SealError::Read(path, error))?;
        Ok(Self { side: SideKeys::of(side), next: next.map(SideKeys::of), encryption })
    }

    /// So that only the holder of `recipient` can read them.
    pub fn seal(&self, recipient: &str) -> Result<String, SealError> {
        let to: x25519::Recipient =
            recipient.parse().map_err(|_| SealError::Recipient(recipient.into()))?;
        let text = serde_json::to_vec(self).expect("texts can be written");
        age::encrypt(&to, &text).map(|sealed| BASE64.encode(&sealed)).map_err(SealError::Seal)
    }
}

impl SideKeys {
    fn of(pair: &Pair) -> Self {
        Self {
            cluster: pair.cluster.key_pem().to_owned(),
            front_proxy: pair.front_proxy.key_pem().to_owned(),
            service_account: pair.service_account.clone(),
        }
    }

    /// What nobody has certified of them follows from the key.
    fn certificates(&self, bundle: &AuthorityBundle) -> Result<AuthorityCertificates, SealError> {
        let key = rcgen::KeyPair::from_pem(&self.service_account);
        let key = key.map_err(|_| SealError::Foreign("service accounts"))?;
        Ok(AuthorityCertificates {
            cluster: bundle.cluster.clone(),
            front_proxy: bundle.front_proxy.clone(),
            crossed: String::new(),
            service_account: service_account_public(&key),
        })
    }

    fn fitting(&self, certificates: &AuthorityCertificates) -> Result<Pair, SealError> {
        let texts = |name: &str| match name {
            CLUSTER_KEY => vec![self.cluster.clone()],
            FRONT_PROXY_KEY => vec![self.front_proxy.clone()],
            SERVICE_ACCOUNT_KEY => vec![self.service_account.clone()],
            _ => vec![],
        };
        Pair::among(certificates, texts).ok_or(SealError::Foreign("the cluster's authorities"))
    }
}

impl OpenedKeys {
    /// Puts them where a control-plane node has them, keys before certificates. While one takes the
    /// place of the other, the node begins where all go.
    pub fn store(&self, rotation: Option<&Rotation>, pki: &Path) -> Result<(), SealError> {
        self.side.store_keys(pki)?;
        write_private(&pki.join(ENCRYPTION), self.encryption.as_bytes(), 0o600, (0, 0))?;
        if let (Some(next), Some(rotation)) = (&self.next, rotation) {
            store_next(pki, next)?;
            let two = TwoSides {
                old: rotation.old.clone(),
                new: rotation.new.clone(),
                at: rotation.target,
                doing: None,
            };
            let standing = Standing { two: Some(Box::new(two)), ..Standing::default() };
            standing.write(pki)?;
        }
        let certificates = &self.side.certificates;
        for (name, text) in [
            (CLUSTER_CERTIFICATE, &certificates.cluster),
            (FRONT_PROXY_CERTIFICATE, &certificates.front_proxy),
        ] {
            write_private(&pki.join(name), text.as_bytes(), 0o644, (0, 0))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use microcluster::record::{Position, Way};
    use time::macros::datetime;

    use super::*;
    use crate::node::authorities::Authorities;
    use crate::pki;

    const NOW: time::OffsetDateTime = datetime!(2026-11-27 00:00 UTC);

    fn cluster() -> (tempfile::TempDir, ClusterKeys, AuthorityBundle) {
        let dir = tempfile::tempdir().unwrap();
        let authorities = Authorities::ensure(dir.path(), NOW).unwrap();
        pki::encryption_config(dir.path()).unwrap();
        let believed = authorities.believed();
        let bundle = AuthorityBundle {
            cluster: believed.cluster.clone(),
            front_proxy: believed.front_proxy.clone(),
        };
        let pair = authorities.find(&believed.fingerprint().unwrap()).unwrap();
        let keys = ClusterKeys::of(pair, None, dir.path()).unwrap();
        (dir, keys, bundle)
    }

    #[test]
    fn sealed_keys_make_a_node_that_has_the_same() {
        let (_there, keys, bundle) = cluster();
        let opener = Opener::generate();
        let sealed = keys.seal(&opener.recipient()).unwrap();
        assert!(!sealed.contains("PRIVATE KEY"));
        let here = tempfile::tempdir().unwrap();
        let opened = opener.open(Some(&sealed), &bundle, None).unwrap();
        opened.store(None, here.path()).unwrap();
        let same = Authorities::ensure(here.path(), NOW).unwrap();
        assert_eq!(same.believed().cluster, bundle.cluster);
        let pair = same.find(&same.believed().fingerprint().unwrap()).unwrap();
        assert!(ClusterKeys::of(pair, None, here.path()).unwrap() == keys);
    }

    #[test]
    fn who_joins_while_one_takes_the_place_of_the_other_has_both_and_begins_where_all_go() {
        let (there, keys, bundle) = cluster();
        let authorities = Authorities::ensure(there.path(), NOW).unwrap();
        let old = authorities.find(&authorities.believed().fingerprint().unwrap()).unwrap();
        let new = Pair::fresh(2, old, NOW).unwrap();
        let rotation = Rotation {
            target: Position::BothNew,
            way: Way::On,
            old: old.certificates.clone(),
            new: new.certificates.clone(),
            since: NOW,
            complete: None,
            hold_s: 0,
            finished: false,
            without: Default::default(),
            distrust: false,
        };
        let opener = Opener::generate();
        let both = ClusterKeys::of(old, Some(&new), there.path()).unwrap();
        let sealed = both.seal(&opener.recipient()).unwrap();
        let opened = opener.open(Some(&sealed), &bundle, Some(&rotation)).unwrap();
        let here = tempfile::tempdir().unwrap();
        opened.store(Some(&rotation), here.path()).unwrap();
        let same = Authorities::ensure(here.path(), NOW).unwrap();
        assert_eq!(same.cluster.certificate_pem(), new.certificates.cluster);
        assert_eq!(
            same.believed().cluster,
            format!("{}{}", new.certificates.cluster, old.certificates.cluster)
        );
        assert_eq!(same.crossed(), new.certificates.crossed);
        // One set is not enough, and another cluster's is none.
        let alone = keys.seal(&opener.recipient()).unwrap();
        let open = |sealed: &str| opener.open(Some(sealed), &bundle, Some(&rotation)).err();
        assert!(matches!(open(&alone), Some(SealError::Missing)));
        let stranger = Pair::fresh(2, old, NOW).unwrap();
        let stranger = ClusterKeys::of(old, Some(&stranger), there.path()).unwrap();
        let stranger = stranger.seal(&opener.recipient()).unwrap();
        assert!(matches!(open(&stranger), Some(SealError::Foreign(_))));
    }

    #[test]
    fn keys_for_somebody_else_or_of_another_cluster_are_refused() {
        let (_a, keys, bundle) = cluster();
        let (_b, others, _) = cluster();
        let opener = Opener::generate();
        let recipient = opener.recipient();
        let open = |sealed: Option<&str>| opener.open(sealed, &bundle, None).err();
        assert!(matches!(open(None), Some(SealError::Missing)));
        for damaged in ["", "%", "AAAA"] {
            assert!(matches!(open(Some(damaged)), Some(SealError::Open)), "{damaged}");
        }
        let stranger = keys.seal(&Opener::generate().recipient()).unwrap();
        assert!(matches!(open(Some(&stranger)), Some(SealError::Open)));
        let foreign = others.seal(&recipient).unwrap();
        assert!(matches!(open(Some(&foreign)), Some(SealError::Foreign(_))));
        assert!(matches!(keys.seal("age1x"), Err(SealError::Recipient(_))));
    }
}
