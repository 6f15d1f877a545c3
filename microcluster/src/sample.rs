//! What the tests of this room have in common: an authority, a cluster of one, joiners.

use std::collections::BTreeMap;

use data_encoding::BASE64;
use rcgen::{CertificateParams, DnType, KeyPair, PublicKeyData};
use time::macros::datetime;
use time::{Duration, OffsetDateTime};

use crate::message::{
    Applicant, Choices, Enter, Entrant, GivenUp, LeaveStep, Message, Renew, Request,
    SigningRequest, Undo,
};
use crate::protocol::{Caller, Founder, TokenSpec, decide_add_token, decide_found};
use crate::record::{
    ClusterId, ClusterRecord, ClusterSettings, Fingerprint, NodeId, NodeRole, Rest, RotationRecord,
    SharedSettings,
};
use crate::store::MemoryStore;
use crate::token::{JoinToken, Proven, Secret};
use crate::trust::{
    AuthorityBundle, BACKDATE, IssuedLeaf, LEAF_LIFE, LeafOrder, PeerIdentity, Purpose, SignError,
    Signer, certify,
};
use crate::version::Version;

pub(crate) const NOW: OffsetDateTime = datetime!(2026-11-27 12:00 UTC);
pub(crate) const RELEASE: Version = Version::new(0, 2, 0);
pub(crate) const KUBERNETES: Version = Version::new(1, 36, 3);
pub(crate) const RECIPIENT: &str = "age1qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqq";

pub(crate) fn settings() -> ClusterSettings {
    ClusterSettings {
        cluster: ClusterId("sample".into()),
        pod_cidrs: vec!["10.1.0.0/16".parse().unwrap()],
        service_cidrs: vec!["10.152.183.0/24".parse().unwrap()],
        dns_domain: "cluster.local".into(),
        dns_address: [10, 152, 183, 10].into(),
        api_names: vec![],
        api_port: 6443,
        authorities: vec![Fingerprint::of(b"authority")],
        datastore: None,
        shared: SharedSettings::default(),
        rotation: RotationRecord::default(),
        rest: Rest::default(),
    }
}

pub(crate) fn founder() -> Founder {
    Founder {
        name: "first".parse().unwrap(),
        addresses: vec![[192, 0, 2, 1].into()],
        public_key: b"first".to_vec(),
        release: RELEASE,
        kubernetes: KUBERNETES,
        failure_domain: String::new(),
    }
}

/// A cluster of one, `first`.
pub(crate) fn store() -> MemoryStore {
    let store = MemoryStore::default();
    store.apply_now(&decide_found(&settings(), &founder(), NOW).unwrap().changes).unwrap();
    store
}

pub(crate) fn first() -> PeerIdentity {
    identity("first", NodeId::of_key(b"first"), Fingerprint::of(b"first"))
}

fn identity(name: &str, id: NodeId, key: Fingerprint) -> PeerIdentity {
    PeerIdentity {
        name: name.parse().unwrap(),
        id,
        key,
        fingerprint: Fingerprint::of(name.as_bytes()),
        not_before: NOW - BACKDATE,
        not_after: NOW - BACKDATE + LEAF_LIFE,
    }
}

pub(crate) fn spec(role: NodeRole) -> TokenSpec {
    TokenSpec {
        role,
        name: None,
        labels: BTreeMap::new(),
        taints: vec![],
        ttl: Duration::HOUR,
        uses: 1,
        authority: Fingerprint::of(b"authority"),
    }
}

pub(crate) fn secret(seed: u8) -> Secret {
    Secret::from_bytes([seed; 16])
}

/// The token that joiners have.
pub(crate) fn token(seed: u8) -> JoinToken {
    let address = "192.0.2.1:7443".parse().unwrap();
    JoinToken::new(vec![address], Fingerprint::of(b"authority"), secret(seed)).unwrap()
}

/// Adds that token to the cluster.
pub(crate) fn add_token(store: &MemoryStore, spec: &TokenSpec, seed: u8) {
    let record = store.read_now().unwrap();
    let decision = decide_add_token(&record, spec, &secret(seed), NOW).unwrap();
    store.apply_now(&decision.changes).unwrap();
}

/// A machine that wants to join.
pub(crate) struct Joiner {
    pub key: KeyPair,
    pub applicant: Applicant,
    pub requests: Vec<SigningRequest>,
    pub token: JoinToken,
    pub recipient: Option<String>,
}

impl Joiner {
    /// With the token `seed`, as a worker at 192.0.2.(100 + seed).
    pub(crate) fn new(seed: u8, name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let applicant = Applicant {
            id: NodeId::of_key(&key.subject_public_key_info()),
            name: name.into(),
            role: NodeRole::Worker,
            addresses: vec![[192, 0, 2, 100 + seed].into()],
            kubernetes: KUBERNETES,
            failure_domain: String::new(),
            choices: Choices::default(),
            member_of: None,
            sent: NOW,
        };
        let requests = vec![request(Purpose::Node, &key, &[])];
        Self { key, applicant, requests, token: token(seed), recipient: None }
    }

    /// The same as a control-plane node.
    pub(crate) fn control_plane(seed: u8, name: &str) -> Self {
        let mut joiner = Self::new(seed, name);
        joiner.applicant.role = NodeRole::ControlPlane;
        joiner.recipient = Some(RECIPIENT.into());
        joiner
    }

    pub(crate) fn id(&self) -> NodeId {
        self.applicant.id
    }

    /// With the identity that it is given when it enters.
    pub(crate) fn caller(&self) -> Caller {
        let key = Fingerprint::of(&self.key.subject_public_key_info());
        Caller::Node(identity(&self.applicant.name, self.applicant.id, key))
    }

    pub(crate) fn ask(&self) -> Message {
        message(Request::Ask(Proven::state(&self.token, &self.applicant).unwrap()))
    }

    pub(crate) fn enter(&self) -> Message {
        let entrant = Entrant {
            applicant: self.applicant.clone(),
            requests: self.requests.clone(),
            recipient: self.recipient.clone(),
        };
        message(Request::Enter(Enter::Proven(Proven::state(&self.token, &entrant).unwrap())))
    }

    pub(crate) fn enter_again(&self) -> Message {
        message(Request::Enter(Enter::Again { requests: self.requests.clone() }))
    }

    pub(crate) fn undo(&self) -> Message {
        let given_up = GivenUp { id: self.id() };
        message(Request::Undo(Undo::Proven(Proven::state(&self.token, &given_up).unwrap())))
    }

    pub(crate) fn undo_own(&self) -> Message {
        message(Request::Undo(Undo::Own {}))
    }
}

pub(crate) fn message(request: Request) -> Message {
    Message { release: RELEASE, sent: NOW, request }
}

pub(crate) fn confirm() -> Message {
    message(Request::Confirm {})
}

pub(crate) fn leave(step: LeaveStep) -> Message {
    message(Request::Leave(step))
}

pub(crate) fn renew(requests: Vec<SigningRequest>) -> Renew {
    Renew { requests, ..Renew::default() }
}

/// A signing request with these names: `CN=…`, `O=…`, or an alternative name.
pub(crate) fn request(purpose: Purpose, key: &KeyPair, names: &[&str]) -> SigningRequest {
    SigningRequest { purpose, request: BASE64.encode(&request_der(key, names)) }
}

pub(crate) fn request_der(key: &KeyPair, names: &[&str]) -> Vec<u8> {
    let plain = names.iter().filter(|name| !name.contains('='));
    let mut params =
        CertificateParams::new(plain.map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    for name in names {
        match name.split_once('=') {
            Some(("CN", text)) => params.distinguished_name.push(DnType::CommonName, text),
            Some(("O", text)) => params.distinguished_name.push(DnType::OrganizationName, text),
            Some(("OU", text)) => {
                params.distinguished_name.push(DnType::OrganizationalUnitName, text);
            }
            _ => {}
        }
    }
    params.serialize_request(key).unwrap().der().to_vec()
}

/// An authority for tests; seals by turning nothing into a text.
pub(crate) struct TestSigner {
    pub authority: rcgen::Certificate,
    issuer: rcgen::Issuer<'static, KeyPair>,
}

impl TestSigner {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "test");
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.not_before = NOW - Duration::days(3650);
        params.not_after = NOW + Duration::days(3650);
        let authority = params.self_signed(&key).unwrap();
        let issuer = rcgen::Issuer::from_ca_cert_der(authority.der(), key).unwrap();
        Self { authority, issuer }
    }
}

impl Signer for TestSigner {
    fn sign(&self, order: &LeafOrder, _: &ClusterSettings) -> Result<IssuedLeaf, SignError> {
        certify(order, &self.issuer)
    }

    fn bundle(&self, _: &ClusterSettings) -> AuthorityBundle {
        AuthorityBundle { cluster: self.authority.pem(), front_proxy: String::new() }
    }

    fn seal(&self, recipient: &str, _: &ClusterSettings) -> Result<String, SignError> {
        Ok(format!("sealed to {recipient}"))
    }
}

/// Of the token 1.
pub(crate) fn uses_left(record: &ClusterRecord) -> u32 {
    record.tokens[&secret(1).token_id()].value.uses_left
}
