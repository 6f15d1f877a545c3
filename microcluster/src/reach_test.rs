use super::*;
use crate::protocol::{TokenSpec, decide_add_token};
use crate::sample::{self, Joiner, NOW};

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn free_port() -> u16 {
    std::net::TcpListener::bind((HERE, 0)).unwrap().local_addr().unwrap().port()
}

/// The token with that seed, as the cluster keeps it.
fn kept(seed: u8) -> TokenRecord {
    let store = sample::store();
    let spec: TokenSpec = sample::spec(NodeRole::Worker);
    let decision = decide_add_token(&store.read_now().unwrap(), &spec, &sample::secret(seed), NOW);
    store.apply_now(&decision.unwrap().changes).unwrap();
    store.read_now().unwrap().tokens[&sample::secret(seed).token_id()].value.clone()
}

/// What a member finds where a joiner with `id` should be.
async fn tried(port: u16, id: NodeId, seed: u8) -> Result<(), String> {
    let address = SocketAddr::new(HERE, port);
    try_port(address, id, &kept(seed)).await.map_err(|error| error.to_string())
}

#[tokio::test]
async fn a_joiner_that_listens_is_reached_and_one_that_has_stopped_is_not() {
    let (joiner, port) = (Joiner::new(1, "alpha"), free_port());
    let listening = listen(&sample::token(1), joiner.id(), HERE, &[port]).await.unwrap();
    for _ in 0..3 {
        assert_eq!(tried(port, joiner.id(), 1).await, Ok(()));
    }
    drop(listening);
    // What was spawned is ended by the runtime, at its next turn.
    tokio::task::yield_now().await;
    assert_eq!(tried(port, joiner.id(), 1).await.unwrap_err(), "the connection is refused");
}

#[tokio::test]
async fn another_joiner_at_that_address_is_told_apart() {
    let (own, other, port) = (Joiner::new(1, "alpha"), Joiner::new(1, "beta"), free_port());
    let another = Err("somebody else answers there".to_owned());
    // With the same token it is another machine still, and with another one it is nobody.
    let _listening = listen(&sample::token(1), other.id(), HERE, &[port]).await.unwrap();
    assert_eq!(tried(port, own.id(), 1).await, another);
    assert_eq!(tried(port, other.id(), 2).await, another);
    assert_eq!(tried(port, other.id(), 1).await, Ok(()));
}

/// A listener that answers each connection in its own way.
fn impostor(answer: impl Fn(&str) -> Vec<u8> + Send + 'static) -> u16 {
    use std::io::{Read, Write};
    let listener = std::net::TcpListener::bind((HERE, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut line = [0; CHALLENGE_LINE_BYTES];
            let _ = stream.read_exact(&mut line);
            let line = String::from_utf8_lossy(&line).trim().to_owned();
            let _ = stream.write_all(&answer(&line));
        }
    });
    port
}

#[tokio::test]
async fn whoever_has_no_token_cannot_answer_for_the_joiner() {
    let joiner = Joiner::new(1, "alpha");
    let id = joiner.id();
    let another = Err("somebody else answers there".to_owned());
    let stated = move |challenge: &str, port: u16| {
        let present = Present { id, port, challenge: challenge.into() };
        serde_json::to_vec(&Proven::state(&sample::token(1), &present).unwrap()).unwrap()
    };
    for port in [
        impostor(|_| vec![]),
        impostor(|_| b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()),
        impostor(|_| vec![b'x'; 100_000]),
        impostor(|challenge| challenge.as_bytes().to_vec()),
        // A proof that was made before, and one for another port.
        impostor(move |_| stated(&"0".repeat(2 * CHALLENGE_BYTES), KUBELET_PORT)),
        impostor(move |challenge| stated(challenge, KUBELET_PORT)),
        // What the same secret has signed for something else.
        impostor(move |_| {
            let joiner = Joiner::new(1, "alpha");
            serde_json::to_vec(&Proven::state(&joiner.token, &joiner.applicant).unwrap()).unwrap()
        }),
    ] {
        assert_eq!(tried(port, id, 1).await, another);
    }
}

#[tokio::test]
async fn a_port_that_says_nothing_is_given_up() {
    // Its connections wait in the kernel, and nobody takes them.
    let listener = std::net::TcpListener::bind((HERE, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let begun = std::time::Instant::now();
    let refused = tried(port, Joiner::new(1, "alpha").id(), 1).await.unwrap_err();
    assert_eq!(refused, "nothing answers within 3 s");
    assert!(begun.elapsed() < 2 * TRY_TIMEOUT);
}

#[tokio::test]
async fn strangers_at_the_joiners_port_get_nothing_signed_but_what_is_a_challenge() {
    let (joiner, port) = (Joiner::new(1, "alpha"), free_port());
    let _listening = listen(&sample::token(1), joiner.id(), HERE, &[port]).await.unwrap();
    for line in ["GET / HTTP/1.1\r\n".repeat(8), "z".repeat(64) + "\n", "0".repeat(65)] {
        let mut stream = TcpStream::connect((HERE, port)).await.unwrap();
        stream.write_all(line.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        // A connection that is closed with something unread ends with an error.
        let _ = stream.read_to_end(&mut answer).await;
        assert!(answer.is_empty(), "{line:?} was answered");
    }
    assert_eq!(tried(port, joiner.id(), 1).await, Ok(()), "strangers kept the member out");
}

#[tokio::test]
async fn only_a_machine_that_asks_is_tried_and_the_refusal_says_what_to_do() {
    let store = sample::store();
    sample::add_token(&store, &sample::spec(NodeRole::Worker), 1);
    let record = store.read_now().unwrap();
    let mut joiner = Joiner::new(1, "alpha");
    joiner.applicant.addresses = vec![HERE];
    // Nobody listens at the kubelet's port of this machine, or it is no joiner.
    let refused = try_joiner(&record, &joiner.ask(), HERE).await.unwrap_err();
    assert_eq!(refused.code, RefusalCode::JoinerUnreached);
    assert!(refused.message.contains("TCP port 10250 at 127.0.0.1"), "{refused}");
    assert!(refused.hint.contains("let TCP 10250 in"), "{}", refused.hint);
    let from = IpAddr::from([192, 0, 2, 77]);
    let elsewhere = try_joiner(&record, &joiner.ask(), from).await.unwrap_err();
    assert!(elsewhere.hint.contains("came from 192.0.2.77: set `node.address`"), "{elsewhere:?}");
    for other in [joiner.enter(), joiner.undo(), sample::confirm()] {
        try_joiner(&record, &other, HERE).await.unwrap();
    }
    // Somebody without the token makes the member dial nobody.
    joiner.token = sample::token(2);
    try_joiner(&record, &joiner.ask(), HERE).await.unwrap();
}
