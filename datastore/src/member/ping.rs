//! Measures round trips on the thread that carries raft's bytes: neither a busy
//! API nor a long list counts, but what raft itself waits for does.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dqlite::MemberId;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinHandle;
use tracing::debug;

use super::dial::{Dialled, greet};
use super::gossip::HealthTable;
use super::listener::PeerStream;
use super::roster::Roster;
use super::tls::{Identity, Protocol};

/// How often each member is asked.
const PERIOD: Duration = Duration::from_millis(500);
/// What an echo may take, in a good network.
const ECHO_TIMEOUT: Duration = Duration::from_secs(2);
/// How long measuring before a start may take.
const FIRST_TIMEOUT: Duration = Duration::from_secs(5);
/// Echoes of which the quickest counts, before a start.
const FIRST_ECHOES: u32 = 5;
/// A connection that is silent for so long has ended.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// What pinging needs.
#[derive(Clone)]
pub struct Ping {
    pub roster: Arc<Roster>,
    pub identity: Identity,
}

impl Ping {
    /// Asks every member, for ever; each by a task of its own.
    pub async fn run(self, health: Arc<HealthTable>) {
        let mut asking: HashMap<MemberId, JoinHandle<()>> = HashMap::new();
        let mut changed = self.roster.subscribe();
        loop {
            changed.borrow_and_update();
            asking.retain(|_, task| !task.is_finished());
            for (id, _) in self.roster.others() {
                let (ping, health) = (self.clone(), health.clone());
                asking.entry(id).or_insert_with(|| tokio::spawn(ping.ask(id, health)));
            }
            // The table is as long-lived as this.
            let _ = changed.changed().await;
        }
    }

    async fn ask(self, id: MemberId, health: Arc<HealthTable>) {
        while self.roster.peer(id).is_some_and(|peer| !peer.removed) {
            if let Err(error) = self.ask_over_one_stream(id, &health).await {
                debug!(member = id.0, %error, "no echo");
            }
            tokio::time::sleep(PERIOD).await;
        }
    }

    async fn ask_over_one_stream(&self, id: MemberId, health: &HealthTable) -> io::Result<()> {
        let mut stream = self.greet(id).await?;
        while self.roster.peer(id).is_some_and(|peer| !peer.removed) {
            let bound = ECHO_TIMEOUT + self.roster.patience();
            health.note_round_trip(id, tokio::time::timeout(bound, time(&mut stream)).await??);
            if let Some(round_trip) = health.round_trip_max(Instant::now()) {
                self.roster.set_live_round_trip(round_trip);
            }
            tokio::time::sleep(PERIOD).await;
        }
        Ok(())
    }

    /// The largest round trip to any member that answers, before a start.
    /// Others have as long again as the first one took.
    pub async fn first(&self) -> Option<Duration> {
        let others = self.roster.others();
        let mut all: FuturesUnordered<_> =
            others.iter().map(|(id, _)| self.quickest(*id)).collect();
        let began = Instant::now();
        let (mut largest, mut bound) = (None, FIRST_TIMEOUT);
        while let Ok(Some(answer)) = tokio::time::timeout(bound, all.next()).await {
            largest = largest.max(answer.ok());
            bound = if largest.is_some() { began.elapsed() } else { FIRST_TIMEOUT };
        }
        largest
    }

    async fn greet(&self, id: MemberId) -> io::Result<Dialled> {
        greet(&self.roster, &self.identity, Protocol::Ping, id).await
    }

    async fn quickest(&self, id: MemberId) -> io::Result<Duration> {
        let mut stream = self.greet(id).await?;
        let mut quickest = time(&mut stream).await?;
        for _ in 1..FIRST_ECHOES {
            quickest = quickest.min(time(&mut stream).await?);
        }
        Ok(quickest)
    }
}

async fn time(stream: &mut Dialled) -> io::Result<Duration> {
    let began = Instant::now();
    stream.write_u8(1).await?;
    stream.flush().await?;
    stream.read_u8().await?;
    Ok(began.elapsed())
}

/// Answers whoever measures.
pub async fn echo(mut stream: Box<PeerStream>) {
    let _: io::Result<()> = async {
        loop {
            let byte = tokio::time::timeout(IDLE_TIMEOUT, stream.read_u8()).await??;
            stream.write_u8(byte).await?;
            stream.flush().await?;
        }
    }
    .await;
}
