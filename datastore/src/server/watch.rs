//! Watch: a stream of watchers over one connection.

use std::sync::Arc;

use futures::StreamExt;
use tokio::sync::{Notify, mpsc, watch as signal};
use tokio::time::{Instant, MissedTickBehavior, interval_at};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::Server;
use super::front::as_etcd_says;
use super::services::Answers;
use super::watch_stream::{Gone, WatchStream};
use crate::error::RequestError;
use crate::proto::WatchRequest;
use crate::proto::watch_request::RequestUnion;

/// Answers that wait in one stream for a client that reads slowly. Each is
/// bounded in bytes, so this bounds what a silent client costs; everything
/// else waits in the history that all share.
const ANSWERS_MAX: usize = 8;

/// Serves one stream until the client ends it, or the server does.
pub fn watch(
    server: &Server,
    requests: Streaming<WatchRequest>,
) -> Answers<crate::proto::WatchResponse> {
    let (answers, receiver) = mpsc::channel(ANSWERS_MAX);
    let wake = Arc::new(Notify::new());
    let stream = WatchStream::new(server.engine.clone(), wake.clone(), answers.clone());
    let server = server.clone();
    tokio::spawn(async move {
        tokio::select! {
            // Ends when the client does: either it said so, or nobody takes
            // the answers any more.
            _ = serve(&server, stream, requests, &wake) => {}
            () = answers.closed() => {}
        }
    });
    Box::pin(ReceiverStream::new(receiver))
}

async fn serve(
    server: &Server,
    mut stream: WatchStream,
    mut requests: Streaming<WatchRequest>,
    wake: &Notify,
) -> Result<(), Gone> {
    let mut stopping = server.stopping.clone();
    let shared = server.engine.shared().clone();
    let mut unsound = std::pin::pin!(shared.unsound());
    let period = server.progress_interval;
    let mut progress = interval_at(Instant::now() + period, period);
    progress.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            request = requests.next() => match request {
                Some(Ok(request)) => serve_request(&mut stream, request).await?,
                Some(Err(status)) => return stream.fail(as_etcd_says(status)).await,
                None => return Ok(()),
            },
            () = wake.notified() => stream.send_due().await?,
            _ = progress.tick(), if stream.wants_progress() => stream.send_progress().await?,
            () = &mut unsound => return stream.fail(RequestError::Corrupt.into()).await,
            () = stopped(&mut stopping) => {
                return stream.fail(Status::unavailable("etcdserver: server stopped")).await;
            }
        }
    }
}

async fn stopped(stopping: &mut signal::Receiver<bool>) {
    // An error means that the sender is gone, which is a stop as well.
    let _ = stopping.wait_for(|stopping| *stopping).await;
}

async fn serve_request(stream: &mut WatchStream, request: WatchRequest) -> Result<(), Gone> {
    match request.request_union {
        Some(RequestUnion::CreateRequest(create)) => stream.create(create).await,
        Some(RequestUnion::CancelRequest(cancel)) => stream.cancel(cancel.watch_id).await,
        Some(RequestUnion::ProgressRequest(_)) => stream.answer_progress().await,
        None => Ok(()),
    }
}
