//! Ties the generated services to the operations.

use std::pin::Pin;

use futures::Stream;
use tonic::{Request, Response, Status, Streaming};

use super::Server;
use crate::proto::cluster_server::Cluster;
use crate::proto::kv_server::Kv;
use crate::proto::lease_server::Lease;
use crate::proto::maintenance_server::Maintenance;
use crate::proto::watch_server::Watch;
use crate::proto::*;

type Answer<T> = Result<Response<T>, Status>;
/// A stream of answers.
pub type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Kv for Server {
    async fn range(&self, request: Request<RangeRequest>) -> Answer<RangeResponse> {
        // Answered in pieces by `front`, which comes first.
        let found = super::range::range(self, &request.into_inner()).await?;
        Ok(Response::new(found.into_response(&self.engine.identity())))
    }

    type RangeStreamStream = Answers<RangeStreamResponse>;

    async fn range_stream(
        &self,
        request: Request<RangeRequest>,
    ) -> Answer<Self::RangeStreamStream> {
        let pieces = super::range_stream::range_stream(self, &request.into_inner()).await?;
        Ok(Response::new(Box::pin(pieces)))
    }

    async fn put(&self, request: Request<PutRequest>) -> Answer<PutResponse> {
        super::put::put(self, request.into_inner()).await.map(Response::new)
    }

    async fn delete_range(
        &self,
        request: Request<DeleteRangeRequest>,
    ) -> Answer<DeleteRangeResponse> {
        super::delete_range::delete_range(self, request.into_inner()).await.map(Response::new)
    }

    async fn txn(&self, request: Request<TxnRequest>) -> Answer<TxnResponse> {
        super::txn::txn(self, request.into_inner()).await.map(Response::new)
    }

    async fn compact(&self, request: Request<CompactionRequest>) -> Answer<CompactionResponse> {
        super::compact::compact(self, &request.into_inner()).await.map(Response::new)
    }
}

#[tonic::async_trait]
impl Watch for Server {
    type WatchStream = Answers<WatchResponse>;

    async fn watch(&self, request: Request<Streaming<WatchRequest>>) -> Answer<Self::WatchStream> {
        Ok(Response::new(super::watch::watch(self, request.into_inner())))
    }
}

#[tonic::async_trait]
impl Lease for Server {
    type LeaseKeepAliveStream = Answers<LeaseKeepAliveResponse>;

    async fn lease_grant(&self, request: Request<LeaseGrantRequest>) -> Answer<LeaseGrantResponse> {
        super::lease_grant::lease_grant(self, &request.into_inner()).await.map(Response::new)
    }

    async fn lease_revoke(
        &self,
        request: Request<LeaseRevokeRequest>,
    ) -> Answer<LeaseRevokeResponse> {
        super::lease_revoke::lease_revoke(self, &request.into_inner()).await.map(Response::new)
    }

    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<LeaseKeepAliveRequest>>,
    ) -> Answer<Self::LeaseKeepAliveStream> {
        let answers = super::lease_keep_alive::lease_keep_alive(self, request.into_inner());
        Ok(Response::new(answers))
    }

    async fn lease_time_to_live(
        &self,
        request: Request<LeaseTimeToLiveRequest>,
    ) -> Answer<LeaseTimeToLiveResponse> {
        let request = request.into_inner();
        super::lease_time_to_live::lease_time_to_live(self, &request).await.map(Response::new)
    }

    async fn lease_leases(
        &self,
        _request: Request<LeaseLeasesRequest>,
    ) -> Answer<LeaseLeasesResponse> {
        Ok(Response::new(super::lease_leases::lease_leases(self)))
    }
}

#[tonic::async_trait]
impl Cluster for Server {
    async fn member_list(
        &self,
        _request: Request<MemberListRequest>,
    ) -> Answer<MemberListResponse> {
        super::member_list::member_list(self).await.map(Response::new)
    }
}

#[tonic::async_trait]
impl Maintenance for Server {
    type SnapshotStream = Answers<SnapshotResponse>;

    async fn alarm(&self, request: Request<AlarmRequest>) -> Answer<AlarmResponse> {
        Ok(Response::new(super::alarm::alarm(self, &request.into_inner())))
    }

    async fn status(&self, _request: Request<StatusRequest>) -> Answer<StatusResponse> {
        Ok(Response::new(super::status::status(self)))
    }

    async fn defragment(&self, _request: Request<DefragmentRequest>) -> Answer<DefragmentResponse> {
        Ok(Response::new(super::defragment::defragment()))
    }

    async fn hash(&self, _request: Request<HashRequest>) -> Answer<HashResponse> {
        super::hash::hash(self).await.map(Response::new)
    }

    async fn hash_kv(&self, request: Request<HashKvRequest>) -> Answer<HashKvResponse> {
        super::hash::hash_kv(self, &request.into_inner()).await.map(Response::new)
    }

    async fn snapshot(&self, request: Request<SnapshotRequest>) -> Answer<Self::SnapshotStream> {
        super::snapshot::snapshot(self, request.metadata()).await.map(Response::new)
    }
}
