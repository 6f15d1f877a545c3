//! The way of this node's own clients to the API: 127.0.0.1, and behind it any API server that is
//! well.
//!
//! Bytes are passed on as they are; TLS is between the client and the API server. Each API server
//! is asked for its health all the time (`check`); who is tried first is decided by `choose`.
//! Clients keep one connection for hours, so those of an API server that has failed are closed
//! when another one is better: they connect anew at once, instead of after the half a minute in
//! which they would notice.
//!
//! ```text
//! kubelet, kubectl ... --> accept --> order --> connect (the next one beside it after 300 ms)
//!                                       ^          | refused
//!    list of members (file) ---> Table -+          v
//!    one task for each of them ------> healthy, unready, down
//! ```

pub mod backends;
mod check;
mod choose;
mod table;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustix::net::sockopt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::{debug, info, warn};

pub use backends::{Backend, BackendsError};
pub use check::{Checker, Timing};
pub use choose::{Candidate, Health, choose_closed, order_candidates};

use crate::race::race;
use table::Table;

/// Connections at the same time: a node has some tens of clients.
const CONNECTIONS_MAX: usize = 2048;
/// An API server that does not accept for so long gets the next one beside it.
const STAGGER: Duration = Duration::from_millis(300);
/// How long one may take to accept.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// What an API server did not acknowledge for so long shows a dead link, whatever its health.
const SILENCE_MAX: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVES_MAX: u32 = 3;
/// Pause after a failed accept, which is for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Passes connections on.
pub struct Balancer {
    listener: TcpListener,
    table: Arc<Table>,
    checker: Checker,
    places: Arc<Semaphore>,
}

impl Balancer {
    /// Over a listener that is bound; `checker` asks API servers for their health.
    pub fn new(listener: TcpListener, checker: Checker) -> Balancer {
        let table = Arc::new(Table::default());
        Balancer { listener, table, checker, places: Arc::new(Semaphore::new(CONNECTIONS_MAX)) }
    }

    /// Passes on for ever, to whoever is in the list at the moment.
    pub async fn run(self, mut list: watch::Receiver<Vec<Backend>>) {
        let mut checks = JoinSet::new();
        let mut passing = JoinSet::new();
        let update = |checks: &mut JoinSet<()>, list: &[Backend]| {
            for backend in self.table.update(list) {
                let (checker, table) = (self.checker.clone(), self.table.clone());
                checks.spawn(async move { checker.run(backend, &table).await });
            }
        };
        update(&mut checks, &list.borrow_and_update());
        loop {
            tokio::select! {
                Ok(()) = list.changed() => update(&mut checks, &list.borrow_and_update()),
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, from)) => self.admit(stream, from, &mut passing),
                    Err(error) => {
                        warn!(%error, "can't accept clients of the API");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
            while passing.try_join_next().is_some() {}
            while checks.try_join_next().is_some() {}
        }
    }

    fn admit(&self, stream: TcpStream, from: SocketAddr, passing: &mut JoinSet<()>) {
        let Ok(place) = self.places.clone().try_acquire_owned() else {
            warn!(%from, CONNECTIONS_MAX, "refused a client of the API: too many connections");
            return refuse(&stream);
        };
        let table = self.table.clone();
        passing.spawn(async move {
            pass(stream, &table).await;
            drop(place);
        });
    }
}

async fn pass(mut client: TcpStream, table: &Table) {
    let candidates = table.order();
    if candidates.is_empty() {
        table.tell_none();
        return refuse(&client);
    }
    let attempts = candidates.into_iter().map(|backend| connect(backend, table));
    let Ok((backend, mut server)) = race(attempts, STAGGER).await else {
        table.tell_none();
        return refuse(&client);
    };
    // It may have been removed in the meantime; the client's next attempt finds another.
    let Some(lease) = table.lease(&backend) else { return refuse(&client) };
    let _ = client.set_nodelay(true);
    tokio::select! {
        ended = tokio::io::copy_bidirectional(&mut client, &mut server) => {
            if let Err(error) = ended {
                debug!(backend = backend.node, %error, "a connection to the API ended");
            }
        }
        () = lease.closed() => {
            debug!(backend = backend.node, "closed a connection to the API: another one is better");
            refuse(&client);
        }
    }
}

async fn connect(backend: Backend, table: &Table) -> Result<(Backend, TcpStream), ()> {
    let connected = timeout(CONNECT_TIMEOUT, TcpStream::connect(backend.address)).await;
    let connected = connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    match connected.and_then(|stream| tune(&stream).map(|()| stream)) {
        Ok(stream) => Ok((backend, stream)),
        Err(error) => {
            table.suspect(&backend, &error);
            Err(())
        }
    }
}

/// No waiting for more to send, and no hanging on a link that is gone for ever.
fn tune(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, KEEPALIVE_INTERVAL)?;
    sockopt::set_tcp_keepintvl(stream, KEEPALIVE_INTERVAL)?;
    sockopt::set_tcp_keepcnt(stream, KEEPALIVES_MAX)?;
    sockopt::set_tcp_user_timeout(stream, SILENCE_MAX.as_millis() as u32)?;
    Ok(())
}

/// A reset, which no client takes for a short answer.
fn refuse(client: &TcpStream) {
    // Without it there is an end instead of a reset.
    let _ = sockopt::set_socket_linger(client, Some(Duration::ZERO));
}

/// Logs who serves, at each change of that.
fn tell_health(backend: &Backend, health: Health, reason: &str) {
    match health {
        Health::Healthy => {
            info!(backend = backend.node, address = %backend.address, "an API server is well")
        }
        _ => {
            info!(backend = backend.node, address = %backend.address, reason, "an API server is not well")
        }
    }
}
