//! Whether a joiner is reached at the ports that it will need, tried before it is let in.
//!
//! ```text
//!   joiner                                        member
//!   listens on the ports of its role
//!   ask ─────────────────────────────────────>    decides; nothing else is wrong
//!       <─────────────── to each port: a challenge, a line of random digits
//!   "ID is present at PORT", with the challenge,
//!   signed with the token's secret ──────────>    verifies it by the record
//!       <───────────────────────────────────────  asked, or refused with the port
//! ```
//!
//! Only the bearer of the token can answer, and only for itself: whoever else has that address, or
//! sits before it, is told apart from the joiner. A relay that passes both lines on is a way to the
//! joiner, too.
//!
//! Nobody can use a member to look at others' ports: it tries only for who has a token that is good,
//! after all else was right; only the ports that its own table has for the role; only the address
//! that the node would have in the record, which is none of the cluster's own; and the relay bounds
//! how many ask at once and how often one may. What a bearer could learn so it can learn as a node.
//!
//! The ports of the pods' network are not tried: UDP answers nobody who is not expected.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use data_encoding::HEXLOWER;
use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use crate::message::{Applicant, Message, Refusal, RefusalCode, Request};
use crate::record::{ClusterRecord, NodeId, NodeRole};
use crate::token::{JoinToken, Proven, Statement, TokenRecord};

/// Where the kubelet listens, which the API server asks for logs and more.
const KUBELET_PORT: u16 = 10250;
/// Where nodes of the control plane meet.
const CLUSTER_PORT: u16 = 7443;
/// What a port may take, from connecting to the proof; all are tried at once.
const TRY_TIMEOUT: Duration = Duration::from_secs(3);
const CHALLENGE_BYTES: usize = 32;
/// A challenge in hexadecimal digits, and the end of its line.
const CHALLENGE_LINE_BYTES: usize = 2 * CHALLENGE_BYTES + 1;
/// A proof has some 350.
const PROOF_BYTES_MAX: usize = 2048;
/// Connections to a joiner's port at once: one is needed, and strangers may come, too.
const VISITORS_MAX: usize = 16;

/// Where a node of that role must be reached by others.
pub fn ports(role: NodeRole) -> &'static [u16] {
    match role {
        NodeRole::Worker => &[KUBELET_PORT],
        NodeRole::ControlPlane => &[KUBELET_PORT, CLUSTER_PORT],
    }
}

/// What a joiner answers at a port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Present {
    id: NodeId,
    port: u16,
    challenge: String,
}

impl Statement for Present {
    const KIND: &'static str = "present";
}

/// Why a joiner cannot listen.
#[derive(Debug, thiserror::Error)]
#[error("port {port} of this machine cannot be listened on")]
pub struct ListenError {
    pub port: u16,
    #[source]
    pub source: io::Error,
}

/// A joiner that can be tried, until this is dropped.
pub struct Listening {
    _tasks: Vec<AbortOnDropHandle<()>>,
}

/// Listens as the daemons will that have these ports later.
pub async fn listen(
    token: &JoinToken,
    id: NodeId,
    address: IpAddr,
    ports: &[u16],
) -> Result<Listening, ListenError> {
    // Not at the address itself, which may be one that somebody translates into ours.
    let any: IpAddr = match address {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let mut tasks = Vec::new();
    for port in ports.iter().copied() {
        let listener = TcpListener::bind((any, port)).await;
        let listener = listener.map_err(|source| ListenError { port, source })?;
        let task = tokio::spawn(serve(listener, token.clone(), id, port));
        tasks.push(AbortOnDropHandle::new(task));
    }
    Ok(Listening { _tasks: tasks })
}

async fn serve(listener: TcpListener, token: JoinToken, id: NodeId, port: u16) {
    let (token, places) = (Arc::new(token), Arc::new(Semaphore::new(VISITORS_MAX)));
    // A failed accept is for want of descriptors: the member then finds nobody, and says so.
    while let Ok((stream, _)) = listener.accept().await {
        let Ok(place) = places.clone().try_acquire_owned() else { continue };
        let token = token.clone();
        tokio::spawn(async move {
            // Whoever says nothing of use is left.
            let _ = timeout(TRY_TIMEOUT, answer(stream, &token, id, port)).await;
            drop(place);
        });
    }
}

async fn answer(mut stream: TcpStream, token: &JoinToken, id: NodeId, port: u16) -> io::Result<()> {
    let mut line = [0; CHALLENGE_LINE_BYTES];
    stream.read_exact(&mut line).await?;
    let digits = line.strip_suffix(b"\n").filter(|line| HEXLOWER.decode(line).is_ok());
    let challenge = digits.and_then(|digits| std::str::from_utf8(digits).ok());
    let challenge = challenge.ok_or(io::ErrorKind::InvalidData)?.to_owned();
    let proof = Proven::state(token, &Present { id, port, challenge })?;
    stream.write_all(&serde_json::to_vec(&proof)?).await?;
    stream.shutdown().await
}

/// Why a port of a joiner is of no use.
#[derive(Debug, thiserror::Error)]
enum TryError {
    #[error("nothing answers within {} s", TRY_TIMEOUT.as_secs())]
    Silent,
    #[error("the connection is refused")]
    Refused,
    #[error("{0}")]
    Unreachable(io::Error),
    #[error("somebody else answers there")]
    Another,
}

/// Tries the ports of who asks whether it may join. `from` is where the request came from.
/// Nothing but *ask* has ports to be tried, and one that is joining already listens no more.
pub async fn try_joiner(
    record: &ClusterRecord,
    message: &Message,
    from: IpAddr,
) -> Result<(), Refusal> {
    let Request::Ask(proven) = &message.request else { return Ok(()) };
    let Some(token) = record.tokens.get(&proven.token) else { return Ok(()) };
    let Ok(applicant) = proven.open::<Applicant>(&token.value) else { return Ok(()) };
    let Some(address) = applicant.addresses.first() else { return Ok(()) };
    if record.member(applicant.id).is_some() {
        return Ok(());
    }
    let tries = ports(applicant.role).iter().copied().map(|port| {
        let tried = try_port(SocketAddr::new(*address, port), applicant.id, &token.value);
        async move { tried.await.map_err(|error| (port, error)) }
    });
    match futures::future::try_join_all(tries).await {
        Ok(_) => Ok(()),
        Err((port, error)) => Err(refusal(*address, port, &error, from)),
    }
}

fn refusal(address: IpAddr, port: u16, error: &TryError, from: IpAddr) -> Refusal {
    let message = format!("the member cannot reach TCP port {port} at {address}: {error}");
    let hint = match from == address {
        true => format!("let TCP {port} in, on the joining machine and on the way to it"),
        false => format!(
            "the request came from {from}: set `node.address` to where the cluster's nodes reach \
             the joining machine, and let TCP {port} in there"
        ),
    };
    Refusal::new(RefusalCode::JoinerUnreached, message).hint(hint)
}

async fn try_port(address: SocketAddr, id: NodeId, token: &TokenRecord) -> Result<(), TryError> {
    match timeout(TRY_TIMEOUT, challenge(address, id, token)).await {
        Ok(outcome) => outcome,
        Err(_) => Err(TryError::Silent),
    }
}

async fn challenge(address: SocketAddr, id: NodeId, token: &TokenRecord) -> Result<(), TryError> {
    let mut random = [0; CHALLENGE_BYTES];
    let drawn = SystemRandom::new().fill(&mut random);
    drawn.map_err(|_| TryError::Unreachable(io::Error::other("no random numbers")))?;
    let challenge = HEXLOWER.encode(&random);
    let mut stream = TcpStream::connect(address).await.map_err(|error| match error.kind() {
        io::ErrorKind::ConnectionRefused => TryError::Refused,
        io::ErrorKind::TimedOut => TryError::Silent,
        _ => TryError::Unreachable(error),
    })?;
    // Whoever hangs up in the middle is somebody else.
    let another = |_: io::Error| TryError::Another;
    stream.write_all(format!("{challenge}\n").as_bytes()).await.map_err(another)?;
    let mut proof = Vec::new();
    let mut answer = stream.take(PROOF_BYTES_MAX as u64);
    answer.read_to_end(&mut proof).await.map_err(another)?;
    let proven: Proven = serde_json::from_slice(&proof).map_err(|_| TryError::Another)?;
    let present = proven.open::<Present>(token).map_err(|_| TryError::Another)?;
    match present == (Present { id, port: address.port(), challenge }) {
        true => Ok(()),
        false => Err(TryError::Another),
    }
}

#[cfg(test)]
#[path = "reach_test.rs"]
mod tests;
