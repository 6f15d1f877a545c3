//! What is served beside gRPC, by plain HTTP: figures, health, version.

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use serde::Serialize;
use tonic::Status;

use super::Server;
use super::status::ETCD_VERSION;

/// The type of the text that `/metrics` answers.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// As etcd answers `/health`.
#[derive(Serialize)]
struct Health {
    health: &'static str,
    reason: &'static str,
}

/// As etcd answers `/version`.
#[derive(Serialize)]
struct Versions {
    etcdserver: &'static str,
    etcdcluster: &'static str,
    storage: &'static str,
    skiff: &'static str,
}

/// `/metrics`, `/health` and `/version`; any other path is refused in the words of who asks.
pub fn routes(server: Server) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/health", get(health))
        .route("/version", get(version))
        .fallback(unknown)
        .with_state(server)
}

async fn metrics(State(server): State<Server>) -> Response {
    let shared = server.engine.shared();
    ([(header::CONTENT_TYPE, OPEN_METRICS)], shared.metrics.text(shared)).into_response()
}

async fn health(State(server): State<Server>) -> Response {
    let shared = server.engine.shared();
    let reason = match (shared.no_space(), shared.leader()) {
        _ if shared.is_corrupt() => "ALARM CORRUPT",
        (true, _) => "ALARM NOSPACE",
        (false, None) => "RAFT NO LEADER",
        (false, Some(_)) => "",
    };
    let (code, health) = match reason {
        "" => (StatusCode::OK, "true"),
        _ => (StatusCode::SERVICE_UNAVAILABLE, "false"),
    };
    (code, Json(Health { health, reason })).into_response()
}

async fn version() -> Json<Versions> {
    Json(Versions {
        etcdserver: ETCD_VERSION,
        etcdcluster: "3.6.0",
        storage: super::status::ETCD_STORAGE_VERSION,
        skiff: env!("CARGO_PKG_VERSION"),
    })
}

async fn unknown(headers: HeaderMap) -> Response {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    if kind.is_some_and(|kind| kind.starts_with("application/grpc")) {
        return Status::unimplemented("").into_http::<tonic::body::Body>().into_response();
    }
    StatusCode::NOT_FOUND.into_response()
}
