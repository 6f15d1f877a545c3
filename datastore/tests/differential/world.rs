//! The two datastores and what is asked of them, step by step.

use std::fmt::Debug;
use std::time::Duration;

use prost::Message;
use skiff_datastore::probe::connect;
use skiff_datastore::proto::*;
use tonic::{Response, Status};

use crate::action::{Action, resolve};
use crate::compare::{Outcome, outcome};
use crate::lies::Lie;
use crate::ours::Ours;
use crate::peer::Peer;
use crate::side::Side;
use crate::watching::{Pair, SETTLE};

/// Small, so that requests and events of a few KiB reach it.
const REQUEST_BYTES_MAX: usize = 8192;
/// etcd counts its envelope, which has no fixed size: requests so close to
/// the limit are not sent.
const ENVELOPE_BYTES_MAX: usize = 64;
/// Longer than anything that is waited for within a step.
const STEP_TIMEOUT: Duration = Duration::from_secs(20);

/// Both, in lockstep: each step is answered by both before the next.
pub struct World {
    ours: Ours,
    ours_side: Side,
    _peer: Peer,
    peer_side: Side,
    streams: [Option<Pair>; 2],
    newest: i64,
    lie: Option<Lie>,
}

/// Sends one request to both and compares what comes back.
macro_rules! ask {
    ($world:expr, $client:ident . $method:ident ($request:expr), $twist:expr) => {{
        let request = $request;
        let ours = $world.ours_side.$client().$method(request.clone()).await;
        let peer = $world.peer_side.$client().$method(request.clone()).await;
        let mut ours = outcome(ours);
        if let (Some(lie), Ok(answer)) = ($world.lie, &mut ours) {
            let twist: fn(Lie, &_, &mut _) = $twist;
            twist(lie, &request, answer);
        }
        $world.equal(ours, outcome(peer))
    }};
    ($world:expr, $client:ident . $method:ident ($request:expr)) => {
        ask!($world, $client.$method($request), |_, _, _| {})
    };
}

impl World {
    pub async fn start(lie: Option<Lie>) -> World {
        let ours = Ours::start(REQUEST_BYTES_MAX).await;
        let peer = Peer::start(REQUEST_BYTES_MAX).await;
        let (ours_side, peer_side) =
            (Side::new(ours.channel().await), Side::new(connect(&peer.listen()).await.unwrap()));
        World { ours, ours_side, _peer: peer, peer_side, streams: [None, None], newest: 1, lie }
    }

    /// Ends ours orderly.
    pub async fn stop(mut self) {
        self.streams = [None, None];
        self.ours.stop().await;
    }

    /// One case, on empty datastores.
    pub async fn run(&mut self, actions: &[Action]) -> Result<(), String> {
        self.streams = [None, None];
        self.clear().await.map_err(|error| format!("when clearing: {error}"))?;
        for (position, action) in actions.iter().enumerate() {
            let mut action = action.clone();
            resolve(&mut action, self.newest);
            let step = tokio::time::timeout(STEP_TIMEOUT, self.act(action.clone())).await;
            let step = step.unwrap_or_else(|_| Err("does not end".to_owned()));
            step.map_err(|error| format!("step {}, {action:?}: {error}", position + 1))?;
        }
        self.finish_streams().await.map_err(|error| format!("at the end: {error}"))
    }

    /// Closes the streams when etcd can't have anything left to tell.
    async fn finish_streams(&mut self) -> Result<(), String> {
        self.settle_streams().await?;
        if self.streams.iter().any(Option::is_some) {
            tokio::time::sleep(SETTLE).await;
        }
        self.settle_streams().await?;
        self.streams = [None, None];
        Ok(())
    }

    async fn settle_streams(&mut self) -> Result<(), String> {
        for stream in self.streams.iter_mut().flatten() {
            stream.settle().await?;
        }
        Ok(())
    }

    /// Both stay in step, so that the same history lies behind them.
    async fn clear(&mut self) -> Result<(), String> {
        let everything =
            DeleteRangeRequest { key: "\0".into(), range_end: "\0".into(), prev_kv: true };
        let deleted = ask!(self, kv.delete_range(everything))?;
        self.note(deleted.and_then(|answer| answer.header));
        let leases = ask!(self, lease.lease_leases(LeaseLeasesRequest {}))?;
        for lease in leases.map(|answer| answer.leases).unwrap_or_default() {
            ask!(self, lease.lease_revoke(LeaseRevokeRequest { id: lease.id }))?;
        }
        if self.newest > 1 {
            let compact = CompactionRequest { revision: self.newest, physical: true };
            ask!(self, kv.compact(compact))?;
        }
        Ok(())
    }

    async fn act(&mut self, action: Action) -> Result<(), String> {
        match action {
            Action::Range(request) => {
                let twist = |lie: Lie, request: &_, answer: &mut _| lie.of_range(request, answer);
                ask!(self, kv.range(request), twist).map(drop)
            }
            Action::RangeStream(request) => {
                let ours = streamed(&self.ours_side, request.clone()).await;
                let peer = streamed(&self.peer_side, request).await;
                self.equal(outcome(ours), outcome(peer)).map(drop)
            }
            Action::Put(request) if is_near_limit(&request) => Ok(()),
            Action::Put(request) => {
                let answer = ask!(self, kv.put(request), |lie, _, answer| lie.of_put(answer))?;
                self.note(answer.and_then(|answer| answer.header));
                Ok(())
            }
            Action::Delete(request) => {
                let answer = ask!(self, kv.delete_range(request))?;
                self.note(answer.and_then(|answer| answer.header));
                Ok(())
            }
            Action::Txn(request) if is_near_limit(&request) => Ok(()),
            Action::Txn(request) => {
                let answer = ask!(self, kv.txn(request), |lie, _, answer| lie.of_txn(answer))?;
                self.note(answer.and_then(|answer| answer.header));
                Ok(())
            }
            Action::Compact(request) => {
                // A watcher that lags may meet a compaction or not.
                let newest = self.newest;
                for stream in self.streams.iter_mut().flatten() {
                    stream.catch_up(newest).await?;
                }
                ask!(self, kv.compact(request)).map(drop)
            }
            action => self.act_beside_keys(action).await,
        }
    }

    async fn act_beside_keys(&mut self, action: Action) -> Result<(), String> {
        match action {
            Action::Grant(request) => ask!(self, lease.lease_grant(request)).map(drop),
            Action::Revoke(request) => {
                let answer = ask!(self, lease.lease_revoke(request))?;
                self.note(answer.and_then(|answer| answer.header));
                Ok(())
            }
            Action::TimeToLive(request) => ask!(self, lease.lease_time_to_live(request)).map(drop),
            Action::KeepAlive(request) => self.keep_alive(request).await,
            Action::Leases => ask!(self, lease.lease_leases(LeaseLeasesRequest {})).map(drop),
            Action::Alarm(request) => ask!(self, maintenance.alarm(request)).map(drop),
            Action::Watch(stream, request) => {
                let newest = self.newest;
                self.stream(stream).create(request, newest).await
            }
            Action::CancelWatch(stream, request) => {
                let pair = self.stream(stream);
                pair.settle().await?;
                pair.cancel(request);
                pair.settle().await
            }
            Action::Progress(stream) => {
                let newest = self.newest;
                self.stream(stream).progress(newest).await
            }
            Action::Restart => self.restart().await,
            Action::AwaitEnd(key) => self.await_end(key).await,
            other => unreachable!("{other:?} is served elsewhere"),
        }
    }

    fn stream(&mut self, number: usize) -> &mut Pair {
        let World { streams, ours_side, peer_side, lie, .. } = self;
        streams[number].get_or_insert_with(|| Pair::open(ours_side, peer_side, *lie))
    }

    async fn keep_alive(&mut self, request: LeaseKeepAliveRequest) -> Result<(), String> {
        let mut outcomes = Vec::new();
        for side in [&self.ours_side, &self.peer_side] {
            let requests = futures::stream::iter([request]);
            let mut answers = side.lease().lease_keep_alive(requests).await.unwrap().into_inner();
            let answer = answers.message().await.unwrap().unwrap();
            outcomes.push(outcome(Ok(tonic::Response::new(answer))));
        }
        let peer = outcomes.pop().unwrap();
        self.equal(outcomes.pop().unwrap(), peer).map(drop)
    }

    async fn await_end(&mut self, key: bytes::Bytes) -> Result<(), String> {
        for side in [&self.ours_side, &self.peer_side] {
            let request = RangeRequest { key: key.clone(), ..Default::default() };
            while side.kv().range(request.clone()).await.unwrap().into_inner().count > 0 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        Ok(())
    }

    async fn restart(&mut self) -> Result<(), String> {
        self.finish_streams().await?;
        self.ours.restart().await;
        self.ours_side = Side::new(self.ours.channel().await);
        let everything =
            RangeRequest { key: "\0".into(), range_end: "\0".into(), ..Default::default() };
        ask!(self, kv.range(everything)).map(drop)
    }

    fn note(&mut self, header: Option<ResponseHeader>) {
        self.newest = header.map_or(self.newest, |header| header.revision);
    }

    fn equal<T: PartialEq + Debug>(
        &self,
        ours: Outcome<T>,
        peer: Outcome<T>,
    ) -> Result<Option<T>, String> {
        if ours == peer {
            Ok(peer.ok())
        } else {
            Err(format!("not the same\nours: {ours:#?}\netcd: {peer:#?}"))
        }
    }
}

/// The messages put together; only the last may say more than its keys.
async fn streamed(side: &Side, request: RangeRequest) -> Result<Response<RangeResponse>, Status> {
    let mut messages = side.kv().range_stream(request).await?.into_inner();
    let mut whole = RangeResponse::default();
    while let Some(message) = messages.message().await? {
        let former = RangeResponse { kvs: Vec::new(), ..whole };
        assert_eq!(former, RangeResponse::default(), "another message follows the last");
        let last = message.range_response.unwrap();
        let kvs = [whole.kvs, last.kvs].concat();
        whole = RangeResponse { kvs, ..last };
    }
    Ok(Response::new(whole))
}

fn is_near_limit(request: &impl Message) -> bool {
    request.encoded_len().abs_diff(REQUEST_BYTES_MAX) < ENVELOPE_BYTES_MAX
}
