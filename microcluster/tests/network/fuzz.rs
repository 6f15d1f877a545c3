//! Bytes of anybody, over real sockets. What a task of the door does when it panics is seen by
//! nobody, so panics are counted.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::sync::Once;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use proptest::prelude::*;
use skiff_doorway::handoff::{Handed, Handoff};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use crate::pki::{Leaf, Pki};
use crate::server::Member;
use crate::wire::{LONG, hello, send, send_tls};

/// Who goes on waiting for the rest of a request is not waited for.
const A_LOOK: Duration = Duration::from_millis(60);

static PANICS: AtomicUsize = AtomicUsize::new(0);

/// Runs work in a runtime of its own; how many tasks panicked beneath it.
fn panics(work: impl Future<Output = ()>) -> usize {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let told = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            PANICS.fetch_add(1, Ordering::SeqCst);
            told(panic);
        }));
    });
    let before = PANICS.load(Ordering::SeqCst);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(work);
    PANICS.load(Ordering::SeqCst) - before
}

fn header() -> impl Strategy<Value = String> {
    let name = prop_oneof![
        Just("content-length".to_owned()),
        Just("transfer-encoding".to_owned()),
        Just("Skiff-Caller-Certificate".to_owned()),
        Just("skiff-caller-address".to_owned()),
        Just("skiff-caller-expired-certificate".to_owned()),
        Just("expect".to_owned()),
        Just("connection".to_owned()),
        "[ -~]{0,20}",
    ];
    let value = prop_oneof![
        Just("chunked".to_owned()),
        Just("100-continue".to_owned()),
        Just("18446744073709551616".to_owned()),
        Just("4".to_owned()),
        "[ -~]{0,40}",
        Just("x".repeat(9000)),
    ];
    (name, value).prop_map(|(name, value)| format!("{name}: {value}\r\n"))
}

fn request() -> impl Strategy<Value = Vec<u8>> {
    let method = prop_oneof![Just("GET".to_owned()), Just("POST".to_owned()), "[ -~]{0,9}"];
    let path = prop_oneof![
        Just("/cluster/1".to_owned()),
        Just("/cluster/../v1/reset".to_owned()),
        Just("http://other/cluster/1".to_owned()),
        "/cluster/[ -~]{0,40}",
        "[ -~]{0,40}",
    ];
    let headers = prop::collection::vec(header(), 0..6);
    let body = prop::collection::vec(any::<u8>(), 0..200);
    (method, path, headers, body, any::<bool>()).prop_map(|(method, path, headers, body, ends)| {
        let end = if ends { "connection: close\r\n\r\n" } else { "\r\n" };
        let head = format!("{method} {path} HTTP/1.1\r\nhost: a\r\n{}{end}", headers.concat());
        [head.into_bytes(), body].concat()
    })
}

/// Each is a handshake with a fresh door; the soak asks for more by PROPTEST_CASES.
fn few() -> ProptestConfig {
    let told = std::env::var("PROPTEST_CASES").ok().and_then(|text| text.parse().ok());
    ProptestConfig { cases: told.unwrap_or(48), ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(few())]

    #[test]
    fn fuzz_no_request_makes_the_relay_panic_or_says_who_it_comes_from(
        requests in prop::collection::vec(request(), 1..4),
    ) {
        let found = panics(async {
            let pki = Pki::new();
            let member = Member::start(pki.identity("a", &Leaf::control_plane())).await;
            let skiffd = member.skiffd();
            for request in &requests {
                let said = send_tls(member.address, pki.sha256(), request);
                let _ = timeout(A_LOOK, said).await;
            }
            for seen in skiffd.seen() {
                assert_eq!(seen.caller.certificate, None);
                assert!(seen.caller.address.ip().is_loopback());
                let path = seen.line.split(' ').nth(1).unwrap_or_default();
                assert!(path.starts_with("/cluster/"), "{}", seen.line);
            }
            assert!(member.is_served(pki.sha256()).await);
        });
        prop_assert_eq!(found, 0);
    }

    #[test]
    fn fuzz_no_bytes_make_the_door_panic(
        bytes: Vec<u8>,
        at in 0_usize..300,
        is_greeting: bool,
    ) {
        let found = panics(async {
            let pki = Pki::new();
            let member = Member::start(pki.identity("a", &Leaf::control_plane())).await;
            let _skiffd = member.skiffd();
            let mut said = bytes.clone();
            if is_greeting {
                said = hello(&["skiff-cluster/1"]);
                let at = at.min(said.len());
                let end = (at + bytes.len()).min(said.len());
                said.splice(at..end, bytes.iter().copied());
                said.extend([0; 16]);
            }
            let _ = timeout(A_LOOK, send(member.address, &said)).await;
            assert!(member.is_served(pki.sha256()).await);
        });
        prop_assert_eq!(found, 0);
    }

    #[test]
    fn fuzz_no_bytes_make_the_receiver_of_connections_panic(
        all in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..9), 1..5),
    ) {
        let found = panics(async {
            let dir = tempfile::tempdir().unwrap();
            let socket = dir.path().join("handoff.sock");
            let mut handed = Handed::bind(&socket, 0o660).unwrap();
            for bytes in &all {
                let mut link = UnixStream::connect(&socket).unwrap();
                // It may be left before all is written.
                let _ = link.write_all(bytes);
            }
            let (handoff, courier) = Handoff::new(socket);
            let _carrying = AbortOnDropHandle::new(tokio::spawn(courier.run()));
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let _client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let (stream, from) = listener.accept().await.unwrap();
            assert!(handoff.give(stream).unwrap());
            let taken = timeout(LONG, handed.accept()).await.expect("it is taken").unwrap();
            assert_eq!(taken.peer_addr().unwrap(), from);
        });
        prop_assert_eq!(found, 0);
    }
}
