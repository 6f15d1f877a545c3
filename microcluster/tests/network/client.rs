//! Several addresses, of which some are no good.

use std::sync::Arc;
use std::time::{Duration, Instant};

use microcluster::client::{Client, ClientError};
use microcluster::dial::DialFailure;
use microcluster::tls::Pin;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_util::task::AbortOnDropHandle;

use crate::pki::{Leaf, Pki};
use crate::server::Member;

fn client(pki: &Pki, addresses: Vec<String>) -> Client {
    Client::joiner(addresses, Pin::strict(pki.sha256())).unwrap()
}

/// An address at which nobody listens.
async fn refusing() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap().to_string()
}

/// Somebody who writes these bytes to whoever comes, and goes on reading or not.
async fn talking(bytes: &'static [u8], stays: bool) -> (String, AbortOnDropHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let task = tokio::spawn(async move {
        let mut kept = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.write_all(bytes).await;
            if stays {
                kept.push(stream);
            }
        }
    });
    (address, AbortOnDropHandle::new(task))
}

/// A TLS server of something else, with a certificate of the right authority.
async fn other_tls(pki: &Pki) -> (String, AbortOnDropHandle<()>) {
    let pem = pki.pem(&Leaf::control_plane());
    let leaf = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(pem.as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![leaf, pki.authority.clone()], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let task = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let _ = acceptor.accept(stream).await;
        }
    });
    (address, AbortOnDropHandle::new(task))
}

#[tokio::test]
async fn each_address_is_told_with_its_own_reason() {
    let (pki, other) = (Pki::new(), Pki::new());
    let (http, _http) = talking(b"HTTP/1.1 400 Bad Request\r\n\r\n", true).await;
    let (closing, _closing) = talking(b"", false).await;
    let (tls, _tls) = other_tls(&pki).await;
    let foreign = Member::start(other.identity("a", &Leaf::control_plane())).await;
    let addresses = vec![
        refusing().await,
        http,
        closing,
        tls,
        foreign.address.to_string(),
        "nobody.invalid:7443".to_owned(),
        "no port".to_owned(),
    ];
    let asked = client(&pki, addresses.clone()).get::<Value>("/cluster/v1/look").await;
    let Err(error @ ClientError::Unreached(_)) = asked else { panic!("{asked:?}") };
    let text = error.to_string();
    println!("{text}");
    let ClientError::Unreached(failures) = error else { panic!("it was one") };
    let told: Vec<&String> = failures.iter().map(|(address, _)| address).collect();
    assert_eq!(told, addresses.iter().collect::<Vec<_>>(), "in their order");
    let reasons: Vec<&DialFailure> = failures.iter().map(|(_, failure)| failure).collect();
    assert!(matches!(
        reasons[..],
        [
            DialFailure::Refused,
            DialFailure::NotTls,
            DialFailure::Closed,
            DialFailure::OtherProtocol,
            DialFailure::OtherAuthority { .. },
            DialFailure::Name(_),
            DialFailure::Name(_)
        ]
    ));
    assert!(text.contains(&format!("{}: nobody listens there; ", addresses[0])), "{text}");
}

#[tokio::test]
async fn silent_addresses_cost_a_third_of_a_second_each() {
    let pki = Pki::new();
    let member = Member::start(pki.identity("a", &Leaf::control_plane())).await;
    let _skiffd = member.skiffd();
    let (silent, _one) = talking(b"", true).await;
    let (silent_too, _two) = talking(b"", true).await;
    let client = client(&pki, vec![silent, silent_too, member.address.to_string()]);
    let started = Instant::now();
    client.get::<Value>("/cluster/v1/look").await.unwrap();
    println!("two silent addresses cost {:?}", started.elapsed());
    assert!(started.elapsed() < Duration::from_millis(1500), "{:?}", started.elapsed());

    let started = Instant::now();
    client.get::<Value>("/cluster/v1/look").await.unwrap();
    assert!(started.elapsed() < Duration::from_millis(250), "what worked is tried first");
    assert_eq!(client.address(), Some(member.address.to_string().as_str()));
}

#[tokio::test]
async fn names_and_both_families_are_dialled() {
    let pki = Pki::new();
    let identity = || pki.identity("a", &Leaf::control_plane());
    let four = Member::start(identity()).await;
    let _skiffd = four.skiffd();
    let named = client(&pki, vec![format!("localhost:{}", four.address.port())]);
    named.get::<Value>("/cluster/v1/look").await.unwrap();
    if std::net::TcpListener::bind("[::1]:0").is_err() {
        println!("skipped: no IPv6 here");
        return;
    }
    let six = Member::start_at("[::1]:0", identity()).await;
    let skiffd = six.skiffd();
    let client = client(&pki, vec![six.address.to_string()]);
    client.get::<Value>("/cluster/v1/look").await.unwrap();
    assert!(skiffd.seen()[0].caller.address.is_ipv6());
}

#[tokio::test]
async fn a_member_without_its_skiffd_is_passed_over() {
    let pki = Pki::new();
    let identity = || pki.identity("a", &Leaf::control_plane());
    let (away, there) = (Member::start(identity()).await, Member::start(identity()).await);
    let skiffd = there.skiffd();
    let addresses = vec![away.address.to_string(), there.address.to_string()];
    client(&pki, addresses).post::<_, Value>("/cluster/v1/ask", &1).await.unwrap();
    assert_eq!(skiffd.seen().len(), 1);
}

#[tokio::test]
async fn a_member_that_cannot_is_passed_over_and_counts_when_nobody_can() {
    let pki = Pki::new();
    let identity = || pki.identity("a", &Leaf::control_plane());
    let (one, other) = (Member::start(identity()).await, Member::start(identity()).await);
    let (first, second) = (one.skiffd(), other.skiffd());
    let addresses = vec![one.address.to_string(), refusing().await, other.address.to_string()];
    let client = client(&pki, addresses);
    let seen = || (first.seen().len(), second.seen().len());
    let cannot = |_: &Value| seen() == (1, 0);
    client.post_on::<_, Value>("/cluster/v1/members", &1, cannot).await.unwrap();
    assert_eq!(seen(), (1, 1));
    assert_eq!(client.address(), Some(other.address.to_string().as_str()), "it can");
    // Asked once each, and what the first of them said is the answer.
    let told = client.post_on::<_, Value>("/cluster/v1/members", &12, |_| true).await.unwrap();
    assert_eq!(told["bytes"], 2);
    assert_eq!(seen(), (2, 2));
    client.post::<_, Value>("/cluster/v1/enter", &1).await.unwrap();
    assert_eq!(seen(), (2, 3), "what must not be said twice goes to one");
}

#[tokio::test]
async fn without_addresses_there_is_a_reason_too() {
    let asked = client(&Pki::new(), vec![]).get::<Value>("/cluster/v1/look").await;
    assert!(matches!(asked, Err(ClientError::NoAddress)));
}
