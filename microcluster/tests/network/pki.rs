//! Authorities and leaves for one test.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use microcluster::tls::{CONTROL_PLANE_NAME, Identity, IdentityFiles, fingerprint};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls_pki_types::CertificateDer;
use time::{Duration, OffsetDateTime};

/// An authority in a directory of its own.
pub struct Pki {
    dir: tempfile::TempDir,
    issuer: Issuer<'static, KeyPair>,
    pub authority: CertificateDer<'static>,
}

/// What a leaf says.
pub struct Leaf {
    pub common_name: &'static str,
    pub names: &'static [&'static str],
    pub usages: Vec<ExtendedKeyUsagePurpose>,
    /// Of its validity, from now.
    pub begins: Duration,
    pub ends: Duration,
}

impl Leaf {
    pub fn control_plane() -> Leaf {
        Leaf {
            common_name: "control-plane",
            names: &[CONTROL_PLANE_NAME],
            usages: vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth],
            begins: -Duration::minutes(10),
            ends: Duration::hours(24),
        }
    }

    /// As kubelets have it, for serving and for asking.
    pub fn kubelet() -> Leaf {
        Leaf { common_name: "system:node:b", names: &["b"], ..Leaf::control_plane() }
    }

    pub fn api_server() -> Leaf {
        Leaf {
            common_name: "kube-apiserver",
            names: &["kubernetes.default.svc"],
            ..Leaf::control_plane()
        }
    }

    pub fn expired(self) -> Leaf {
        Leaf { begins: -Duration::days(31), ends: -Duration::days(30), ..self }
    }
}

impl Pki {
    pub fn new() -> Pki {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "skiff");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.not_before = OffsetDateTime::now_utc() - Duration::days(3650);
        params.not_after = OffsetDateTime::now_utc() + Duration::days(3650);
        let certificate = params.self_signed(&key).unwrap();
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("ca.crt"), certificate.pem()).unwrap();
        let authority = certificate.der().clone();
        Pki { dir, issuer: Issuer::new(params, key), authority }
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// What a token has.
    pub fn sha256(&self) -> [u8; 32] {
        fingerprint(&self.authority)
    }

    /// Certificate and key as PEM.
    pub fn pem(&self, leaf: &Leaf) -> String {
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = leaf.names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name.push(DnType::CommonName, leaf.common_name);
        params.extended_key_usages = leaf.usages.clone();
        params.not_before = OffsetDateTime::now_utc() + leaf.begins;
        params.not_after = OffsetDateTime::now_utc() + leaf.ends;
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        certificate.pem() + &key.serialize_pem()
    }

    /// One file with certificate and key, as on a node.
    pub fn files(&self, name: &str, leaf: &Leaf) -> IdentityFiles {
        let path: PathBuf = self.path().join(name);
        std::fs::write(&path, self.pem(leaf)).unwrap();
        let authority = self.path().join("ca.crt");
        IdentityFiles { certificate: path.clone(), key: path, authority, former: None }
    }

    pub fn identity(&self, name: &str, leaf: &Leaf) -> Arc<Identity> {
        Arc::new(Identity::load(self.files(name, leaf)).unwrap())
    }
}
