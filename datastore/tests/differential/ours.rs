//! Our datastore on dqlite, in this process, served on a socket.

use std::time::{Duration, Instant};

use skiff_datastore::index::pack::PackLimits;
use skiff_datastore::serve::router;
use skiff_datastore::server::Server;
use skiff_datastore::shared::Limits;
use skiff_datastore::store::sql::SqlStore;
use skiff_datastore::{Engine, Listen};
use tempfile::TempDir;
use tokio::sync::watch as signal;
use tokio::task::JoinHandle;
use tonic::transport::Channel;

/// How often silent watchers are told of progress.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);

/// The datastore and what it stands on.
pub struct Ours {
    dir: TempDir,
    request_bytes_max: usize,
    running: Option<Serving>,
}

struct Serving {
    stopping: signal::Sender<bool>,
    served: JoinHandle<Result<(), tonic::transport::Error>>,
    upkeep: JoinHandle<((), ())>,
    writer: JoinHandle<Result<(), skiff_datastore::writer::WriterError>>,
}

impl Ours {
    pub async fn start(request_bytes_max: usize) -> Ours {
        let dir = TempDir::new().unwrap();
        let mut ours = Ours { dir, request_bytes_max, running: None };
        ours.serve().await;
        ours
    }

    async fn serve(&mut self) {
        let path = self.dir.path().join("socket");
        let _ = std::fs::remove_file(&path);
        let listener = tokio::net::UnixListener::bind(&path).unwrap();
        let store = SqlStore::open_dir(&self.dir.path().join("data")).await.unwrap();
        // Whatever is worth it is packed at once.
        let packing = PackLimits { revisions_whole: 2, bytes_min: 0, revisions_per_step: 1 };
        let request_bytes_max = self.request_bytes_max;
        let limits = Limits { request_bytes_max, packing, ..Limits::default() };
        let running = Engine::start(store, limits, Instant::now).await.unwrap();
        let (stopping, stopped) = signal::channel(false);
        let mut stop = stopped.clone();
        let server = Server {
            engine: running.engine,
            progress_interval: PROGRESS_INTERVAL,
            slow_after: Duration::from_secs(3600),
            stopping: stopped,
        };
        let incoming = tokio_stream::wrappers::UnixListenerStream::new(listener);
        let stop = async move {
            let _ = stop.wait_for(|stopping| *stopping).await;
        };
        let served =
            router(server, self.request_bytes_max).serve_with_incoming_shutdown(incoming, stop);
        let served = tokio::spawn(served);
        let (upkeep, writer) = (running.upkeep, running.writer);
        self.running = Some(Serving { stopping, served, upkeep, writer });
    }

    /// A connection of its own.
    pub async fn channel(&self) -> Channel {
        let listen = Listen::Unix(self.dir.path().join("socket"));
        skiff_datastore::probe::connect(&listen).await.unwrap()
    }

    /// Ends orderly.
    pub async fn stop(&mut self) {
        let Some(running) = self.running.take() else { return };
        running.stopping.send_replace(true);
        running.upkeep.abort();
        running.served.await.unwrap().unwrap();
        let _ = running.upkeep.await;
        running.writer.await.unwrap().unwrap();
    }

    /// Ends and starts again on the same directory.
    pub async fn restart(&mut self) {
        self.stop().await;
        self.serve().await;
    }
}
