//! Serves a datastore's clients: listeners, and what answers on them.

use std::path::Path;
use std::sync::Arc;

use tokio::sync::Semaphore;
use tonic::transport::server::Router;
use tonic::transport::{Server as Transport, ServerTlsConfig};

use crate::accept::{connections_max, incoming};
use crate::database::Database;
use crate::listen::{Bound, Listen, ListenError};
use crate::member::operator::Desk;
use crate::options::Options;
use crate::proto::cluster_server::ClusterServer;
use crate::proto::kv_server::KvServer;
use crate::proto::lease_server::LeaseServer;
use crate::proto::maintenance_server::MaintenanceServer;
use crate::proto::peer::members_server::MembersServer;
use crate::proto::watch_server::WatchServer;
use crate::run::RunError;
use crate::server::Server;
use crate::server::front::Front;
use crate::server::plain;
use crate::tls::{self, TlsError};

/// What a message may have beyond the largest request: its framing.
const MESSAGE_OVERHEAD_BYTES: usize = 512 << 10;

/// Connections to the database `cluster` at once. They have places of their
/// own, out of the files that are kept back, so that clients of `kube` can't
/// take them all.
const CLUSTER_CONNECTIONS_MAX: usize = 64;

/// Clients of one database, and where they connect.
pub(crate) struct Service {
    server: Server,
    bound: Vec<Bound>,
    /// Where figures are served by themselves.
    figures: Vec<Bound>,
    tls: Option<ServerTlsConfig>,
    /// Whether operators ask for members here.
    has_desk: bool,
    request_bytes_max: usize,
    places: Arc<Semaphore>,
}

impl Service {
    /// Listens where the options say; nobody is served yet.
    pub(crate) async fn bind(
        options: &Options,
        database: Database,
        server: Server,
    ) -> Result<Service, RunError> {
        let request_bytes_max = options.max_request_bytes;
        match database {
            Database::Kube => {
                let (group, mode) = (options.socket_group.as_deref(), options.socket_mode);
                Ok(Service {
                    server,
                    bound: bind_all(&options.listen, group, mode).await?,
                    figures: bind_all(&options.listen_metrics_urls, group, mode).await?,
                    tls: tls::server_config(options)?,
                    has_desk: options.has_peers(),
                    request_bytes_max,
                    places: Arc::new(Semaphore::new(connections_max())),
                })
            }
            Database::Cluster => Ok(Service {
                server,
                bound: bind_all(&options.cluster_listen, None, options.cluster_socket_mode).await?,
                figures: Vec::new(),
                tls: None,
                has_desk: false,
                request_bytes_max,
                places: Arc::new(Semaphore::new(CLUSTER_CONNECTIONS_MAX)),
            }),
        }
    }

    /// Serves until the server has to end.
    pub(crate) async fn run(self) -> Result<(), RunError> {
        let Service { server, bound, figures, tls, has_desk, request_bytes_max, places } = self;
        let each = bound.into_iter().map(|one| {
            let mut transport = Transport::builder();
            if let Some(config) = tls.clone() {
                transport = transport.tls_config(config).map_err(TlsError::Unusable)?;
            }
            let mut router = router_on(transport, server.clone(), request_bytes_max);
            if has_desk {
                let desk = Desk(server.engine.shared().clone());
                router = router.add_service(MembersServer::new(desk));
            }
            let connections = incoming(one, places.clone());
            Ok(router.serve_with_incoming_shutdown(connections, stopped(&server)))
        });
        let each = each.collect::<Result<Vec<_>, RunError>>()?;
        let figures = figures.into_iter().map(|one| {
            let router = Transport::builder()
                .accept_http1(true)
                .add_routes(plain::routes(server.clone()).into());
            router.serve_with_incoming_shutdown(incoming(one, places.clone()), stopped(&server))
        });
        let each = futures::future::try_join_all(each);
        let figures = futures::future::try_join_all(figures);
        Ok(futures::future::try_join(each, figures).await.map(drop)?)
    }
}

async fn bind_all(
    listen: impl IntoIterator<Item = &Listen>,
    group: Option<&str>,
    mode: u32,
) -> Result<Vec<Bound>, ListenError> {
    let mut bound = Vec::new();
    for listen in listen {
        bound.push(listen.bind(group, mode).await?);
    }
    Ok(bound)
}

/// Returns when `server` has to end.
fn stopped(server: &Server) -> impl Future<Output = ()> + use<> {
    let mut stopping = server.stopping.clone();
    async move {
        // An error means that the sender is gone, which is a stop as well.
        let _ = stopping.wait_for(|stopping| *stopping).await;
    }
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

/// Removes the sockets of every database.
pub(crate) fn remove_sockets(options: &Options) {
    let Options { listen, listen_metrics_urls, cluster_listen, .. } = options;
    for one in listen.iter().chain(listen_metrics_urls).chain(cluster_listen) {
        if let Listen::Unix(path) = one {
            remove_socket(path);
        }
    }
}

fn remove_socket(path: &Path) {
    // It may be gone already; a stale one is replaced at the next start.
    let _ = std::fs::remove_file(path);
}
