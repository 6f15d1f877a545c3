//! What is known of each API server, and which connections it serves.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::backends::Backend;
use super::choose::{Candidate, Health, choose_closed, order_candidates};
use super::tell_health;

/// What a check, or a client's connection, found out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    Answers,
    Unready(String),
    Strange(String),
    Refuses(String),
    Silent(String),
}

/// Everything about all of them.
#[derive(Default)]
pub struct Table {
    rows: Mutex<Rows>,
}

#[derive(Default)]
struct Rows {
    all: BTreeMap<Backend, Row>,
    turn: usize,
    /// Whether it was told that nobody is left.
    told_none: bool,
}

struct Row {
    state: State,
    connections: usize,
    /// Ends the connections that there are.
    close: CancellationToken,
    /// Ends the checks.
    removed: CancellationToken,
    /// To be asked now.
    ask: Arc<Notify>,
}

enum State {
    Unknown,
    Answers,
    Unready(Instant, String),
    Strange(String),
    Refuses(Instant, String),
    Silent(String),
}

/// A connection that a backend serves; given back when dropped.
pub struct Lease<'a> {
    table: &'a Table,
    backend: Backend,
    close: CancellationToken,
}

/// What a check of one backend needs of its row.
pub struct Watched {
    pub removed: CancellationToken,
    pub ask: Arc<Notify>,
}

impl Table {
    /// Takes in a list; gives those that are new.
    pub fn update(&self, list: &[Backend]) -> Vec<Backend> {
        let mut rows = self.rows();
        rows.all.retain(|backend, row| {
            let stays = list.contains(backend);
            if !stays {
                info!(backend = backend.node, address = %backend.address, "an API server is no more");
                row.close.cancel();
                row.removed.cancel();
            }
            stays
        });
        let mut new = Vec::new();
        for backend in list {
            if !rows.all.contains_key(backend) {
                rows.all.insert(backend.clone(), Row::default());
                new.push(backend.clone());
            }
        }
        if rows.turn == 0 {
            rows.turn = random();
        }
        new
    }

    /// Whom to try, in this order.
    pub fn order(&self) -> Vec<Backend> {
        let mut rows = self.rows();
        rows.turn = rows.turn.wrapping_add(1);
        let order = order_candidates(&rows.candidates(), rows.turn);
        let names: Vec<&Backend> = rows.all.keys().collect();
        order.into_iter().map(|place| names[place].clone()).collect()
    }

    /// Counts a connection; nothing when the backend is no more.
    pub fn lease(&self, backend: &Backend) -> Option<Lease<'_>> {
        let mut rows = self.rows();
        let row = rows.all.get_mut(backend)?;
        row.connections += 1;
        if row.connections == 1 {
            // It was asked seldom while nobody needed it.
            row.ask.notify_one();
        }
        Some(Lease { table: self, backend: backend.clone(), close: row.close.clone() })
    }

    /// What a check waits for; nothing when the backend is no more.
    pub fn watched(&self, backend: &Backend) -> Option<Watched> {
        let rows = self.rows();
        let row = rows.all.get(backend)?;
        Some(Watched { removed: row.removed.clone(), ask: row.ask.clone() })
    }

    /// Whether clients of this node are there at the moment.
    pub fn is_used(&self, backend: &Backend) -> bool {
        self.rows().all.get(backend).is_some_and(|row| row.connections > 0)
    }

    /// A client could not connect.
    pub fn suspect(&self, backend: &Backend, error: &io::Error) {
        match error.kind() {
            io::ErrorKind::ConnectionRefused => {
                self.report(backend, Finding::Refuses("nobody listens".to_owned()));
            }
            // Whether it is really silent is for the check to find out, which is more patient.
            _ => {
                if let Some(row) = self.rows().all.get(backend) {
                    row.ask.notify_one();
                }
            }
        }
    }

    /// Takes in what was found out, and closes what had better be elsewhere.
    pub fn report(&self, backend: &Backend, finding: Finding) {
        let mut rows = self.rows();
        let Some(row) = rows.all.get_mut(backend) else { return };
        let before = std::mem::discriminant(&row.state);
        row.state = match (finding, &row.state) {
            (Finding::Answers, _) => State::Answers,
            (Finding::Unready(reason), State::Unready(since, _)) => State::Unready(*since, reason),
            (Finding::Unready(reason), _) => State::Unready(Instant::now(), reason),
            (Finding::Strange(reason), _) => State::Strange(reason),
            (Finding::Silent(reason), _) => State::Silent(reason),
            (Finding::Refuses(reason), State::Refuses(since, _)) => State::Refuses(*since, reason),
            (Finding::Refuses(reason), _) => State::Refuses(Instant::now(), reason),
        };
        let is_new = before != std::mem::discriminant(&row.state);
        let is_well = matches!(row.state, State::Answers);
        if is_new {
            tell_health(backend, row.health(), row.reason());
        }
        if is_well {
            rows.told_none = false;
        } else if is_new {
            // What has befallen one may have befallen all.
            rows.all.values().for_each(|row| row.ask.notify_one());
        }
        rows.close();
    }

    /// Says once that nobody is left to serve, and has all asked anew.
    pub fn tell_none(&self) {
        let mut rows = self.rows();
        rows.all.values().for_each(|row| row.ask.notify_one());
        if std::mem::replace(&mut rows.told_none, true) {
            return;
        }
        let reason = |(backend, row): (&Backend, &Row)| {
            format!("{} at {}: {}", backend.node, backend.address, row.reason())
        };
        let reasons: Vec<String> = rows.all.iter().map(reason).collect();
        let reasons =
            if reasons.is_empty() { "none is known".to_owned() } else { reasons.join("; ") };
        warn!(reasons, "no API server can be reached; refusing clients until one can");
    }

    fn rows(&self) -> MutexGuard<'_, Rows> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Rows {
    fn candidates(&self) -> Vec<Candidate> {
        let candidate = |(backend, row): (&Backend, &Row)| Candidate {
            health: row.health(),
            local: backend.local,
            connections: row.connections,
        };
        self.all.iter().map(candidate).collect()
    }

    fn close(&mut self) {
        let closed = choose_closed(&self.candidates());
        for (place, (backend, row)) in self.all.iter_mut().enumerate() {
            if closed.contains(&place) && row.connections > 0 && !row.close.is_cancelled() {
                let connections = row.connections;
                info!(backend = backend.node, connections, "its clients are sent elsewhere");
                // Who comes later, when it is well again, gets the new one.
                std::mem::take(&mut row.close).cancel();
            }
        }
    }
}

impl Row {
    fn health(&self) -> Health {
        match &self.state {
            State::Unknown => Health::Unknown,
            State::Answers => Health::Healthy,
            State::Unready(since, _) => Health::Unready(since.elapsed()),
            State::Strange(_) => Health::Strange,
            State::Refuses(since, _) => Health::Refusing(since.elapsed()),
            State::Silent(_) => Health::Silent,
        }
    }

    fn reason(&self) -> &str {
        match &self.state {
            State::Unknown => "not asked yet",
            State::Answers => "",
            State::Unready(_, reason) | State::Refuses(_, reason) => reason,
            State::Strange(reason) | State::Silent(reason) => reason,
        }
    }
}

impl Default for Row {
    fn default() -> Row {
        Row {
            state: State::Unknown,
            connections: 0,
            close: CancellationToken::new(),
            removed: CancellationToken::new(),
            ask: Arc::default(),
        }
    }
}

impl Lease<'_> {
    /// Waits until the client had better go elsewhere.
    pub async fn closed(&self) {
        self.close.cancelled().await;
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        if let Some(row) = self.table.rows().all.get_mut(&self.backend) {
            row.connections = row.connections.saturating_sub(1);
        }
    }
}

/// Where this node begins: with all at the same one, its API server would have all clients.
fn random() -> usize {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(0) as usize
}
