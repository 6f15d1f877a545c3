//! Evaluates transactions against the index: reads answer at once, writes are
//! staged for the writer to commit. Pure: no clock, no store.

use std::cmp::Ordering;
use std::sync::Arc;

use crate::error::RequestError;
use crate::identity::Identity;
use crate::index::Index;
use crate::key_range::{End, KeyRange};
use crate::proto::compare::{CompareResult, CompareTarget, TargetUnion};
use crate::proto::request_op::Request;
use crate::proto::response_op::Response;
use crate::proto::{
    Compare, DeleteRangeRequest, DeleteRangeResponse, KeyValue, PutRequest, PutResponse,
    RangeRequest, RequestOp, ResponseHeader, ResponseOp, TxnRequest, TxnResponse,
};
use crate::range::{Found, answer_range, to_wire};
use crate::record::{LeaseId, Record, Revision};

/// Bytes that the ranges of one transaction may answer together; more than
/// this no client takes. A transaction has room for thousands of ranges.
const ANSWER_BYTES_MAX: usize = i32::MAX as usize;

/// Whether the transaction only reads, as etcd sees it: one that has others
/// in it is treated as a write, and so is bounded in size.
pub fn is_read_only(request: &TxnRequest) -> bool {
    let mut operations = request.success.iter().chain(&request.failure);
    operations.all(|operation| matches!(operation.request, Some(Request::RequestRange(_))))
}

/// Whether a transaction that only reads may be answered from a state
/// that is not the newest: etcd's rule, that every read in it says so.
pub fn is_serializable(request: &TxnRequest) -> bool {
    request.success.iter().chain(&request.failure).all(|operation| match &operation.request {
        Some(Request::RequestRange(range)) => range.serializable,
        _ => false,
    })
}

/// Answers a transaction that only reads, at `newest`.
pub fn answer_read_only(
    index: &Index,
    request: &TxnRequest,
    newest: Revision,
    identity: &Identity,
) -> Result<TxnResponse, RequestError> {
    let path = Path::of(index, request, newest);
    check_operations(index, request, &path, newest, &|_| true)?;
    let mut responses = Vec::new();
    let mut left = ANSWER_BYTES_MAX;
    for operation in path.branch(request) {
        if let Some(Request::RequestRange(range)) = &operation.request {
            let found = answer_within(index, range, newest, &mut left)?;
            responses.push(Response::ResponseRange(found.into_response(&Identity::UNNAMED)));
        }
    }
    let responses =
        responses.into_iter().map(|response| ResponseOp { response: Some(response) }).collect();
    Ok(TxnResponse { header: identity.header(newest), succeeded: path.succeeded, responses })
}

/// Answers a range with what is left of the answer's bytes.
fn answer_within(
    index: &Index,
    request: &RangeRequest,
    newest: Revision,
    left: &mut usize,
) -> Result<Found, RequestError> {
    let found = answer_range(index, request, newest)?;
    let bytes =
        |record: &Arc<Record>| size_of::<KeyValue>() + record.key.len() + record.value.len();
    let bytes = found.records.iter().map(bytes).sum();
    *left = left.checked_sub(bytes).ok_or(RequestError::TooLarge)?;
    Ok(found)
}

/// Refuses what can't be done in the branches that are taken. All of it is
/// checked against the store as it was before the transaction, as etcd does:
/// a key that the transaction itself makes is not there yet.
fn check_operations(
    index: &Index,
    request: &TxnRequest,
    path: &Path,
    newest: Revision,
    has_lease: &dyn Fn(LeaseId) -> bool,
) -> Result<(), RequestError> {
    let mut nested = path.nested.iter();
    for operation in path.branch(request) {
        match &operation.request {
            // Below 0 means the newest only outside of transactions.
            Some(Request::RequestRange(range)) if range.revision != 0 => {
                index.check_readable(Revision(range.revision), newest)?;
            }
            Some(Request::RequestPut(put)) => check_put(index, put, newest, has_lease)?,
            Some(Request::RequestTxn(txn)) => {
                let path = nested.next().expect("a path holds one entry per nested transaction");
                check_operations(index, txn, path, newest, has_lease)?;
            }
            Some(Request::RequestRange(_) | Request::RequestDeleteRange(_)) => {}
            None => return Err(RequestError::KeyNotFound),
        }
    }
    Ok(())
}

fn check_put(
    index: &Index,
    request: &PutRequest,
    newest: Revision,
    has_lease: &dyn Fn(LeaseId) -> bool,
) -> Result<(), RequestError> {
    let lease = LeaseId(request.lease);
    if lease.is_some() && !has_lease(lease) {
        return Err(RequestError::LeaseNotFound);
    }
    let needs_former = request.ignore_value || request.ignore_lease;
    if needs_former && !index.contains(&request.key, newest) {
        return Err(RequestError::KeyNotFound);
    }
    Ok(())
}

/// Stages one request that may write. Its revision is opened by its first
/// write, so a transaction that writes nothing leaves none; a request that is
/// refused stages nothing.
pub struct Staging<'a> {
    index: &'a mut Index,
    identity: &'a Identity,
    has_lease: &'a dyn Fn(LeaseId) -> bool,
    opened: bool,
    answer_bytes_left: usize,
}

impl<'a> Staging<'a> {
    /// Begins a request; `has_lease` says which leases a put may name.
    pub fn new(
        index: &'a mut Index,
        identity: &'a Identity,
        has_lease: &'a dyn Fn(LeaseId) -> bool,
    ) -> Staging<'a> {
        let answer_bytes_left = ANSWER_BYTES_MAX;
        Staging { index, identity, has_lease, opened: false, answer_bytes_left }
    }

    /// Stages a put alone.
    pub fn put(mut self, request: &PutRequest) -> Result<PutResponse, RequestError> {
        check_put(self.index, request, self.index.head(), self.has_lease)?;
        let mut response = self.apply_put(request)?;
        response.header = self.identity.header(self.index.head());
        Ok(response)
    }

    /// Stages a deletion alone.
    pub fn delete_range(mut self, request: &DeleteRangeRequest) -> DeleteRangeResponse {
        let mut response = self.apply_delete(request);
        response.header = self.identity.header(self.index.head());
        response
    }

    /// Stages a transaction. Every compare, those of nested transactions too,
    /// sees the store as it was before the transaction.
    pub fn txn(mut self, request: &TxnRequest) -> Result<TxnResponse, RequestError> {
        let before = self.index.head();
        let path = Path::of(self.index, request, before);
        check_operations(self.index, request, &path, before, self.has_lease)?;
        let result = self.apply_txn(request, &path);
        if result.is_err() && self.opened {
            self.index.unstage_revision();
        }
        let mut response = result?;
        response.header = self.identity.header(self.index.head());
        Ok(response)
    }

    /// Stages the end of every key in `keys`, in one revision.
    pub fn delete_keys(mut self, keys: &[bytes::Bytes]) {
        for key in keys {
            self.open();
            self.index.stage_delete(key);
        }
    }

    fn open(&mut self) {
        if !self.opened {
            self.index.stage_revision();
            self.opened = true;
        }
    }

    /// The header of an operation within a transaction: a revision only.
    fn inner_header(&self) -> Option<ResponseHeader> {
        Identity::UNNAMED.header(self.index.head())
    }

    fn apply_txn(
        &mut self,
        request: &TxnRequest,
        path: &Path,
    ) -> Result<TxnResponse, RequestError> {
        let branch = path.branch(request);
        let mut nested = path.nested.iter();
        let mut responses = Vec::with_capacity(branch.len());
        for operation in branch {
            responses.push(ResponseOp { response: Some(self.apply(operation, &mut nested)?) });
        }
        let header = Some(ResponseHeader::default());
        Ok(TxnResponse { header, succeeded: path.succeeded, responses })
    }

    fn apply<'p>(
        &mut self,
        operation: &RequestOp,
        nested: &mut impl Iterator<Item = &'p Path>,
    ) -> Result<Response, RequestError> {
        Ok(match &operation.request {
            Some(Request::RequestRange(range)) => {
                let (index, left) = (&*self.index, &mut self.answer_bytes_left);
                let found = answer_within(index, range, index.head(), left)?;
                Response::ResponseRange(found.into_response(&Identity::UNNAMED))
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

    /// What a put is to keep of the former record may be gone although it was
    /// there before the transaction: a deletion of everything from a key on,
    /// in the same transaction, is no duplicate to etcd, which then panics.
    fn apply_put(&mut self, request: &PutRequest) -> Result<PutResponse, RequestError> {
        let former = self.index.get(&request.key, self.index.head());
        let mut lease = LeaseId(request.lease);
        let mut value = request.value.clone();
        if request.ignore_value {
            value = former.as_ref().ok_or(RequestError::KeyNotFound)?.value.clone();
        }
        if request.ignore_lease {
            lease = former.as_ref().ok_or(RequestError::KeyNotFound)?.lease;
        }
        self.open();
        self.index.stage_put(&request.key, &value, lease);
        let prev_kv = former.filter(|_| request.prev_kv).map(|former| to_wire(&former));
        Ok(PutResponse { header: self.inner_header(), prev_kv })
    }

    fn apply_delete(&mut self, request: &DeleteRangeRequest) -> DeleteRangeResponse {
        let range = KeyRange::from_wire(request.key.clone(), request.range_end.clone());
        let doomed: Vec<_> = self.index.range(&range, self.index.head()).collect();
        for record in &doomed {
            self.open();
            self.index.stage_delete(&record.key);
        }
        let prev_kvs = if request.prev_kv {
            doomed.iter().map(|record| to_wire(record)).collect()
        } else {
            Vec::new()
        };
        DeleteRangeResponse { header: self.inner_header(), deleted: doomed.len() as i64, prev_kvs }
    }
}

/// Which branch a transaction takes, and those of its nested ones in order.
struct Path {
    succeeded: bool,
    nested: Vec<Path>,
}

impl Path {
    fn of(index: &Index, request: &TxnRequest, at: Revision) -> Path {
        let succeeded = all_hold(index, &request.compare, at);
        let branch = if succeeded { &request.success } else { &request.failure };
        let nested = branch
            .iter()
            .filter_map(|operation| match &operation.request {
                Some(Request::RequestTxn(txn)) => Some(Path::of(index, txn, at)),
                _ => None,
            })
            .collect();
        Path { succeeded, nested }
    }

    fn branch<'r>(&self, request: &'r TxnRequest) -> &'r [RequestOp] {
        if self.succeeded { &request.success } else { &request.failure }
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
        return holds_for(index.get(&compare.key, at).as_deref(), compare);
    }
    let mut records = index.range(&range, at).peekable();
    if records.peek().is_none() {
        return holds_for(None, compare);
    }
    records.all(|record| holds_for(Some(&record), compare))
}

fn holds_for(record: Option<&Record>, compare: &Compare) -> bool {
    let number = |found: i64| found.cmp(&wanted_number(compare));
    let ordering = match (CompareTarget::try_from(compare.target), record) {
        (Ok(CompareTarget::Value), None) => return false,
        (Ok(CompareTarget::Value), Some(record)) => {
            record.value.as_ref().cmp(wanted_value(compare))
        }
        (Ok(CompareTarget::Version), record) => number(record.map_or(0, |record| record.version)),
        (Ok(CompareTarget::Create), record) => number(record.map_or(0, |record| record.created.0)),
        (Ok(CompareTarget::Mod), record) => number(record.map_or(0, |record| record.modified.0)),
        (Ok(CompareTarget::Lease), record) => number(record.map_or(0, |record| record.lease.0)),
        // A target that etcd does not know is equal to anything.
        (Err(_), _) => Ordering::Equal,
    };
    match CompareResult::try_from(compare.result) {
        Ok(CompareResult::Equal) => ordering == Ordering::Equal,
        Ok(CompareResult::Greater) => ordering == Ordering::Greater,
        Ok(CompareResult::Less) => ordering == Ordering::Less,
        Ok(CompareResult::NotEqual) => ordering != Ordering::Equal,
        // And a result that it does not know always holds.
        Err(_) => true,
    }
}

/// The number to compare with: 0 if the one given is for another target.
fn wanted_number(compare: &Compare) -> i64 {
    match (&compare.target_union, CompareTarget::try_from(compare.target)) {
        (Some(TargetUnion::Version(number)), Ok(CompareTarget::Version))
        | (Some(TargetUnion::CreateRevision(number)), Ok(CompareTarget::Create))
        | (Some(TargetUnion::ModRevision(number)), Ok(CompareTarget::Mod))
        | (Some(TargetUnion::Lease(number)), Ok(CompareTarget::Lease)) => *number,
        _ => 0,
    }
}

fn wanted_value(compare: &Compare) -> &[u8] {
    match &compare.target_union {
        Some(TargetUnion::Value(value)) => value,
        _ => &[],
    }
}
