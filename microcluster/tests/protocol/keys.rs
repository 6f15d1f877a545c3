//! Keys by their number, the same in every history: Ed25519, whose signatures need no chance. Made
//! once in a process, since thousands of histories use the same ones.

use std::sync::{Arc, Mutex, OnceLock};

use data_encoding::BASE64;
use microcluster::message::SigningRequest;
use microcluster::record::{ClusterSettings, Fingerprint, NodeId};
use microcluster::trust::{
    AuthorityBundle, IssuedLeaf, LeafOrder, Purpose, SignError, Signer, certify,
};
use rcgen::{CertificateParams, DistinguishedName, DnType, Issuer, KeyPair, PublicKeyData};
use rustls_pki_types::PrivatePkcs8KeyDer;
use time::Duration;

use super::plant::Plant;
use super::world::BEGINNING;

/// Keys that one history may use.
const KEYS_MAX: usize = 1 << 16;
/// PKCS#8 around the 32 bytes of an Ed25519 key.
const PKCS8_HEAD: [u8; 16] = [48, 46, 2, 1, 0, 48, 5, 6, 3, 43, 101, 112, 4, 34, 4, 32];

/// A key with what is made of it.
pub struct Key {
    pub public_key: Vec<u8>,
    pub id: NodeId,
    request: String,
}

impl Key {
    /// A request for a certificate, without any name.
    pub fn request(&self, purpose: Purpose) -> SigningRequest {
        SigningRequest { purpose, request: self.request.clone() }
    }
}

/// The key of this number.
pub fn key(number: usize) -> &'static Key {
    static KEYS: OnceLock<Vec<OnceLock<Key>>> = OnceLock::new();
    let keys = KEYS.get_or_init(|| (0..KEYS_MAX).map(|_| OnceLock::new()).collect());
    assert!(number < KEYS_MAX, "a history needs more keys than there are");
    keys[number].get_or_init(|| {
        let pair = pair(number as u64 + 1);
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let request = params.serialize_request(&pair).expect("a request can be signed");
        let public_key = pair.subject_public_key_info();
        Key { id: NodeId::of_key(&public_key), request: BASE64.encode(request.der()), public_key }
    })
}

fn pair(seed: u64) -> KeyPair {
    let mut pkcs8 = PKCS8_HEAD.to_vec();
    pkcs8.extend([seed.to_be_bytes(); 4].concat());
    KeyPair::try_from(&PrivatePkcs8KeyDer::from(pkcs8)).expect("32 bytes are a key")
}

/// The authority of every history.
pub struct Authority {
    pub fingerprint: Fingerprint,
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

pub fn authority() -> &'static Authority {
    static AUTHORITY: OnceLock<Authority> = OnceLock::new();
    AUTHORITY.get_or_init(|| {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "the sea");
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.not_before = BEGINNING - Duration::days(3650);
        params.not_after = BEGINNING + Duration::days(3650);
        let certificate = params.self_signed(&pair(0)).expect("an authority can be signed");
        let issuer = Issuer::from_ca_cert_der(certificate.der(), pair(0));
        Authority {
            fingerprint: Fingerprint::of(certificate.der()),
            pem: certificate.pem(),
            issuer: issuer.expect("an authority can sign"),
        }
    })
}

/// Production's way to sign, with that authority. Sealing writes down for whom.
#[derive(Clone)]
pub struct SimSigner {
    pub plant: Option<Plant>,
    pub last: Arc<Mutex<Option<IssuedLeaf>>>,
}

impl Signer for SimSigner {
    fn sign(&self, order: &LeafOrder, _: &ClusterSettings) -> Result<IssuedLeaf, SignError> {
        let issued = certify(order, &authority().issuer)?;
        if self.plant == Some(Plant::LeafOfAnother) {
            let mut last = self.last.lock().unwrap();
            return Ok(match &*last {
                Some(other) if other.purpose == issued.purpose => other.clone(),
                _ => last.insert(issued).clone(),
            });
        }
        Ok(issued)
    }

    fn bundle(&self, _: &ClusterSettings) -> AuthorityBundle {
        AuthorityBundle { cluster: authority().pem.clone(), front_proxy: String::new() }
    }

    fn seal(&self, recipient: &str, _: &ClusterSettings) -> Result<String, SignError> {
        Ok(format!("sealed to {recipient}"))
    }
}
