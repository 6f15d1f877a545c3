//! Strangers at the port between nodes.

use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::pki::{Leaf, Pki};
use crate::server::Member;
use crate::wire::{LONG, config, connect, hello, rest, send};

/// What a client is told whose protocol nobody speaks.
const ALERT: [u8; 7] = [21, 3, 3, 0, 2, 2, 120];

async fn member(pki: &Pki) -> Member {
    Member::start(pki.identity("a", &Leaf::control_plane())).await
}

#[tokio::test]
async fn a_client_without_a_protocol_of_ours_is_told_so() {
    let pki = Pki::new();
    let member = member(&pki).await;
    assert_eq!(send(member.address, &hello(&[])).await, ALERT);
    assert_eq!(send(member.address, &hello(&["h2", "http/1.1"])).await, ALERT);
}

#[tokio::test]
async fn of_two_protocols_ours_is_spoken() {
    let pki = Pki::new();
    let member = member(&pki).await;
    let config = config(pki.sha256(), &["h2", "skiff-cluster/1"]);
    let stream = connect(member.address, config).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"skiff-cluster/1"[..]));
}

#[tokio::test]
async fn garbage_ends_at_once_and_others_are_served() {
    let pki = Pki::new();
    let member = member(&pki).await;
    let _skiffd = member.skiffd();
    let mut long = hello(&["skiff-cluster/1"]);
    // Says to be longer than a greeting may be, and goes on.
    long[3..5].copy_from_slice(&[0x3f, 0xff]);
    long[6..9].copy_from_slice(&[0, 0xff, 0xff]);
    long.resize(20_000, 0);
    let garbage: [&[u8]; 5] =
        [b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"SSH-2.0-x\r\n", &[0xff; 4096], &[0; 64], &long];
    for bytes in garbage {
        let started = Instant::now();
        assert_eq!(send(member.address, bytes).await, b"");
        assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    }
    assert!(member.is_served(pki.sha256()).await);
}

#[tokio::test]
async fn a_greeting_that_breaks_off_is_left_when_its_sender_goes() {
    let pki = Pki::new();
    let member = member(&pki).await;
    let mut stream = TcpStream::connect(member.address).await.unwrap();
    stream.write_all(&hello(&["skiff-cluster/1"])[..100]).await.unwrap();
    stream.shutdown().await.unwrap();
    let started = Instant::now();
    assert_eq!(rest(&mut stream).await, b"");
    assert!(started.elapsed() < Duration::from_secs(2));
}

#[tokio::test]
async fn a_greeting_may_come_byte_by_byte() {
    let pki = Pki::new();
    let member = member(&pki).await;
    let mut stream = TcpStream::connect(member.address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    for byte in hello(&["skiff-cluster/1"]) {
        stream.write_all(&[byte]).await.unwrap();
        tokio::task::yield_now().await;
    }
    let mut answer = [0; 3];
    let reading = tokio::io::AsyncReadExt::read_exact(&mut stream, &mut answer);
    tokio::time::timeout(LONG, reading).await.unwrap().unwrap();
    assert_eq!(answer, [22, 3, 3], "a handshake message of the server");
}

#[tokio::test]
async fn whoever_stalls_blocks_nobody() {
    let pki = Pki::new();
    let member = member(&pki).await;
    let _skiffd = member.skiffd();
    let greeting = hello(&["skiff-cluster/1"]);
    let mut stalled = Vec::new();
    for number in 0..200 {
        let mut stream = TcpStream::connect(member.address).await.unwrap();
        // In front of, in and after the greeting.
        stream.write_all(&greeting[..number * greeting.len() / 199]).await.unwrap();
        stalled.push(stream);
    }
    let mut slowest = Duration::ZERO;
    for _ in 0..5 {
        let started = Instant::now();
        assert!(member.is_served(pki.sha256()).await);
        slowest = slowest.max(started.elapsed());
    }
    println!("served within {slowest:?} with 200 stalled connections of the same address");
    assert!(slowest < Duration::from_secs(1), "{slowest:?}");
}

#[tokio::test]
async fn who_trickles_bytes_is_left_after_a_while() {
    let pki = Pki::new();
    let member = member(&pki).await;
    let stream = TcpStream::connect(member.address).await.unwrap();
    let (mut reading, mut writing) = stream.into_split();
    let trickle = async {
        for byte in hello(&["skiff-cluster/1"]) {
            if writing.write_all(&[byte]).await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let started = Instant::now();
    tokio::select! {
        left = rest(&mut reading) => assert_eq!(left, b""),
        () = trickle => panic!("it was waited for"),
    }
    let took = started.elapsed();
    assert!((4..8).contains(&took.as_secs()), "{took:?}");
}

#[tokio::test]
async fn ten_thousand_connections_come_and_go_and_leave_nothing() {
    let pki = Pki::new();
    let member = member(&pki).await;
    let _skiffd = member.skiffd();
    assert!(member.is_served(pki.sha256()).await);
    let files = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let started = Instant::now();
    for _ in 0..10_000 {
        // A reset instead of an end leaves no port behind for a minute.
        let stream = TcpStream::connect(member.address).await.unwrap();
        rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
    }
    println!("10 000 connections came and went within {:?}", started.elapsed());
    assert!(member.is_served(pki.sha256()).await);
    // Other tests of this process open files as well, but not thousands.
    assert!(files() < 2000, "{} files are open", files());
}
