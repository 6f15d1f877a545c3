//! The keys of one side, with their certificates. Which file a key lies in says nothing: it is known
//! by what it fits, so that a crash while files change their places loses nobody.

use std::path::Path;
use std::{fs, io};

use microcluster::record::{AuthorityCertificates, Fingerprint};
use time::{Duration, OffsetDateTime};

use crate::pki::{Authority, AuthorityError, StoreError, service_account_public, write_private};

/// Below the node's `pki`.
pub const NEXT: &str = "next";
pub const CLUSTER_KEY: &str = "ca.key";
pub const FRONT_PROXY_KEY: &str = "front-proxy-ca.key";
pub const SERVICE_ACCOUNT_KEY: &str = "service-account.key";
const FILES: [&str; 3] = [CLUSTER_KEY, FRONT_PROXY_KEY, SERVICE_ACCOUNT_KEY];

/// How long the new authority passes for the old one's: as long as the old one is kept, from a day on
/// that may be a month away.
const CROSSED_LIFE: Duration = Duration::days(400);

/// See the module's words.
#[derive(Clone, Debug)]
pub struct Pair {
    pub cluster: Authority,
    pub front_proxy: Authority,
    /// The key that signs tokens.
    pub service_account: String,
    pub certificates: AuthorityCertificates,
}

impl Pair {
    /// Fresh keys, under names that nobody has had: `number` never comes again.
    pub fn fresh(number: u64, old: &Self, now: OffsetDateTime) -> Result<Self, AuthorityError> {
        let cluster = Authority::fresh(&format!("skiff {number}"), now)?;
        let front_proxy = Authority::fresh(&format!("skiff front proxy {number}"), now)?;
        let key = rcgen::KeyPair::generate().map_err(AuthorityError::Generate)?;
        let crossed = cluster.crossed(&old.cluster, now, CROSSED_LIFE)?;
        Ok(Self::of(cluster, front_proxy, &key, crossed))
    }

    pub fn of(
        cluster: Authority,
        front_proxy: Authority,
        service_account: &rcgen::KeyPair,
        crossed: String,
    ) -> Self {
        let certificates = AuthorityCertificates {
            cluster: cluster.certificate_pem().to_owned(),
            front_proxy: front_proxy.certificate_pem().to_owned(),
            crossed,
            service_account: service_account_public(service_account),
        };
        let service_account = service_account.serialize_pem();
        Self { cluster, front_proxy, service_account, certificates }
    }

    /// The one of these certificates, when all its keys are in `pki` or below.
    pub fn find(pki: &Path, certificates: &AuthorityCertificates) -> Option<Self> {
        let places = [pki.to_owned(), pki.join(NEXT)];
        let texts = |name: &str| {
            let read = |place: &std::path::PathBuf| fs::read_to_string(place.join(name)).ok();
            places.iter().filter_map(read).collect::<Vec<_>>()
        };
        Self::among(certificates, texts)
    }

    /// The same of keys that somebody sent: by their files' names.
    pub fn among(
        certificates: &AuthorityCertificates,
        texts: impl Fn(&str) -> Vec<String>,
    ) -> Option<Self> {
        let authority = |name: &str, certificate: &str| {
            texts(name).iter().find_map(|key| Authority::of(certificate, key))
        };
        let cluster = authority(CLUSTER_KEY, &certificates.cluster)?;
        let front_proxy = authority(FRONT_PROXY_KEY, &certificates.front_proxy)?;
        let fits = |key: &String| {
            let key = rcgen::KeyPair::from_pem(key).ok();
            key.is_some_and(|key| service_account_public(&key) == certificates.service_account)
        };
        let service_account = texts(SERVICE_ACCOUNT_KEY).into_iter().find(fits)?;
        let certificates = certificates.clone();
        Some(Self { cluster, front_proxy, service_account, certificates })
    }

    pub fn fingerprint(&self) -> Option<Fingerprint> {
        self.certificates.fingerprint()
    }

    /// Puts the keys into a directory, one file after the other.
    pub fn store_keys(&self, dir: &Path) -> Result<(), StoreError> {
        let keys = [self.cluster.key_pem(), self.front_proxy.key_pem(), &self.service_account];
        for (name, key) in FILES.into_iter().zip(keys) {
            write_private(&dir.join(name), key.as_bytes(), 0o600, (0, 0))?;
        }
        Ok(())
    }
}

/// Takes the keys beside those of the node away.
pub fn forget_next(pki: &Path) -> io::Result<()> {
    match fs::remove_dir_all(pki.join(NEXT)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
