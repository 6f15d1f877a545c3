//! Clients of the members' gRPC surface, which note what they were told.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use datastore_history::chance::Chance;
use datastore_history::promises::KEYS;
use datastore_history::record::{Came, Record, Request, Wish};
use datastore_history::register::Held;
use datastore_history::wishes::{Answer, Call, choose, learn};
use skiff_datastore::Listen;
use skiff_datastore::proto::kv_client::KvClient;
use tokio::sync::watch;
use tonic::transport::Channel;
use tonic::{Code, Status};

/// Of a thousand requests so many go where the one before went.
const STAYS: u64 = 950;

/// Sends requests until told to stop.
pub struct Client {
    /// Where members listen.
    pub sockets: Vec<PathBuf>,
    pub record: Arc<Record>,
    pub chance: Chance,
    pub values: Arc<AtomicU64>,
    pub began: Instant,
    /// How long it waits for an answer.
    pub patience: Duration,
    /// Milliseconds between its requests.
    pub pause: (u64, u64),
}

/// A client of a member, once that listens.
pub async fn connect(socket: &Path) -> Option<KvClient<Channel>> {
    let channel = skiff_datastore::probe::connect(&Listen::Unix(socket.to_owned())).await.ok()?;
    Some(KvClient::new(channel).max_decoding_message_size(usize::MAX))
}

impl Client {
    /// See above.
    pub async fn run(mut self, stop: watch::Receiver<bool>) {
        let mut known: Vec<Held> = vec![None; KEYS];
        let mut connection = None;
        while !*stop.borrow() {
            let pause = self.chance.within(self.pause.0, self.pause.1);
            tokio::time::sleep(Duration::from_millis(pause)).await;
            if connection.is_none() || !self.chance.happens(STAYS) {
                let socket: &PathBuf = self.chance.pick(&self.sockets);
                let connecting = connect(socket);
                connection = tokio::time::timeout(self.patience, connecting).await.ok().flatten();
            }
            let Some(kv) = &mut connection else { continue };
            let value = self.values.fetch_add(1, Ordering::Relaxed);
            let wish = choose(&mut self.chance, &known, value);
            let begin = self.now();
            let asked = tokio::time::timeout(self.patience, ask(kv, &wish)).await;
            let came = asked.unwrap_or(Came::Unknown);
            learn(&mut known, &wish, &came);
            if came == Came::Unknown {
                connection = None;
            }
            let request = Request { begin, end: self.now(), wish, came };
            self.record.requests.lock().unwrap().push(request);
        }
    }

    fn now(&self) -> u64 {
        self.began.elapsed().as_micros() as u64
    }
}

/// Asks a member for what is wished.
pub async fn ask(kv: &mut KvClient<Channel>, wish: &Wish) -> Came {
    let came = match wish.call() {
        Call::Put(put) => kv.put(put).await.map(|answer| answer.get_ref().came()),
        Call::Delete(delete) => kv.delete_range(delete).await.map(|answer| answer.get_ref().came()),
        Call::Txn(txn) => kv.txn(txn).await.map(|answer| answer.get_ref().came()),
        Call::Range(range) => kv.range(range).await.map(|answer| answer.get_ref().came()),
    };
    came.unwrap_or_else(|status| if is_refusal(&status) { Came::Refused } else { Came::Unknown })
}

/// Whether an error promises that nothing was done: see the table of errors in
/// `docs/reference/datastore.md`.
fn is_refusal(status: &Status) -> bool {
    match status.code() {
        Code::ResourceExhausted | Code::FailedPrecondition => true,
        Code::Unavailable => status.message() == "etcdserver: leader changed",
        _ => false,
    }
}
