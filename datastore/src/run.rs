//! The daemon: opens the store, serves, and ends orderly.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Semaphore, watch as signals};
use tokio::task::JoinHandle;
use tonic::transport::Server as Transport;
use tonic::transport::server::Router;
use tracing::{info, warn};

use crate::accept::{connections_max, incoming};
use crate::engine::Engine;
use crate::listen::{Bound, Listen, ListenError};
use crate::member::daemon::run_member;
use crate::member::open::MemberError;
use crate::member::operator::Desk;
use crate::options::Options;
use crate::proto::cluster_server::ClusterServer;
use crate::proto::kv_server::KvServer;
use crate::proto::lease_server::LeaseServer;
use crate::proto::maintenance_server::MaintenanceServer;
use crate::proto::peer::members_server::MembersServer;
use crate::proto::watch_server::WatchServer;
use crate::server::Server;
use crate::server::front::Front;
use crate::server::plain;
use crate::shared::Limits;
use crate::store::StoreError;
use crate::store::sql::{OpenError, SqlStore};
use crate::tls::{self, TlsError};
use crate::trace::{self, TraceError};
use crate::writer::WriterError;

/// What a message may have beyond the largest request: its framing.
const MESSAGE_OVERHEAD_BYTES: usize = 512 << 10;
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
    if options.peer_listen.is_some() {
        return run_member(&options, stop).await;
    }
    let running = tokio::select! {
        running = open(&options) => running?,
        () = &mut stop => return Ok(()),
    };
    let bound = bind_all(&options.listen, &options).await?;
    let (stopping, stopped) = signals::channel(false);
    let server = Server {
        engine: running.engine.clone(),
        progress_interval: options.watch_progress_notify_interval,
        slow_after: options.warning_unary_request_duration,
        stopping: stopped,
    };
    info!(after_ms = began.elapsed().as_millis() as u64, "datastore serves");
    let mut serving = Box::pin(serve_all(bound, server, &options));
    let mut writer = running.writer;
    let ended = tokio::select! {
        result = &mut serving => Ended::Serving(result),
        result = &mut writer => Ended::Writer(result.expect("the writer does not panic")),
        () = &mut stop => {
            stopping.send_replace(true);
            // A client that does not let go is cut off.
            let _ = tokio::time::timeout(DRAIN_TIMEOUT, &mut serving).await;
            Ended::Stop
        }
    };
    remove_sockets(&options.listen);
    remove_sockets(&options.listen_metrics_urls);
    drop(serving);
    running.expiry.abort();
    drop(running.engine);
    match ended {
        Ended::Writer(result) => Ok(result?),
        Ended::Serving(result) => {
            finish(writer).await?;
            Ok(result?)
        }
        Ended::Stop => finish(writer).await,
    }
}

pub(crate) async fn bind_all(
    listen: &[Listen],
    options: &Options,
) -> Result<Vec<Bound>, ListenError> {
    let mut bound = Vec::new();
    for listen in listen {
        let mode = options.socket_mode;
        bound.push(listen.bind(options.socket_group.as_deref(), mode).await?);
    }
    Ok(bound)
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

async fn open(options: &Options) -> Result<crate::engine::Running, RunError> {
    let dir = options.dir.clone();
    let store = SqlStore::open_dir(&dir).await?;
    let limits = Limits {
        request_bytes_max: options.max_request_bytes,
        quota_bytes: options.quota_backend_bytes,
        ..Limits::default()
    };
    Engine::start(store, limits, Instant::now).await.map_err(|source| match source {
        StoreError::Damaged(_) => RunError::Damaged { dir, source },
        source => RunError::Load { dir, source },
    })
}

pub(crate) async fn serve_all(
    bound: Vec<Bound>,
    server: Server,
    options: &Options,
) -> Result<(), RunError> {
    let places = Arc::new(Semaphore::new(connections_max()));
    let for_figures = bind_all(&options.listen_metrics_urls, options).await?;
    let each = bound.into_iter().map(|one| serve(one, server.clone(), options, places.clone()));
    let figures = for_figures.into_iter().map(|one| {
        let router = Transport::builder()
            .accept_http1(true)
            .add_routes(plain::routes(server.clone()).into());
        router.serve_with_incoming_shutdown(incoming(one, places.clone()), stopped(&server))
    });
    let figures = async { Ok(futures::future::try_join_all(figures).await?) };
    futures::future::try_join(futures::future::try_join_all(each), figures).await.map(drop)
}

/// Returns when `server` has to end.
fn stopped(server: &Server) -> impl Future<Output = ()> + use<> {
    let mut stopping = server.stopping.clone();
    async move {
        // An error means that the sender is gone, which is a stop as well.
        let _ = stopping.wait_for(|stopping| *stopping).await;
    }
}

async fn serve(
    bound: Bound,
    server: Server,
    options: &Options,
    places: Arc<Semaphore>,
) -> Result<(), RunError> {
    let stop = stopped(&server);
    let mut transport = Transport::builder();
    if let Some(config) = tls::server_config(options)? {
        transport = transport.tls_config(config).map_err(TlsError::Unusable)?;
    }
    let desk = Desk(server.engine.shared().clone());
    let mut router = router_on(transport, server, options.max_request_bytes);
    if options.peer_listen.is_some() {
        router = router.add_service(MembersServer::new(desk));
    }
    Ok(router.serve_with_incoming_shutdown(incoming(bound, places), stop).await?)
}

/// Every service of `server`, to be served on a listener.
pub fn router(server: Server, request_bytes_max: usize) -> Router {
    router_on(Transport::builder(), server, request_bytes_max)
}

fn router_on(transport: Transport, server: Server, request_bytes_max: usize) -> Router {
    let bytes_max = request_bytes_max.saturating_add(MESSAGE_OVERHEAD_BYTES);
    macro_rules! service {
        ($service:ident) => {{
            let inner = $service::new(server.clone()).max_decoding_message_size(bytes_max);
            Front::new(inner, server.clone(), bytes_max)
        }};
    }
    // Prometheus asks by HTTP/1.1.
    let mut transport = transport.accept_http1(true);
    transport
        .add_routes(plain::routes(server.clone()).into())
        .add_service(service!(KvServer))
        .add_service(service!(WatchServer))
        .add_service(service!(LeaseServer))
        .add_service(service!(ClusterServer))
        .add_service(service!(MaintenanceServer))
}

pub(crate) fn remove_sockets(listen: &[Listen]) {
    for one in listen {
        if let Listen::Unix(path) = one {
            remove_socket(path);
        }
    }
}

fn remove_socket(path: &Path) {
    // It may be gone already; a stale one is replaced at the next start.
    let _ = std::fs::remove_file(path);
}
