//! The port between nodes: who comes in says by its first bytes where to.
//!
//! Whoever has not said so yet has a [`Place`], of which there are few and which the next one may
//! take; whoever has said it is elsewhere: with the datastore's process, or in a request that
//! skiffd answers.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tracing::{debug, warn};

use crate::hello::{Hello, peek};
use crate::relay::Relay;
use crate::tls::{ALPN_CLUSTER, ALPN_DATASTORE};
use skiff_doorway::handoff::Handoff;
use skiff_doorway::places::{Place, Places};

/// How long somebody may take to say what is wanted.
const HELLO_TIMEOUT: Duration = Duration::from_secs(5);
/// Connections that have not said it, of one source: several nodes may be behind one address,
const PLACES_OF_SOURCE_MAX: usize = 32;
/// and of all.
const PLACES_MAX: usize = 256;
/// Pause after a failed accept, which is for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// What ends a connection of a protocol that nobody here speaks: TLS's alert
/// `no_application_protocol`.
const ALERT: [u8; 7] = [21, 3, 3, 0, 2, 2, 120];

/// Why the door is not open.
#[derive(Debug, thiserror::Error)]
#[error("can't listen on {address}")]
pub struct DoorError {
    pub address: SocketAddr,
    #[source]
    pub source: io::Error,
}

/// Who serves a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Where {
    Datastore,
    Cluster,
    Nowhere,
}

/// Accepts at the port between nodes.
pub struct Door {
    listeners: Vec<TcpListener>,
    reception: Arc<Reception>,
}

/// What every connection meets.
struct Reception {
    places: Arc<Places>,
    handoff: Handoff,
    relay: Arc<Relay>,
}

impl Door {
    /// Opens it at these addresses.
    pub async fn bind(
        addresses: &[SocketAddr],
        handoff: Handoff,
        relay: Arc<Relay>,
    ) -> Result<Door, DoorError> {
        let mut listeners = Vec::new();
        for address in addresses {
            let bound = TcpListener::bind(address).await;
            listeners.push(bound.map_err(|source| DoorError { address: *address, source })?);
        }
        let places = Places::new(PLACES_OF_SOURCE_MAX, PLACES_MAX);
        Ok(Door { listeners, reception: Arc::new(Reception { places, handoff, relay }) })
    }

    /// Where it listens.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners.iter().filter_map(|listener| listener.local_addr().ok()).collect()
    }

    /// Accepts for ever; connections end with it.
    pub async fn run(self) {
        let all = self.listeners.iter().map(|listener| self.reception.clone().accept(listener));
        join_all(all).await;
        // Without an address there is nothing to do.
        std::future::pending().await
    }
}

impl Reception {
    async fn accept(self: Arc<Self>, listener: &TcpListener) {
        let mut visits = JoinSet::new();
        loop {
            match listener.accept().await {
                Ok((stream, from)) => {
                    let place = self.places.take(from.ip().into());
                    visits.spawn(self.clone().receive(stream, from, place));
                }
                Err(error) => {
                    warn!(%error, "can't accept at the port between nodes");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
            while visits.try_join_next().is_some() {}
        }
    }

    async fn receive(self: Arc<Self>, stream: TcpStream, from: SocketAddr, mut place: Place) {
        let hello = tokio::select! {
            hello = peek(&stream, HELLO_TIMEOUT) => hello,
            () = place.lost() => return debug!(%from, "stalled before it said anything"),
        };
        let hello = match hello {
            Ok(hello) => hello,
            Err(error) => return debug!(%from, %error, "a connection was left"),
        };
        match choose_where(&hello) {
            Where::Datastore => match self.handoff.give(stream) {
                Ok(true) => {}
                Ok(false) => debug!(%from, "too many connections wait for the datastore"),
                Err(error) => debug!(%from, %error, "can't hand over a connection"),
            },
            Where::Cluster => {
                if let Err(error) = stream.set_nodelay(true) {
                    return debug!(%from, %error, "a connection was left");
                }
                self.relay.clone().serve(stream, from, place).await;
            }
            Where::Nowhere => {
                debug!(%from, "speaks no protocol of ours");
                refuse(&stream);
            }
        }
    }
}

/// Decides by the first protocol that is one of ours.
pub fn choose_where(hello: &Hello) -> Where {
    let known = |protocol: &Vec<u8>| match protocol.as_slice() {
        ALPN_CLUSTER => Some(Where::Cluster),
        other if ALPN_DATASTORE.contains(&other) => Some(Where::Datastore),
        _ => None,
    };
    hello.protocols.iter().find_map(known).unwrap_or(Where::Nowhere)
}

/// Says that nobody speaks this. What is not read would make a reset of it, so it is read.
fn refuse(stream: &TcpStream) {
    let mut bytes = [0; 2048];
    while matches!(stream.try_read(&mut bytes), Ok(read) if read == bytes.len()) {}
    // Whoever does not get it sees the end of the connection.
    let _ = stream.try_write(&ALERT);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(protocols: &[&str]) -> Where {
        let protocols = protocols.iter().map(|text| text.as_bytes().to_vec()).collect();
        choose_where(&Hello { protocols })
    }

    #[test]
    fn the_first_protocol_of_ours_decides() {
        assert_eq!(chosen(&["skiff-cluster/1"]), Where::Cluster);
        for protocol in ["skiff-raft/1", "skiff-peer/1", "skiff-ping/1"] {
            assert_eq!(chosen(&[protocol]), Where::Datastore);
        }
        assert_eq!(chosen(&["h2", "skiff-cluster/1", "skiff-raft/1"]), Where::Cluster);
        assert_eq!(chosen(&["skiff-raft/1", "skiff-cluster/1"]), Where::Datastore);
    }

    #[test]
    fn other_protocols_lead_nowhere() {
        for protocols in [&[][..], &["h2", "http/1.1"], &["skiff-cluster/2"], &[""]] {
            assert_eq!(chosen(protocols), Where::Nowhere);
        }
    }
}
