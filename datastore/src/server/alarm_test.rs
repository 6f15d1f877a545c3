use std::time::{Duration, Instant};

use http::Request;
use tokio::sync::watch;
use tokio_stream::StreamExt;
use tonic::Code;
use tonic::body::Body;
use tonic::codegen::Service;

use super::*;
use crate::engine::Engine;
use crate::proto::kv_server::KvServer;
use crate::proto::lease_client::LeaseClient;
use crate::proto::lease_server::LeaseServer;
use crate::proto::maintenance_server::MaintenanceServer;
use crate::proto::watch_client::WatchClient;
use crate::proto::watch_request::RequestUnion;
use crate::proto::watch_server::WatchServer;
use crate::proto::{LeaseKeepAliveRequest, WatchCreateRequest, WatchRequest};
use crate::server::front::Front;
use crate::server::status::status;
use crate::shared::{Damage, Integrity, Limits};
use crate::store::memory::MemoryStore;

async fn server() -> Server {
    let store = MemoryStore::default();
    let running = Engine::start(store, Limits::default(), Instant::now).await.unwrap();
    Server {
        engine: running.engine,
        progress_interval: Duration::from_secs(1),
        slow_after: Duration::from_secs(1),
        stopping: watch::channel(false).1,
    }
}

/// What a call without any field is answered: the code, when it is refused at once.
async fn call(server: &Server, path: &str) -> Option<String> {
    // No compression, no bytes.
    let body = Body::new(http_body_util::Full::from(&[0_u8; 5][..]));
    let request = Request::post(path).header("content-type", "application/grpc");
    let request = request.body(body).unwrap();
    let bytes_max = 1 << 20;
    let answer = if path.contains(".KV/") {
        let inner = KvServer::new(server.clone());
        Front::new(inner, server.clone(), bytes_max).call(request).await.unwrap()
    } else {
        let inner = MaintenanceServer::new(server.clone());
        Front::new(inner, server.clone(), bytes_max).call(request).await.unwrap()
    };
    let code = answer.headers().get("grpc-status")?;
    let message = answer.headers().get("grpc-message")?;
    Some(format!("{} {}", code.to_str().unwrap(), message.to_str().unwrap()))
}

fn raised(server: &Server, action: AlarmAction) -> Vec<AlarmType> {
    let request = AlarmRequest { action: action.into(), ..AlarmRequest::default() };
    alarm(server, &request).alarms.iter().map(AlarmMember::alarm).collect()
}

#[tokio::test]
async fn a_damaged_member_answers_nothing_from_its_data_and_its_alarm_cannot_be_talked_away() {
    const RANGE: &str = "/etcdserverpb.KV/Range";
    const HASH: &str = "/etcdserverpb.Maintenance/HashKV";
    const STATUS: &str = "/etcdserverpb.Maintenance/Status";
    let server = server().await;
    let shared = server.engine.shared();
    let refused = |answer: Option<String>| {
        answer.is_some_and(|answer| answer == "14 etcdserver:%20corrupt%20cluster")
    };
    for (integrity, serves, alarms) in [
        (Integrity::Sound, true, vec![]),
        (Integrity::Damaged(Damage::Differs), false, vec![AlarmType::Corrupt]),
        (Integrity::Renewed, false, vec![AlarmType::Corrupt]),
        // Nobody knows whether it is this one.
        (Integrity::Doubtful, true, vec![AlarmType::Corrupt]),
        (Integrity::Sound, true, vec![]),
    ] {
        shared.set_integrity(integrity);
        // An empty key is refused in other words.
        assert_eq!(refused(call(&server, RANGE).await), !serves, "{integrity:?}");
        assert_eq!(refused(call(&server, HASH).await), !serves, "{integrity:?}");
        assert_eq!(call(&server, STATUS).await, None, "{integrity:?}");
        assert_eq!(raised(&server, AlarmAction::Get), alarms, "{integrity:?}");
        raised(&server, AlarmAction::Deactivate);
        assert_eq!(raised(&server, AlarmAction::Get), alarms, "{integrity:?}");
        assert_eq!(status(&server).errors.len(), alarms.len());
        assert!(status(&server).errors.iter().all(|error| error.contains("alarm:CORRUPT")));
        let corrupt = format!("skiff_datastore_corrupt {}", alarms.len());
        assert!(shared.metrics.text(shared).contains(&corrupt), "{integrity:?}");
    }
}

#[tokio::test]
async fn open_streams_end_when_their_member_is_found_damaged() {
    let (_stop, stopping) = watch::channel(false);
    let server = Server { stopping, ..server().await };
    let origin = || "http://member".parse().unwrap();
    let front = Front::new(WatchServer::new(server.clone()), server.clone(), 1 << 20);
    let create = WatchCreateRequest { key: "key".into(), ..WatchCreateRequest::default() };
    let create = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
    let requests = tokio_stream::iter([create]).chain(tokio_stream::pending());
    let watched = WatchClient::with_origin(front, origin()).watch(requests).await;
    let mut watching = watched.unwrap().into_inner();
    assert!(watching.message().await.unwrap().unwrap().created);

    let front = Front::new(LeaseServer::new(server.clone()), server.clone(), 1 << 20);
    let (asks, requests) = tokio::sync::mpsc::channel(1);
    asks.send(LeaseKeepAliveRequest { id: 7 }).await.unwrap();
    let requests = tokio_stream::wrappers::ReceiverStream::new(requests);
    let alive = LeaseClient::with_origin(front, origin()).lease_keep_alive(requests).await;
    let mut alive = alive.unwrap().into_inner();
    assert_eq!(alive.message().await.unwrap().unwrap().ttl, 0);

    server.engine.shared().set_integrity(Integrity::Damaged(Damage::Differs));
    asks.send(LeaseKeepAliveRequest { id: 7 }).await.unwrap();
    for status in [watching.message().await.unwrap_err(), alive.message().await.unwrap_err()] {
        assert_eq!(status.code(), Code::Unavailable);
        assert_eq!(status.message(), "etcdserver: corrupt cluster");
    }
}
