//! The cluster's record in the datastore's database `cluster`.
//!
//! It stands here because here the arrows meet: `microcluster` says what a store must do and knows
//! no datastore, the datastore serves etcd's API and knows no cluster. Reads are linearizable; a
//! change is one transaction that compares the revision of each key it touches:
//!
//! ```text
//!   record/settings   record/membership   record/members/NAME   record/tokens/ID   record/removed/ID
//! ```
//!
//! Whatever else the database may keep one day has another prefix.

use std::path::Path;
use std::time::Duration;

use futures::StreamExt;
use microcluster::record::{ClusterRecord, Revision};
use microcluster::store::{CHANGES_MAX, Change, Entry, Store, StoreError, assemble};
use skiff_datastore::Listen;
use skiff_datastore::error::RequestError;
use skiff_datastore::options::CLUSTER_QUOTA_BYTES;
use skiff_datastore::probe::connect_when_used;
use skiff_datastore::proto::compare::{CompareResult, CompareTarget, TargetUnion};
use skiff_datastore::proto::kv_client::KvClient;
use skiff_datastore::proto::watch_client::WatchClient;
use skiff_datastore::proto::watch_request::RequestUnion;
use skiff_datastore::proto::{
    Compare, DeleteRangeRequest, PutRequest, RangeRequest, RangeResponse, RequestOp,
    ResponseHeader, ResponseOp, TxnRequest, WatchCreateRequest, WatchRequest, request_op,
    response_op,
};
use tonic::Status;
use tonic::transport::Channel;

/// Every key of the record begins with this.
pub const PREFIX: &str = "record/";
/// The first key behind them: `0` is the byte after `/`.
const PREFIX_END: &str = "record0";
/// What an answer may take. The datastore itself waits up to 7 s for a leader.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);

/// The record behind the socket that a datastore was given as `--cluster-listen`. Cheap to clone;
/// a datastore that starts again is found again.
#[derive(Clone, Debug)]
pub struct RecordStore {
    channel: Channel,
}

impl RecordStore {
    /// The record behind `socket`, to which is connected when something is asked. Belongs to the
    /// runtime that this is called in.
    pub fn at(socket: &Path) -> Result<Self, StoreError> {
        let channel = connect_when_used(&Listen::Unix(socket.to_owned()));
        let channel = channel.map_err(|error| StoreError::Unavailable(error.to_string()))?;
        Ok(Self { channel })
    }

    fn kv(&self) -> KvClient<Channel> {
        // The whole record may be asked for, and is never larger than that.
        KvClient::new(self.channel.clone()).max_decoding_message_size(CLUSTER_QUOTA_BYTES as usize)
    }

    async fn range(&self, request: RangeRequest) -> Result<RangeResponse, StoreError> {
        let mut client = self.kv();
        match tokio::time::timeout(ANSWER_TIMEOUT, client.range(request)).await {
            Ok(Ok(answer)) => Ok(answer.into_inner()),
            Ok(Err(status)) => Err(unavailable(&status)),
            Err(_) => Err(StoreError::Unavailable(no_answer())),
        }
    }

    async fn latest(&self) -> Result<Revision, StoreError> {
        let answer = self.range(RangeRequest { count_only: true, ..everything() }).await?;
        Ok(revision(answer.header))
    }

    /// The first revision after `seen` that touches the record; nothing when the datastore has
    /// forgotten what was between.
    async fn watch(&self, seen: Revision) -> Result<Option<Revision>, StoreError> {
        let create = WatchCreateRequest {
            key: PREFIX.into(),
            range_end: PREFIX_END.into(),
            start_revision: number(seen).saturating_add(1),
            ..WatchCreateRequest::default()
        };
        let request = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
        let requests = futures::stream::iter([request]).chain(futures::stream::pending());
        let mut client = WatchClient::new(self.channel.clone())
            .max_decoding_message_size(CLUSTER_QUOTA_BYTES as usize);
        let answers = client.watch(requests).await.map_err(|status| unavailable(&status))?;
        let mut answers = answers.into_inner();
        while let Some(answer) = answers.message().await.map_err(|status| unavailable(&status))? {
            if answer.canceled && answer.compact_revision > 0 {
                return Ok(None);
            }
            if answer.canceled {
                return Err(StoreError::Unavailable(answer.cancel_reason));
            }
            if !answer.events.is_empty() {
                return Ok(Some(revision(answer.header)));
            }
        }
        Err(StoreError::Unavailable("the datastore ended the watch".to_owned()))
    }
}

impl Store for RecordStore {
    async fn read(&self) -> Result<ClusterRecord, StoreError> {
        let answer = self.range(everything()).await?;
        let found = revision(answer.header);
        let mut entries = Vec::with_capacity(answer.kvs.len());
        for kv in answer.kvs {
            let key = String::from_utf8_lossy(&kv.key).into_owned();
            let key = key.strip_prefix(PREFIX).unwrap_or(&key).to_owned();
            let revision = Revision(kv.mod_revision.unsigned_abs());
            entries.push(Entry { key, value: kv.value.into(), revision });
        }
        assemble(found, entries)
    }

    async fn apply(&self, changes: &[Change]) -> Result<Revision, StoreError> {
        assert!(changes.len() <= CHANGES_MAX, "a decision has {} changes", changes.len());
        if changes.is_empty() {
            return self.latest().await;
        }
        let mut client = self.kv();
        let asked = tokio::time::timeout(ANSWER_TIMEOUT, client.txn(transaction(changes))).await;
        let answer = match asked {
            Ok(Ok(answer)) => answer.into_inner(),
            Ok(Err(status)) if was_not_done(&status) => return Err(unavailable(&status)),
            Ok(Err(status)) => return Err(StoreError::Unknown(reason_of(&status))),
            Err(_) => return Err(StoreError::Unknown(no_answer())),
        };
        if answer.succeeded {
            return Ok(revision(answer.header));
        }
        let found = answer.responses.iter().map(found_revision);
        let collided = changes.iter().zip(found).find(|(change, found)| change.was() != *found);
        let (change, _) = collided.unwrap_or((&changes[0], None));
        Err(StoreError::Collided { key: change.key() })
    }

    async fn later_than(&self, seen: Revision) -> Result<Revision, StoreError> {
        loop {
            let latest = self.latest().await?;
            if latest > seen {
                return Ok(latest);
            }
            if let Some(later) = self.watch(seen).await? {
                return Ok(later);
            }
        }
    }
}

fn everything() -> RangeRequest {
    let (key, range_end) = (PREFIX.into(), PREFIX_END.into());
    RangeRequest { key, range_end, ..RangeRequest::default() }
}

/// Makes every change if each key is as expected; otherwise says how each one is.
fn transaction(changes: &[Change]) -> TxnRequest {
    let mut request = TxnRequest::default();
    for change in changes {
        let write = change.to_write();
        let key = format!("{PREFIX}{}", write.key).into_bytes();
        request.compare.push(expectation(key.clone(), write.was));
        request.success.push(operation(match write.value {
            Some(value) => request_op::Request::RequestPut(PutRequest {
                key: key.clone().into(),
                value: value.into(),
                ..PutRequest::default()
            }),
            None => request_op::Request::RequestDeleteRange(DeleteRangeRequest {
                key: key.clone().into(),
                ..DeleteRangeRequest::default()
            }),
        }));
        let look = RangeRequest { key: key.into(), keys_only: true, ..RangeRequest::default() };
        request.failure.push(operation(request_op::Request::RequestRange(look)));
    }
    request
}

fn operation(request: request_op::Request) -> RequestOp {
    RequestOp { request: Some(request) }
}

/// A key that is not there has the revision 0 as far as comparing goes.
fn expectation(key: Vec<u8>, was: Option<Revision>) -> Compare {
    Compare {
        result: CompareResult::Equal.into(),
        target: CompareTarget::Mod.into(),
        key: key.into(),
        target_union: Some(TargetUnion::ModRevision(was.map_or(0, number))),
        ..Compare::default()
    }
}

fn found_revision(response: &ResponseOp) -> Option<Revision> {
    match &response.response {
        Some(response_op::Response::ResponseRange(range)) => {
            range.kvs.first().map(|kv| Revision(kv.mod_revision.unsigned_abs()))
        }
        _ => None,
    }
}

fn revision(header: Option<ResponseHeader>) -> Revision {
    Revision(header.map_or(0, |header| header.revision.unsigned_abs()))
}

fn number(revision: Revision) -> i64 {
    i64::try_from(revision.0).unwrap_or(i64::MAX)
}

/// Whether a change that failed certainly was not made: the datastore says so, or it was never
/// reached. It says nothing of the kind by `request timed out`, nor by `server stopped`, which is
/// also how it ends what it had begun.
fn was_not_done(status: &Status) -> bool {
    match RequestError::from_text(status.message()) {
        Some(RequestError::TimedOut | RequestError::Stopped) => false,
        Some(_) => true,
        None => sources(status).any(|source| source.is::<tonic::ConnectError>()),
    }
}

fn sources(status: &Status) -> impl Iterator<Item = &(dyn std::error::Error + 'static)> {
    std::iter::successors(std::error::Error::source(status), |error| error.source())
}

fn unavailable(status: &Status) -> StoreError {
    StoreError::Unavailable(reason_of(status))
}

/// The innermost reason: "connection refused" says more than "transport error".
fn reason_of(status: &Status) -> String {
    sources(status).last().map_or_else(|| status.message().to_owned(), ToString::to_string)
}

fn no_answer() -> String {
    format!("no answer within {} s", ANSWER_TIMEOUT.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_certainly_was_not_done_may_be_tried_again() {
        for error in RequestError::ALL {
            let may_be_done = matches!(error, RequestError::TimedOut | RequestError::Stopped);
            assert_eq!(was_not_done(&error.into()), !may_be_done, "{error}");
        }
        for status in [Status::unknown("h2 protocol error"), Status::cancelled("")] {
            assert!(!was_not_done(&status), "{status}");
        }
    }

    #[tokio::test]
    async fn a_datastore_that_is_not_there_has_done_nothing() {
        let dir = tempfile::TempDir::new().unwrap();
        let store = RecordStore::at(&dir.path().join("socket")).unwrap();
        let change = Change::PutMembership { membership: Default::default(), was: None };
        for result in [store.apply(&[change]).await.err(), store.read().await.err()] {
            assert!(matches!(result, Some(StoreError::Unavailable(_))), "{result:?}");
        }
    }
}
