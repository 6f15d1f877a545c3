//! Requests, and what is made of those that are not as they should be.

use std::time::{Duration, Instant};

use microcluster::client::{Client, ClientError};
use microcluster::dial::DialFailure;
use microcluster::relay::REQUEST_BYTES_MAX;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use crate::pki::{Leaf, Pki};
use crate::server::Member;
use crate::wire::{config, connect, rest, send_tls};

async fn member(pki: &Pki) -> Member {
    Member::start(pki.identity("a", &Leaf::control_plane())).await
}

#[tokio::test]
async fn a_request_comes_to_skiffd_with_its_body_and_who_asks() {
    let pki = Pki::new();
    let member = member(&pki).await;
    let skiffd = member.skiffd();
    let body = json!({ "name": "b" });
    let answer: Value =
        member.joiner(pki.sha256()).post("/cluster/v1/ask?x=1", &body).await.unwrap();
    assert_eq!(answer, json!({ "line": "POST /cluster/v1/ask?x=1", "bytes": 12 }));
    let seen = skiffd.seen().pop().unwrap();
    assert_eq!(seen.body, body.to_string());
    assert!(seen.caller.address.ip().is_loopback());
    assert_eq!(seen.headers["content-type"], "application/json");
}

#[tokio::test]
async fn headers_of_ours_are_never_a_strangers() {
    let pki = Pki::new();
    let member = member(&pki).await;
    let skiffd = member.skiffd();
    let head = "POST /cluster/v1/ask HTTP/1.1\r\nHost: a\r\n\
        Skiff-Caller-Certificate: AAAA\r\nskiff-caller-certificate: BBBB\r\n\
        skiff-caller-expired-certificate: CCCC\r\nSKIFF-CALLER-ADDRESS: 192.0.2.1:1\r\n\
        skiff_caller_certificate: DDDD\r\nX-Forwarded-For: 192.0.2.1\r\n";
    let chunked = format!(
        "{head}Transfer-Encoding: chunked\r\nTrailer: skiff-caller-certificate\r\n\r\n\
         2\r\n{{}}\r\n0\r\nskiff-caller-certificate: EEEE\r\n\r\n"
    );
    let plain = format!("{head}Content-Length: 2\r\n\r\n{{}}");
    for request in [plain, chunked] {
        let answer = send_tls(member.address, pki.sha256(), request.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        let seen = skiffd.seen().pop().unwrap();
        assert_eq!(seen.caller.certificate, None);
        assert!(seen.caller.address.ip().is_loopback());
        assert_eq!(seen.body, "{}");
        let mut names: Vec<&str> = seen.headers.keys().map(|name| name.as_str()).collect();
        names.sort_unstable();
        assert_eq!(names, ["content-length", "host", "skiff-caller-address"]);
    }
}

#[tokio::test]
async fn nothing_is_smuggled_behind_a_request() {
    let pki = Pki::new();
    let member = member(&pki).await;
    let skiffd = member.skiffd();
    let second = "GET /cluster/v1/second HTTP/1.1\r\nHost: a\r\n\r\n";
    let requests = [
        format!("GET /cluster/v1/first HTTP/1.1\r\nHost: a\r\n\r\n{second}"),
        format!(
            "POST /cluster/v1/first HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\
             Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n{second}",
            second.len() + 5
        ),
        format!(
            "POST /cluster/v1/first HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\
             Content-Length: {}\r\n\r\n{second}",
            second.len()
        ),
        format!("POST /cluster/v1/first HTTP/1.1\r\nHost: a\r\nContent-Length: +2\r\n\r\n{second}"),
        format!(
            "POST /cluster/v1/first HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: x\r\n\r\n{second}"
        ),
        format!("GET /cluster/v1/first HTTP/1.1\r\nHost: a\r\nA: b\n{second}"),
    ];
    for request in requests {
        send_tls(member.address, pki.sha256(), request.as_bytes()).await;
    }
    let lines: Vec<String> = skiffd.seen().into_iter().map(|seen| seen.line).collect();
    assert!(lines.iter().all(|line| line.ends_with("/first")), "{lines:?}");
}

#[tokio::test]
async fn what_is_too_large_is_refused() {
    let pki = Pki::new();
    let member = member(&pki).await;
    let skiffd = member.skiffd();
    let client = member.joiner(pki.sha256());
    let fits = "x".repeat(REQUEST_BYTES_MAX - 2);
    client.post::<_, Value>("/cluster/v1/ask", &fits).await.unwrap();
    assert_eq!(skiffd.seen().len(), 1);
    let long = "x".repeat(REQUEST_BYTES_MAX + 1);
    let refused = client.post::<_, Value>("/cluster/v1/ask", &long).await;
    let is_told = matches!(&refused, Err(ClientError::Refused { status, .. }) if *status == 413);
    // It is told before all was read, and may be overtaken by the connection's end.
    assert!(is_told || matches!(refused, Err(ClientError::Broken { .. })), "{refused:?}");
    let chunk = format!("{:x}\r\n{long}\r\n", long.len());
    let head = "POST /cluster/v1/ask HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    send_tls(member.address, pki.sha256(), format!("{head}{chunk}").as_bytes()).await;
    let header = format!("GET /cluster/v1/a HTTP/1.1\r\nA: {}\r\n\r\n", "x".repeat(10_000));
    let answer = send_tls(member.address, pki.sha256(), header.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
    assert_eq!(skiffd.seen().len(), 1);
}

#[tokio::test]
async fn other_paths_and_methods_never_come_to_skiffd() {
    let pki = Pki::new();
    let member = member(&pki).await;
    let skiffd = member.skiffd();
    let cases = [
        ("GET /v1/status", 404),
        ("POST /v1/reset", 404),
        ("GET /cluster", 404),
        ("GET http://skiffd/cluster/v1/look", 404),
        ("DELETE /cluster/v1/look", 405),
        ("CONNECT skiffd:80", 405),
    ];
    for (line, status) in cases {
        let request = format!("{line} HTTP/1.1\r\nHost: a\r\n\r\n");
        let answer = send_tls(member.address, pki.sha256(), request.as_bytes()).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{line}: {answer}");
    }
    assert!(skiffd.seen().is_empty());
}

#[tokio::test]
async fn when_skiffd_is_away_the_answer_says_what_to_do() {
    let pki = Pki::new();
    let member = member(&pki).await;
    let request = "GET /cluster/v1/look HTTP/1.1\r\nHost: a\r\n\r\n";
    let answer = send_tls(member.address, pki.sha256(), request.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    let body: skiff_api::ErrorBody = serde_json::from_str(body).unwrap();
    assert_eq!(body.message, "the node daemon of this member is not running");
    assert!(body.hint.unwrap().contains("skiff start"));

    let away = member.joiner(pki.sha256()).get::<Value>("/cluster/v1/look").await;
    let Err(ClientError::Unreached(failures)) = away else { panic!("{away:?}") };
    assert!(matches!(failures[0].1, DialFailure::Away));
    let _skiffd = member.skiffd();
    assert!(member.is_served(pki.sha256()).await, "it is back");
}

#[tokio::test]
async fn strangers_who_ask_too_often_are_slowed_down_and_members_are_not() {
    let pki = Pki::new();
    let member = member(&pki).await;
    let _skiffd = member.skiffd();
    let stranger = member.joiner(pki.sha256());
    let mut refused = None;
    for _ in 0..60 {
        match stranger.get::<Value>("/cluster/v1/look").await {
            Ok(_) => {}
            Err(error) => refused = Some(error),
        }
    }
    let Some(ClientError::Refused { status, body, .. }) = refused else { panic!("{refused:?}") };
    assert_eq!(status, 429);
    assert!(body.hint.is_some());
    let identity = pki.identity("b", &Leaf::kubelet());
    let known = Client::member(vec![member.address.to_string()], identity.clone());
    for _ in 0..60 {
        known.get::<Value>("/cluster/v1/look").await.unwrap();
    }
}

#[tokio::test]
async fn who_stalls_in_a_request_blocks_nobody() {
    let pki = Pki::new();
    let member = member(&pki).await;
    let _skiffd = member.skiffd();
    let head = "POST /cluster/v1/ask HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n";
    let mut stalled = Vec::new();
    for number in 0..38 {
        let config = config(pki.sha256(), &["skiff-cluster/1"]);
        let mut stream = connect(member.address, config).await.unwrap();
        stream.write_all(&head.as_bytes()[..head.len() - number % 2]).await.unwrap();
        stream.flush().await.unwrap();
        stalled.push(stream);
    }
    let identity = pki.identity("b", &Leaf::kubelet());
    let known = Client::member(vec![member.address.to_string()], identity.clone());
    let started = Instant::now();
    known.get::<Value>("/cluster/v1/look").await.unwrap();
    assert!(member.is_served(pki.sha256()).await);
    // Those who came first were left for it, long before their time was over.
    rest(&mut stalled[0]).await;
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
}
