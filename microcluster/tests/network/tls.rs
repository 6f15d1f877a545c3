//! Who believes whom.

use std::sync::Arc;
use std::time::Duration;

use microcluster::client::{Client, ClientError};
use microcluster::dial::DialFailure;
use microcluster::tls::{ALPN_CLUSTER, Pin, Standing, control_plane_name};
use rcgen::ExtendedKeyUsagePurpose;
use rustls::client::danger::ServerCertVerifier;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::pki::{Leaf, Pki};
use crate::server::Member;

/// What a joiner with this sha256 finds wrong.
async fn failure(member: &Member, sha256: [u8; 32]) -> DialFailure {
    let secret = json!({ "secret": "s" });
    match member.joiner(sha256).post::<_, Value>("/cluster/v1/ask", &secret).await {
        Err(ClientError::Unreached(mut failures)) => failures.remove(0).1,
        other => panic!("it is not unreached: {other:?}"),
    }
}

#[tokio::test]
async fn a_joiner_believes_the_authority_of_its_token_at_any_address() {
    let pki = Pki::new();
    let member = Member::start(pki.identity("a", &Leaf::control_plane())).await;
    let skiffd = member.skiffd();
    assert!(member.is_served(pki.sha256()).await);
    assert_eq!(skiffd.seen()[0].caller.certificate, None);
}

#[tokio::test]
async fn a_wrong_fingerprint_is_refused_and_nothing_secret_is_sent() {
    let pki = Pki::new();
    let member = Member::start(pki.identity("a", &Leaf::control_plane())).await;
    let skiffd = member.skiffd();
    let mut wrong = pki.sha256();
    wrong[31] ^= 1;
    let failure = failure(&member, wrong).await;
    let found = Some(pki.sha256());
    assert!(matches!(failure, DialFailure::OtherAuthority { found: f } if f == found), "{failure}");
    assert!(skiffd.seen().is_empty());
}

#[tokio::test]
async fn who_sits_between_with_an_authority_of_the_same_name_is_refused() {
    let (pki, attacker) = (Pki::new(), Pki::new());
    let between = Member::start(attacker.identity("a", &Leaf::control_plane())).await;
    let failure = failure(&between, pki.sha256()).await;
    assert!(matches!(failure, DialFailure::OtherAuthority { found: Some(_) }), "{failure}");
}

#[tokio::test]
async fn who_sits_between_and_shows_the_true_authority_without_its_key_is_refused() {
    let (pki, attacker) = (Pki::new(), Pki::new());
    let pem = attacker.pem(&Leaf::control_plane());
    let key = PrivateKeyDer::from_pem_slice(pem.as_bytes()).unwrap();
    let leaf = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![leaf, pki.authority.clone()], key)
        .unwrap();
    config.alpn_protocols = vec![ALPN_CLUSTER.to_vec()];
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let between = async {
        let (stream, _) = listener.accept().await.unwrap();
        assert!(TlsAcceptor::from(Arc::new(config)).accept(stream).await.is_err());
    };
    let pin = Pin::strict(pki.sha256());
    let client = Client::joiner(vec![address.to_string()], pin).unwrap();
    let (asked, ()) = tokio::join!(client.get::<Value>("/cluster/v1/look"), between);
    let Err(ClientError::Unreached(failures)) = asked else { panic!("{asked:?}") };
    let failure = &failures[0].1;
    assert!(matches!(failure, DialFailure::OtherAuthority { found: None }), "{failure}");
}

#[tokio::test]
async fn a_kubelets_certificate_does_not_make_a_control_plane() {
    let pki = Pki::new();
    let client_only =
        Leaf { usages: vec![ExtendedKeyUsagePurpose::ClientAuth], ..Leaf::control_plane() };
    for leaf in [Leaf::kubelet(), Leaf::api_server(), client_only] {
        let member = Member::start(pki.identity("a", &leaf)).await;
        let failure = failure(&member, pki.sha256()).await;
        assert!(matches!(failure, DialFailure::NotControlPlane), "{}: {failure}", leaf.common_name);
    }
}

#[tokio::test]
async fn an_expired_certificate_is_refused_and_both_clocks_are_told() {
    let pki = Pki::new();
    let member = Member::start(pki.identity("a", &Leaf::control_plane().expired())).await;
    let skiffd = member.skiffd();
    let failure = failure(&member, pki.sha256()).await;
    assert!(matches!(failure, DialFailure::Time(_)), "{failure}");
    assert!(failure.to_string().contains("the clock of this machine says"), "{failure}");
    assert!(skiffd.seen().is_empty());
}

#[tokio::test]
async fn looking_goes_on_with_a_wrong_clock_and_tells_how_far_off_it_is() {
    let pki = Pki::new();
    let member = Member::start(pki.identity("a", &Leaf::control_plane().expired())).await;
    let _skiffd = member.skiffd();
    let pin = Pin::told(pki.sha256());
    let client = Client::joiner(vec![member.address.to_string()], pin.clone()).unwrap();
    client.get::<Value>("/cluster/v1/look").await.unwrap();
    let doubt = pin.doubt().unwrap();
    assert!(doubt.now_s - doubt.validity.not_after_s >= 29 * 24 * 3600);

    let other = Pin::told([7; 32]);
    let client = Client::joiner(vec![member.address.to_string()], other).unwrap();
    let refused = client.get::<Value>("/cluster/v1/look").await;
    assert!(matches!(refused, Err(ClientError::Unreached(_))), "all else is verified");
}

#[tokio::test]
async fn a_members_certificate_is_told_to_skiffd_and_an_expired_one_as_such() {
    let pki = Pki::new();
    let member = Member::start(pki.identity("a", &Leaf::control_plane())).await;
    let skiffd = member.skiffd();
    let cases =
        [(Leaf::kubelet(), Standing::Valid), (Leaf::kubelet().expired(), Standing::Expired)];
    for (leaf, standing) in cases {
        let identity = pki.identity("b", &leaf);
        let client = Client::member(vec![member.address.to_string()], identity.clone());
        client.get::<Value>("/cluster/v1/renew").await.unwrap();
        let shown = skiffd.seen().pop().unwrap().caller.certificate.unwrap();
        assert_eq!(shown.standing, standing);
        let pem = std::fs::read(pki.path().join("b")).unwrap();
        assert_eq!(shown.der, CertificateDer::from_pem_slice(&pem).unwrap().to_vec());
    }
}

#[tokio::test]
async fn a_member_believes_control_planes_of_its_authority_only() {
    let (pki, other) = (Pki::new(), Pki::new());
    let own = pki.identity("b", &Leaf::kubelet());
    let cases = [
        (&pki, Leaf::kubelet(), "its certificate is not that of a control-plane member"),
        (&other, Leaf::control_plane(), "its certificate is not of this cluster's authority"),
        (
            &pki,
            Leaf::control_plane().expired(),
            "its certificate is not valid at this time, or the clock of this machine is wrong",
        ),
    ];
    for (authority, leaf, reason) in cases {
        let member = Member::start(authority.identity("a", &leaf)).await;
        let client = Client::member(vec![member.address.to_string()], own.clone());
        let refused = client.get::<Value>("/cluster/v1/look").await;
        let Err(ClientError::Unreached(failures)) = refused else { panic!("{refused:?}") };
        assert_eq!(failures[0].1.to_string(), reason);
    }
}

#[tokio::test]
async fn a_certificate_of_another_authority_is_refused() {
    let (pki, other) = (Pki::new(), Pki::new());
    let member = Member::start(pki.identity("a", &Leaf::control_plane())).await;
    let skiffd = member.skiffd();
    for leaf in [Leaf::kubelet(), Leaf::kubelet().expired()] {
        let mut files = other.files("b", &leaf);
        files.authority = pki.path().join("ca.crt");
        let identity = Arc::new(microcluster::tls::Identity::load(files).unwrap());
        let client = Client::member(vec![member.address.to_string()], identity.clone());
        let refused = client.get::<Value>("/cluster/v1/renew").await;
        let Err(ClientError::Unreached(failures)) = refused else { panic!("{refused:?}") };
        assert!(matches!(failures[0].1, DialFailure::Alert(_)), "{}", failures[0].1);
    }
    assert!(skiffd.seen().is_empty());
}

#[tokio::test]
async fn a_renewed_identity_is_used_and_connections_go_on() {
    use tokio::io::AsyncWriteExt;

    let pki = Pki::new();
    let files = pki.files("a", &Leaf::control_plane());
    let identity = Arc::new(microcluster::tls::Identity::load(files.clone()).unwrap());
    let member = Member::start(identity).await;
    let _skiffd = member.skiffd();
    let config = || crate::wire::config(pki.sha256(), &["skiff-cluster/1"]);
    let shown = |stream: &tokio_rustls::client::TlsStream<_>| {
        stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
    };
    let mut before = crate::wire::connect(member.address, config()).await.unwrap();

    // Half of a renewal: the certificate fits no key.
    let new = pki.pem(&Leaf::control_plane());
    let former = std::fs::read_to_string(&files.certificate).unwrap();
    let (certificate, _) = new.split_once("-----BEGIN PRIVATE").unwrap();
    let (_, key) = former.split_once("-----BEGIN PRIVATE").unwrap();
    std::fs::write(&files.key, format!("{certificate}-----BEGIN PRIVATE{key}")).unwrap();
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let half = crate::wire::connect(member.address, config()).await.unwrap();
    assert_eq!(shown(&half), shown(&before), "what does not fit changes nothing");

    std::fs::write(&files.key, new).unwrap();
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let after = crate::wire::connect(member.address, config()).await.unwrap();
    assert_ne!(shown(&after), shown(&before));
    before.write_all(b"GET /cluster/v1/look HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let answer = crate::wire::rest(&mut before).await;
    assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
}

proptest::proptest! {
    #[test]
    fn no_damaged_certificate_is_believed_or_makes_it_panic(
        at: proptest::sample::Index,
        with: Vec<u8>,
        of_authority: bool,
    ) {
        thread_local! {
            // Keys take their time.
            static SHOWN: (Pki, CertificateDer<'static>) = {
                let pki = Pki::new();
                let pem = pki.pem(&Leaf::control_plane());
                (pki, CertificateDer::from_pem_slice(pem.as_bytes()).unwrap())
            };
        }
        SHOWN.with(|(pki, leaf)| {
            let mut damaged = if of_authority { &pki.authority } else { leaf }.to_vec();
            let at = at.index(damaged.len());
            let end = (at + with.len()).min(damaged.len());
            damaged.splice(at..end, with);
            let damaged = CertificateDer::from(damaged);
            let (leaf, authority) =
                if of_authority { (leaf, &damaged) } else { (&damaged, &pki.authority) };
            let chain_is_whole = [leaf, authority] == [leaf, &pki.authority]
                && SHOWN.with(|(_, whole)| whole == leaf);
            let pin = Pin::strict(pki.sha256());
            let verified = pin.verify_server_cert(
                leaf,
                std::slice::from_ref(authority),
                &control_plane_name(),
                &[],
                UnixTime::now(),
            );
            assert_eq!(verified.is_ok(), chain_is_whole);
        });
    }
}
