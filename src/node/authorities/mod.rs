//! The keys that everything in a cluster is signed with, as this node has them at the moment: one set
//! of them, or two while one takes the place of the other.
//!
//! `pki/ca.crt` and its neighbours are made of it, `pki/*.key` hold the old set until the new one is
//! alone, `pki/next/*.key` the new one. A worker has no key, and the certificates all the same.

pub(in crate::node) mod extension;
mod pair;
mod standing;
pub(in crate::node) mod step;

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};

use data_encoding::HEXLOWER;
use microcluster::record::{AuthorityCertificates, Fingerprint, Side};
use sha2::{Digest, Sha256};
use time::OffsetDateTime;

pub use pair::{CLUSTER_KEY, FRONT_PROXY_KEY, NEXT, Pair, SERVICE_ACCOUNT_KEY, forget_next};
pub use standing::{FILE as STANDING_FILE, Standing, StandingError, TwoSides, View};

use crate::pki::{
    self, Authority, AuthorityError, Issuer, StoreError, service_account_key, write_private,
};

pub const CLUSTER_CERTIFICATE: &str = "ca.crt";
pub const FRONT_PROXY_CERTIFICATE: &str = "front-proxy-ca.crt";
pub const SERVICE_ACCOUNT_PUBLIC: &str = "service-account.pub";
/// What was dropped before, for the door.
pub const FORMER_CERTIFICATES: &str = "former.pem";

#[derive(Debug, thiserror::Error)]
pub enum AuthoritiesError {
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    #[error(transparent)]
    Standing(#[from] StandingError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("cannot make {}", path.display())]
    Directory { path: PathBuf, source: std::io::Error },
    #[error("the keys that sign from now on are not on this node yet")]
    Keyless,
}

/// See the module's words.
#[derive(Clone, Debug)]
pub struct Authorities {
    /// What signs here.
    pub cluster: Authority,
    pub front_proxy: Authority,
    service_account: String,
    believed: AuthorityCertificates,
    /// Shown behind what a server shows, PEM.
    crossed: String,
    /// All sets of keys that are here, the old one first.
    pairs: Vec<Pair>,
}

/// Those of a node that runs; they may be others the next time.
#[derive(Clone, Debug)]
pub struct SharedAuthorities(Arc<RwLock<Arc<Authorities>>>);

impl SharedAuthorities {
    pub fn new(authorities: Authorities) -> Self {
        Self(Arc::new(RwLock::new(Arc::new(authorities))))
    }

    pub fn now(&self) -> Arc<Authorities> {
        self.0.read().expect("no holder of this lock panics").clone()
    }

    pub fn set(&self, authorities: Authorities) {
        *self.0.write().expect("no holder of this lock panics") = Arc::new(authorities);
    }
}

impl Authorities {
    /// Those of the node whose keys are below `pki`; made where there are none.
    pub fn ensure(pki: &Path, now: OffsetDateTime) -> Result<Self, AuthoritiesError> {
        let standing = Standing::read(pki)?;
        match &standing.two {
            None => Self::alone(pki, &standing, now),
            Some(two) => Self::between(pki, &standing, two.view(), now),
        }
    }

    fn alone(
        pki: &Path,
        standing: &Standing,
        now: OffsetDateTime,
    ) -> Result<Self, AuthoritiesError> {
        let cluster = Authority::ensure(pki, "ca", "skiff", now)?;
        let front_proxy = Authority::ensure(pki, "front-proxy-ca", "skiff front proxy", now)?;
        let key = service_account_key(pki)?;
        let crossed = standing.crossed_at(now);
        let pair = Pair::of(cluster, front_proxy, &key, String::new());
        Ok(Self {
            cluster: pair.cluster.clone(),
            front_proxy: pair.front_proxy.clone(),
            service_account: pair.service_account.clone(),
            believed: pair.certificates.clone(),
            crossed,
            pairs: vec![pair],
        })
    }

    /// Those of a node between two, as `view` says.
    pub fn between(
        pki: &Path,
        standing: &Standing,
        view: View,
        now: OffsetDateTime,
    ) -> Result<Self, AuthoritiesError> {
        let two = standing.two.as_deref().ok_or(AuthoritiesError::Keyless)?;
        let sides = [Side::Old, Side::New].map(|side| Pair::find(pki, two.side(side)));
        let signs = match (view.signs, &sides) {
            (Side::Old, [Some(old), _]) => old.clone(),
            (Side::New, [_, Some(new)]) => new.clone(),
            _ => return Err(AuthoritiesError::Keyless),
        };
        let crossed = format!("{}{}", signs.certificates.crossed, standing.crossed_at(now));
        let believed = AuthorityCertificates {
            cluster: two.believed(view, |side| &side.cluster),
            front_proxy: two.believed(view, |side| &side.front_proxy),
            service_account: two.believed(view, |side| &side.service_account),
            crossed: String::new(),
        };
        Ok(Self {
            cluster: signs.cluster,
            front_proxy: signs.front_proxy,
            service_account: signs.service_account,
            believed,
            crossed,
            pairs: sides.into_iter().flatten().collect(),
        })
    }

    pub fn of(&self, issuer: Issuer) -> &Authority {
        match issuer {
            Issuer::Cluster => &self.cluster,
            Issuer::FrontProxy => &self.front_proxy,
        }
    }

    /// What is believed here, PEM, the one that signs first.
    pub fn believed(&self) -> &AuthorityCertificates {
        &self.believed
    }

    /// What a server shows behind its leaf, for whoever believes only another authority; PEM.
    pub fn crossed(&self) -> &str {
        &self.crossed
    }

    /// The key that signs tokens of service accounts.
    pub fn service_account(&self) -> &str {
        &self.service_account
    }

    /// The keys of an authority, when they are here.
    pub fn find(&self, authority: &Fingerprint) -> Option<&Pair> {
        self.pairs.iter().find(|pair| pair.fingerprint().as_ref() == Some(authority))
    }

    /// What a control plane must be started anew for: it reads these only at its start.
    pub fn stamp(&self) -> String {
        let mut sum = Sha256::new();
        for text in [&self.believed.cluster, &self.believed.service_account, &self.service_account]
        {
            sum.update(Sha256::digest(text.as_bytes()));
        }
        HEXLOWER.encode(&sum.finalize())
    }

    /// Writes what is believed to where daemons read it.
    pub fn store(&self, pki: &Path) -> Result<(), StoreError> {
        let believed = &self.believed;
        for (name, text) in [
            (CLUSTER_CERTIFICATE, &believed.cluster),
            (FRONT_PROXY_CERTIFICATE, &believed.front_proxy),
            (SERVICE_ACCOUNT_PUBLIC, &believed.service_account),
        ] {
            store_public(&pki.join(name), text)?;
        }
        Ok(())
    }
}

impl Standing {
    fn crossed_at(&self, now: OffsetDateTime) -> String {
        let former = self.former.iter().rev().filter(|former| now < former.until);
        former.map(|former| former.crossed.as_str()).collect()
    }
}

/// Writes a file that everybody may read, when it says something else.
pub fn store_public(path: &Path, text: &str) -> Result<(), StoreError> {
    match fs::read_to_string(path) {
        Ok(there) if there == text => Ok(()),
        _ => write_private(path, text.as_bytes(), 0o644, (0, 0)),
    }
}

/// Puts keys beside those of the node.
pub fn store_next(pki: &Path, pair: &Pair) -> Result<(), AuthoritiesError> {
    let path = pki.join(NEXT);
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&path);
    made.map_err(|source| AuthoritiesError::Directory { path: path.clone(), source })?;
    Ok(pair.store_keys(&path)?)
}

/// Whether a leaf was signed by another authority than this one, as far as its names tell; not of a leaf
/// that cannot be read.
pub fn is_of_another(leaf: &Path, authority_pem: &str) -> bool {
    let over = pki::subject_der(authority_pem);
    pki::inspect(leaf).is_some_and(|leaf| leaf.issuer_der != over)
}
