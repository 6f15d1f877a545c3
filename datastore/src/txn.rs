//! Evaluates transactions against the index: reads answer at once, writes are
//! staged for the writer to commit. Pure: no clock, no store.

use std::cmp::Ordering;

use crate::error::RequestError;
use crate::identity::Identity;
use crate::index::Index;
use crate::key_range::{End, KeyRange};
use crate::proto::compare::{CompareResult, CompareTarget, TargetUnion};
use crate::proto::request_op::Request;
use crate::proto::response_op::Response;
use crate::proto::{
    Compare, DeleteRangeRequest, DeleteRangeResponse, PutRequest, PutResponse, RequestOp,
    ResponseOp, TxnRequest, TxnResponse,
};
use crate::range::{answer_range, to_wire};
use crate::record::{LeaseId, Record, Revision};

/// Whether no branch of the transaction writes.
pub fn is_read_only(request: &TxnRequest) -> bool {
    request.success.iter().chain(&request.failure).all(|operation| match &operation.request {
        Some(Request::RequestRange(_)) | None => true,
        Some(Request::RequestTxn(nested)) => is_read_only(nested),
        Some(Request::RequestPut(_) | Request::RequestDeleteRange(_)) => false,
    })
}

/// Answers a transaction that writes nothing, at `newest`.
pub fn answer_read_only(
    index: &Index,
    request: &TxnRequest,
    newest: Revision,
    identity: &Identity,
) -> Result<TxnResponse, RequestError> {
    let succeeded = all_hold(index, &request.compare, newest);
    let branch = if succeeded { &request.success } else { &request.failure };
    let mut responses = Vec::with_capacity(branch.len());
    for operation in branch {
        let response = match &operation.request {
            Some(Request::RequestRange(range)) => {
                Response::ResponseRange(answer_range(index, range, newest, identity)?)
            }
            Some(Request::RequestTxn(nested)) => {
                Response::ResponseTxn(answer_read_only(index, nested, newest, identity)?)
            }
            _ => return Err(RequestError::KeyNotFound),
        };
        responses.push(ResponseOp { response: Some(response) });
    }
    Ok(TxnResponse { header: identity.header(newest), succeeded, responses })
}

/// Stages one request that may write. Its revision is opened by its first
/// write, so a transaction that writes nothing leaves none; after an error
/// nothing of it is staged.
pub struct Staging<'a> {
    index: &'a mut Index,
    identity: &'a Identity,
    has_lease: &'a dyn Fn(LeaseId) -> bool,
    opened: bool,
}

impl<'a> Staging<'a> {
    /// Begins a request; `has_lease` says which leases a put may name.
    pub fn new(
        index: &'a mut Index,
        identity: &'a Identity,
        has_lease: &'a dyn Fn(LeaseId) -> bool,
    ) -> Staging<'a> {
        Staging { index, identity, has_lease, opened: false }
    }

    /// Stages a put alone.
    pub fn put(mut self, request: &PutRequest) -> Result<PutResponse, RequestError> {
        let result = self.apply_put(request);
        self.settle(result)
    }

    /// Stages a deletion alone.
    pub fn delete_range(
        mut self,
        request: &DeleteRangeRequest,
    ) -> Result<DeleteRangeResponse, RequestError> {
        let response = self.apply_delete(request);
        self.settle(Ok(response))
    }

    /// Stages a transaction. Every compare, those of nested transactions too,
    /// sees the store as it was before the transaction.
    pub fn txn(mut self, request: &TxnRequest) -> Result<TxnResponse, RequestError> {
        let path = Path::of(self.index, request);
        let result = self.apply_txn(request, &path);
        self.settle(result)
    }

    /// Stages the end of every key in `keys`, in one revision.
    pub fn delete_keys(mut self, keys: &[bytes::Bytes]) {
        for key in keys {
            self.open();
            self.index.stage_delete(key);
        }
    }

    fn settle<T>(self, result: Result<T, RequestError>) -> Result<T, RequestError> {
        if result.is_err() && self.opened {
            self.index.unstage_revision();
        }
        result
    }

    fn open(&mut self) {
        if !self.opened {
            self.index.stage_revision();
            self.opened = true;
        }
    }

    fn apply_txn(
        &mut self,
        request: &TxnRequest,
        path: &Path,
    ) -> Result<TxnResponse, RequestError> {
        let branch = if path.succeeded { &request.success } else { &request.failure };
        let mut nested = path.nested.iter();
        let mut responses = Vec::with_capacity(branch.len());
        for operation in branch {
            responses.push(ResponseOp { response: Some(self.apply(operation, &mut nested)?) });
        }
        let header = self.identity.header(self.index.head());
        Ok(TxnResponse { header, succeeded: path.succeeded, responses })
    }

    fn apply<'p>(
        &mut self,
        operation: &RequestOp,
        nested: &mut impl Iterator<Item = &'p Path>,
    ) -> Result<Response, RequestError> {
        Ok(match &operation.request {
            Some(Request::RequestRange(range)) => {
                let newest = self.index.head();
                Response::ResponseRange(answer_range(self.index, range, newest, self.identity)?)
            }
            Some(Request::RequestPut(put)) => Response::ResponsePut(self.apply_put(put)?),
            Some(Request::RequestDeleteRange(delete)) => {
                Response::ResponseDeleteRange(self.apply_delete(delete))
            }
            Some(Request::RequestTxn(txn)) => {
                let path = nested.next().expect("a path holds one entry per nested transaction");
                Response::ResponseTxn(self.apply_txn(txn, path)?)
            }
            None => return Err(RequestError::KeyNotFound),
        })
    }

    fn apply_put(&mut self, request: &PutRequest) -> Result<PutResponse, RequestError> {
        let former = self.index.get(&request.key, self.index.head()).cloned();
        if (request.ignore_value || request.ignore_lease) && former.is_none() {
            return Err(RequestError::KeyNotFound);
        }
        let mut lease = LeaseId(request.lease);
        let mut value = request.value.clone();
        if let Some(former) = &former {
            if request.ignore_value {
                value = former.value.clone();
            }
            if request.ignore_lease {
                lease = former.lease;
            }
        }
        if lease.is_some() && !(self.has_lease)(lease) {
            return Err(RequestError::LeaseNotFound);
        }
        self.open();
        self.index.stage_put(&request.key, &value, lease);
        let prev_kv = former.filter(|_| request.prev_kv).map(|former| to_wire(&former, false));
        Ok(PutResponse { header: self.identity.header(self.index.head()), prev_kv })
    }

    fn apply_delete(&mut self, request: &DeleteRangeRequest) -> DeleteRangeResponse {
        let range = KeyRange::from_wire(request.key.clone(), request.range_end.clone());
        let doomed: Vec<_> = self.index.range(&range, self.index.head()).cloned().collect();
        for record in &doomed {
            self.open();
            self.index.stage_delete(&record.key);
        }
        let prev_kvs = if request.prev_kv {
            doomed.iter().map(|record| to_wire(record, false)).collect()
        } else {
            Vec::new()
        };
        let header = self.identity.header(self.index.head());
        DeleteRangeResponse { header, deleted: doomed.len() as i64, prev_kvs }
    }
}

/// Which branch a transaction takes, and those of its nested ones in order.
struct Path {
    succeeded: bool,
    nested: Vec<Path>,
}

impl Path {
    fn of(index: &Index, request: &TxnRequest) -> Path {
        let succeeded = all_hold(index, &request.compare, index.head());
        let branch = if succeeded { &request.success } else { &request.failure };
        let nested = branch
            .iter()
            .filter_map(|operation| match &operation.request {
                Some(Request::RequestTxn(txn)) => Some(Path::of(index, txn)),
                _ => None,
            })
            .collect();
        Path { succeeded, nested }
    }
}

fn all_hold(index: &Index, compares: &[Compare], at: Revision) -> bool {
    compares.iter().all(|compare| holds(index, compare, at))
}

/// Whether a compare holds for every key it means. A key that does not exist
/// compares as all zeroes, but has no value to compare with.
fn holds(index: &Index, compare: &Compare, at: Revision) -> bool {
    let range = KeyRange::from_wire(compare.key.clone(), compare.range_end.clone());
    if range.end == End::Single {
        return holds_for(index.get(&compare.key, at).map(|record| &**record), compare);
    }
    let mut records = index.range(&range, at).peekable();
    if records.peek().is_none() {
        return holds_for(None, compare);
    }
    records.all(|record| holds_for(Some(record), compare))
}

fn holds_for(record: Option<&Record>, compare: &Compare) -> bool {
    let number = |found: i64| found.cmp(&wanted_number(compare));
    let ordering = match (compare.target(), record) {
        (CompareTarget::Value, None) => return false,
        (CompareTarget::Value, Some(record)) => record.value.as_ref().cmp(wanted_value(compare)),
        (CompareTarget::Version, record) => number(record.map_or(0, |record| record.version)),
        (CompareTarget::Create, record) => number(record.map_or(0, |record| record.created.0)),
        (CompareTarget::Mod, record) => number(record.map_or(0, |record| record.modified.0)),
        (CompareTarget::Lease, record) => number(record.map_or(0, |record| record.lease.0)),
    };
    match compare.result() {
        CompareResult::Equal => ordering == Ordering::Equal,
        CompareResult::Greater => ordering == Ordering::Greater,
        CompareResult::Less => ordering == Ordering::Less,
        CompareResult::NotEqual => ordering != Ordering::Equal,
    }
}

fn wanted_number(compare: &Compare) -> i64 {
    match compare.target_union {
        Some(
            TargetUnion::Version(number)
            | TargetUnion::CreateRevision(number)
            | TargetUnion::ModRevision(number)
            | TargetUnion::Lease(number),
        ) => number,
        _ => 0,
    }
}

fn wanted_value(compare: &Compare) -> &[u8] {
    match &compare.target_union {
        Some(TargetUnion::Value(value)) => value,
        _ => &[],
    }
}
