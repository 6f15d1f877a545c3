//! The daemon: opens the store, serves, and ends orderly.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dqlite::Node;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch as signals;
use tokio::task::JoinHandle;
use tracing::{Instrument, info, warn};

use crate::database::{Database, Databases};
use crate::engine::{Engine, Running};
use crate::listen::ListenError;
use crate::member::daemon::run_member;
use crate::member::open::MemberError;
use crate::options::Options;
use crate::serve::{Service, remove_sockets};
use crate::server::Server;
use crate::store::StoreError;
use crate::store::node::SqlNode;
use crate::store::sole::{self, OpenError};
use crate::store::sql::SqlStore;
use crate::tls::TlsError;
use crate::trace::{self, TraceError};
use crate::writer::WriterError;

/// How long open requests may take to end after a signal.
pub(crate) const DRAIN_TIMEOUT: Duration = Duration::from_secs(3);
/// How long the writer may take to finish after them.
const FINISH_TIMEOUT: Duration = Duration::from_secs(5);

/// Why the datastore ended.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error("can't open the datastore")]
    Open(#[from] OpenError),
    #[error(
        "the datastore in {dir} is damaged; keep a copy of it and restore a backup, \
         or move it away to begin with an empty one"
    )]
    Damaged {
        dir: PathBuf,
        #[source]
        source: StoreError,
    },
    #[error("can't read the datastore in {dir}")]
    Load {
        dir: PathBuf,
        #[source]
        source: StoreError,
    },
    #[error("can't read the database `cluster` in {dir}, which is kept beside Kubernetes' objects")]
    Cluster {
        dir: PathBuf,
        #[source]
        source: StoreError,
    },
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Trace(#[from] TraceError),
    #[error(transparent)]
    Member(#[from] MemberError),
    #[error("the datastore stopped writing")]
    Writer(#[from] WriterError),
    #[error("the server failed")]
    Serve(#[from] tonic::transport::Error),
    #[error("the server ended unasked")]
    Unasked,
    #[error("can't wait for signals")]
    Signal(#[source] std::io::Error),
}

/// Serves until SIGTERM or SIGINT, then ends orderly.
pub async fn run(options: Options) -> Result<(), RunError> {
    // One arena, so that memory which is given back really is: see docs/design/2026-11-23-dqlite.md.
    dqlite::memory::limit_arenas(1);
    let traces = trace::start(&options)?;
    let result = run_untraced(options).await;
    if let Some(traces) = traces {
        traces.stop().await;
    }
    result
}

async fn run_untraced(options: Options) -> Result<(), RunError> {
    let began = Instant::now();
    let mut terminate = signal(SignalKind::terminate()).map_err(RunError::Signal)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(RunError::Signal)?;
    let stop = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    tokio::pin!(stop);
    if options.has_peers() {
        return run_member(&options, stop).await;
    }
    let sole = tokio::select! {
        sole = Sole::open(&options) => sole?,
        () = &mut stop => return Ok(()),
    };
    let (stopping, stopped) = signals::channel(false);
    let mut services = Vec::new();
    for (database, running) in sole.databases.iter() {
        let server = Server {
            engine: running.engine.clone(),
            progress_interval: options.watch_progress_notify_interval,
            slow_after: options.warning_unary_request_duration,
            stopping: stopped.clone(),
        };
        services.push(Service::bind(&options, *database, server).await?.run());
    }
    info!(after_ms = began.elapsed().as_millis() as u64, "datastore serves");
    let mut serving = Box::pin(futures::future::try_join_all(services));
    let Sole { node, databases } = sole;
    let (mut writers, mut upkeep) = (Vec::new(), Vec::new());
    for (_, running) in databases {
        writers.push(running.writer);
        upkeep.push(running.upkeep);
    }
    let ended = tokio::select! {
        result = &mut serving => Ended::Serving(result.map(drop)),
        (result, position, _) = futures::future::select_all(&mut writers) => {
            drop(writers.swap_remove(position));
            Ended::Writer(result.expect("the writer does not panic"))
        }
        () = &mut stop => {
            stopping.send_replace(true);
            // A client that does not let go is cut off.
            let _ = tokio::time::timeout(DRAIN_TIMEOUT, &mut serving).await;
            Ended::Stop
        }
    };
    remove_sockets(&options);
    drop(serving);
    upkeep.iter().for_each(JoinHandle::abort);
    let mut finished = Ok(());
    for writer in writers {
        finished = finish(writer).await.and(finished);
    }
    if let Err(error) = SqlNode::end(node).await {
        warn!(%error, "dqlite did not stop orderly");
    }
    match ended {
        Ended::Writer(result) => Ok(result?),
        Ended::Serving(result) => finished.and(result),
        Ended::Stop => finished,
    }
}

/// What made the daemon end.
enum Ended {
    Stop,
    Serving(Result<(), RunError>),
    Writer(Result<(), WriterError>),
}

/// Lets the writer finish what is queued and close the store. It ends when
/// every request has let go of it; one that does not is left behind, for what
/// was acknowledged is safe.
async fn finish(mut writer: JoinHandle<Result<(), WriterError>>) -> Result<(), RunError> {
    match tokio::time::timeout(FINISH_TIMEOUT, &mut writer).await {
        Ok(result) => Ok(result.expect("the writer does not panic")?),
        Err(_) => {
            warn!(after_ms = FINISH_TIMEOUT.as_millis() as u64, "a request did not end");
            writer.abort();
            Ok(())
        }
    }
}

/// A member without others: its node, and what runs on it.
struct Sole {
    node: Arc<Node>,
    databases: Databases<(Database, Running)>,
}

impl Sole {
    async fn open(options: &Options) -> Result<Sole, RunError> {
        let node = sole::start(&options.dir).await?;
        let Databases { kube, cluster } = options.databases();
        let kube = (kube, start(options, &node, kube).await?);
        let cluster = match cluster {
            Some(cluster) => Some((cluster, start(options, &node, cluster).await?)),
            None => None,
        };
        Ok(Sole { node, databases: Databases { kube, cluster } })
    }
}

async fn start(
    options: &Options,
    node: &Arc<Node>,
    database: Database,
) -> Result<Running, RunError> {
    let store = SqlStore::alone(node.clone(), database);
    let started = Engine::start(store, options.limits(database), Instant::now);
    let dir = options.dir.clone();
    started.instrument(database.span()).await.map_err(|source| match (database, source) {
        (Database::Cluster, source) => RunError::Cluster { dir, source },
        (Database::Kube, source @ StoreError::Damaged(_)) => RunError::Damaged { dir, source },
        (Database::Kube, source) => RunError::Load { dir, source },
    })
}
