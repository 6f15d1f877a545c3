//! The cluster's keys on their way to a control-plane node that joins: sealed to a key that the
//! joiner has made for this and forgets, since the answer passes through the agents of both.
//!
//! A worker never gets them: who asks for a worker's place has no recipient.

use std::path::{Path, PathBuf};
use std::{fs, io};

use age::x25519;
use data_encoding::BASE64;
use microcluster::record::Fingerprint;
use microcluster::trust::AuthorityBundle;
use rcgen::{KeyPair, PublicKeyData};
use serde::{Deserialize, Serialize};
use x509_parser::pem::Pem;

use crate::pki::{StoreError, write_private};

/// What every control-plane node has, and where it lies below the node's `pki`.
const CLUSTER_KEY: &str = "ca.key";
const CLUSTER_CERTIFICATE: &str = "ca.crt";
const FRONT_PROXY_KEY: &str = "front-proxy-ca.key";
const FRONT_PROXY_CERTIFICATE: &str = "front-proxy-ca.crt";
const SERVICE_ACCOUNT_KEY: &str = "service-account.key";
const ENCRYPTION: &str = "encryption.yaml";

/// See the module's words.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterKeys {
    cluster: String,
    front_proxy: String,
    /// Signs the tokens of service accounts.
    service_account: String,
    /// Under which Secrets are stored.
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
    #[error("the key of {0} does not fit its certificate")]
    Foreign(&'static str),
    #[error(transparent)]
    Store(#[from] StoreError),
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

    /// The keys, when they are those of the authorities in the bundle, which the joiner has
    /// compared with its token.
    pub fn open(
        &self,
        sealed: Option<&str>,
        bundle: &AuthorityBundle,
    ) -> Result<ClusterKeys, SealError> {
        let sealed = BASE64.decode(sealed.ok_or(SealError::Missing)?.as_bytes());
        let opened = age::decrypt(&self.0, &sealed.map_err(|_| SealError::Open)?);
        let opened = opened.map_err(|_| SealError::Open)?;
        let keys: ClusterKeys = serde_json::from_slice(&opened).map_err(|_| SealError::Open)?;
        check(&keys.cluster, &bundle.cluster, "the cluster's authority")?;
        check(&keys.front_proxy, &bundle.front_proxy, "the front proxy's authority")?;
        Ok(keys)
    }
}

impl ClusterKeys {
    /// Of a control-plane node, whose `pki` that is.
    pub fn read(pki: &Path) -> Result<Self, SealError> {
        let read = |name: &str| {
            let path = pki.join(name);
            fs::read_to_string(&path).map_err(|error| SealError::Read(path, error))
        };
        Ok(Self {
            cluster: read(CLUSTER_KEY)?,
            front_proxy: read(FRONT_PROXY_KEY)?,
            service_account: read(SERVICE_ACCOUNT_KEY)?,
            encryption: read(ENCRYPTION)?,
        })
    }

    /// So that only the holder of `recipient` can read them.
    pub fn seal(&self, recipient: &str) -> Result<String, SealError> {
        let to: x25519::Recipient =
            recipient.parse().map_err(|_| SealError::Recipient(recipient.into()))?;
        let text = serde_json::to_vec(self).expect("texts can be written");
        age::encrypt(&to, &text).map(|sealed| BASE64.encode(&sealed)).map_err(SealError::Seal)
    }

    /// Puts them where a control-plane node has them, each key before its certificate.
    pub fn store(&self, bundle: &AuthorityBundle, pki: &Path) -> Result<(), SealError> {
        for (name, text, mode) in [
            (CLUSTER_KEY, &self.cluster, 0o600),
            (FRONT_PROXY_KEY, &self.front_proxy, 0o600),
            (SERVICE_ACCOUNT_KEY, &self.service_account, 0o600),
            (ENCRYPTION, &self.encryption, 0o600),
            (CLUSTER_CERTIFICATE, &bundle.cluster, 0o644),
            (FRONT_PROXY_CERTIFICATE, &bundle.front_proxy, 0o644),
        ] {
            write_private(&pki.join(name), text.as_bytes(), mode, (0, 0))?;
        }
        Ok(())
    }
}

/// Whether a key is that of the first certificate, which is the one that signs.
fn check(key: &str, certificates: &str, whose: &'static str) -> Result<(), SealError> {
    let key = KeyPair::from_pem(key).map_err(|_| SealError::Foreign(whose))?;
    let first = Pem::iter_from_buffer(certificates.as_bytes()).filter_map(Result::ok).next();
    let first = first.ok_or(SealError::Foreign(whose))?;
    let certificate = first.parse_x509().map_err(|_| SealError::Foreign(whose))?;
    let fits = Fingerprint::of(certificate.public_key().raw)
        == Fingerprint::of(&key.subject_public_key_info());
    if fits { Ok(()) } else { Err(SealError::Foreign(whose)) }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;
    use crate::node::prepare::Authorities;
    use crate::pki;

    const NOW: time::OffsetDateTime = datetime!(2026-11-27 00:00 UTC);

    fn cluster() -> (tempfile::TempDir, ClusterKeys, AuthorityBundle) {
        let dir = tempfile::tempdir().unwrap();
        let authorities = Authorities::ensure(dir.path(), NOW).unwrap();
        pki::service_account_key(dir.path()).unwrap();
        pki::encryption_config(dir.path()).unwrap();
        let bundle = AuthorityBundle {
            cluster: authorities.cluster.certificate_pem().into(),
            front_proxy: authorities.front_proxy.certificate_pem().into(),
        };
        let keys = ClusterKeys::read(dir.path()).unwrap();
        (dir, keys, bundle)
    }

    #[test]
    fn sealed_keys_make_a_node_that_has_the_same() {
        let (_there, keys, bundle) = cluster();
        let opener = Opener::generate();
        let sealed = keys.seal(&opener.recipient()).unwrap();
        assert!(!sealed.contains("PRIVATE KEY"));
        let here = tempfile::tempdir().unwrap();
        opener.open(Some(&sealed), &bundle).unwrap().store(&bundle, here.path()).unwrap();
        assert!(ClusterKeys::read(here.path()).unwrap() == keys);
        let same = Authorities::ensure(here.path(), NOW).unwrap();
        assert_eq!(same.cluster.certificate_pem(), bundle.cluster);
    }

    #[test]
    fn keys_for_somebody_else_or_of_another_cluster_are_refused() {
        let (_a, keys, bundle) = cluster();
        let (_b, others, _) = cluster();
        let opener = Opener::generate();
        let recipient = opener.recipient();
        let open = |sealed: Option<&str>| opener.open(sealed, &bundle).err();
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
