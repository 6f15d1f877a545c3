//! Refuses requests that make no sense, before anything is queued for them.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::error::RequestError;
use crate::proto::range_request::{SortOrder, SortTarget};
use crate::proto::request_op::Request;
use crate::proto::{DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest};

/// Operations in one transaction, its compares counted apart; etcd's default.
pub const TXN_OPERATIONS_MAX: usize = 128;

/// Refuses a range request that can't be answered.
pub fn check_range(request: &RangeRequest) -> Result<(), RequestError> {
    if request.key.is_empty() {
        return Err(RequestError::EmptyKey);
    }
    let order = SortOrder::try_from(request.sort_order);
    let target = SortTarget::try_from(request.sort_target);
    match (order, target) {
        (Ok(_), Ok(_)) => Ok(()),
        _ => Err(RequestError::InvalidSortOption),
    }
}

/// Refuses a put that contradicts itself.
pub fn check_put(request: &PutRequest) -> Result<(), RequestError> {
    if request.key.is_empty() {
        return Err(RequestError::EmptyKey);
    }
    if request.ignore_value && !request.value.is_empty() {
        return Err(RequestError::ValueProvided);
    }
    if request.ignore_lease && request.lease != 0 {
        return Err(RequestError::LeaseProvided);
    }
    Ok(())
}

/// Refuses a deletion of nothing.
pub fn check_delete_range(request: &DeleteRangeRequest) -> Result<(), RequestError> {
    if request.key.is_empty() { Err(RequestError::EmptyKey) } else { Ok(()) }
}

/// Refuses a transaction that is too long, has a bad operation, or would
/// write one key twice.
pub fn check_txn(request: &TxnRequest) -> Result<(), RequestError> {
    check_txn_shape(request, TXN_OPERATIONS_MAX)?;
    Writes::of(&request.success)?;
    Writes::of(&request.failure)?;
    Ok(())
}

fn check_txn_shape(request: &TxnRequest, operations_max: usize) -> Result<(), RequestError> {
    let longest = request.compare.len().max(request.success.len()).max(request.failure.len());
    let Some(left) = operations_max.checked_sub(longest) else {
        return Err(RequestError::TooManyOps);
    };
    if request.compare.iter().any(|compare| compare.key.is_empty()) {
        return Err(RequestError::EmptyKey);
    }
    for operation in request.success.iter().chain(&request.failure) {
        match &operation.request {
            Some(Request::RequestRange(range)) => check_range(range)?,
            Some(Request::RequestPut(put)) => check_put(put)?,
            Some(Request::RequestDeleteRange(delete)) => check_delete_range(delete)?,
            Some(Request::RequestTxn(txn)) => check_txn_shape(txn, left)?,
            None => return Err(RequestError::KeyNotFound),
        }
    }
    Ok(())
}

/// What one branch of a transaction writes, its nested transactions included.
#[derive(Default)]
struct Writes {
    puts: BTreeSet<Bytes>,
    /// From each key to before the other; those that overlap are one, so that
    /// a key is looked for in one place however many deletions there are.
    deletes: BTreeMap<Bytes, Bytes>,
}

impl Writes {
    /// Collects the writes of a branch and refuses a key written twice. The
    /// two branches of a nested transaction exclude each other, so the same
    /// key may be put in both.
    fn of(operations: &[RequestOp]) -> Result<Writes, RequestError> {
        let mut writes = Writes::default();
        for operation in operations {
            if let Some(Request::RequestDeleteRange(delete)) = &operation.request {
                let (start, end) = checked_range(delete);
                writes.add_delete(start, end);
            }
        }
        for operation in operations {
            if let Some(Request::RequestTxn(txn)) = &operation.request {
                writes.add_nested(Writes::of(&txn.success)?, Writes::of(&txn.failure)?)?;
            }
        }
        for operation in operations {
            if let Some(Request::RequestPut(put)) = &operation.request {
                writes.add_put(put.key.clone())?;
            }
        }
        Ok(writes)
    }

    fn add_put(&mut self, key: Bytes) -> Result<(), RequestError> {
        if self.is_deleted(&key) || !self.puts.insert(key) {
            return Err(RequestError::DuplicateKey);
        }
        Ok(())
    }

    fn add_nested(&mut self, success: Writes, failure: Writes) -> Result<(), RequestError> {
        for key in success.puts.union(&failure.puts) {
            self.add_put(key.clone())?;
        }
        for (start, end) in success.deletes.into_iter().chain(failure.deletes) {
            self.add_delete(start, end);
        }
        Ok(())
    }

    fn add_delete(&mut self, mut start: Bytes, mut end: Bytes) {
        if end <= start {
            return;
        }
        let last_before = |deletes: &BTreeMap<Bytes, Bytes>, key: &Bytes| {
            let found = deletes.range::<Bytes, _>(..=key).next_back();
            found.map(|(start, end)| (start.clone(), end.clone()))
        };
        while let Some(other) = last_before(&self.deletes, &end).filter(|(_, end)| *end >= start) {
            self.deletes.remove(&other.0);
            start = start.min(other.0);
            end = end.max(other.1);
        }
        self.deletes.insert(start, end);
    }

    fn is_deleted(&self, key: &Bytes) -> bool {
        let found = self.deletes.range::<Bytes, _>(..=key).next_back();
        found.is_some_and(|(_, end)| key < end)
    }
}

/// The keys that a deletion is taken to mean when looking for duplicates.
/// Here etcd reads an end of `\0` as the key, and not as "to the end": a
/// transaction may put a key and then delete everything from it on.
fn checked_range(delete: &DeleteRangeRequest) -> (Bytes, Bytes) {
    let end = match &delete.range_end {
        end if end.is_empty() => [&delete.key[..], &[0]].concat().into(),
        end => end.clone(),
    };
    (delete.key.clone(), end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::{Compare, request_op};

    fn put(key: &'static str) -> RequestOp {
        let put = PutRequest { key: key.into(), ..Default::default() };
        RequestOp { request: Some(request_op::Request::RequestPut(put)) }
    }

    fn delete(key: &'static str, range_end: &'static str) -> RequestOp {
        let delete = DeleteRangeRequest {
            key: key.into(),
            range_end: range_end.into(),
            ..Default::default()
        };
        RequestOp { request: Some(request_op::Request::RequestDeleteRange(delete)) }
    }

    fn nested(success: Vec<RequestOp>, failure: Vec<RequestOp>) -> RequestOp {
        let txn = TxnRequest { success, failure, ..Default::default() };
        RequestOp { request: Some(request_op::Request::RequestTxn(txn)) }
    }

    fn check(success: Vec<RequestOp>) -> Result<(), RequestError> {
        check_txn(&TxnRequest { success, ..Default::default() })
    }

    #[test]
    fn one_key_is_written_once_in_a_transaction() {
        let duplicate = Err(RequestError::DuplicateKey);
        assert_eq!(check(vec![put("a"), put("b")]), Ok(()));
        assert_eq!(check(vec![put("a"), put("a")]), duplicate);
        assert_eq!(check(vec![put("a"), delete("a", "")]), duplicate);
        assert_eq!(check(vec![put("c"), delete("a", "c")]), Ok(()));
        assert_eq!(check(vec![put("b"), delete("a", "\0")]), Ok(()));
        assert_eq!(check(vec![delete("a", "c"), delete("b", "d")]), Ok(()));
    }

    #[test]
    fn deletions_that_overlap_are_seen_as_one() {
        let duplicate = Err(RequestError::DuplicateKey);
        let deletes = [delete("p", "t"), delete("c", "f"), delete("e", "h"), delete("b", "")];
        let with = |key| check(deletes.iter().cloned().chain([put(key)]).collect());
        for key in ["b", "c", "e", "f", "gz", "p", "sz"] {
            assert_eq!(with(key), duplicate, "{key}");
        }
        for key in ["a", "b\0", "bz", "h", "o", "t"] {
            assert_eq!(with(key), Ok(()), "{key}");
        }
        let nested = nested(deletes.to_vec(), vec![delete("h", "k")]);
        assert_eq!(check(vec![nested.clone(), put("j")]), duplicate);
        assert_eq!(check(vec![nested, put("k")]), Ok(()));
    }

    #[test]
    fn branches_of_a_nested_transaction_exclude_each_other() {
        let duplicate = Err(RequestError::DuplicateKey);
        assert_eq!(check(vec![nested(vec![put("a")], vec![put("a")])]), Ok(()));
        assert_eq!(check(vec![put("a"), nested(vec![put("a")], vec![])]), duplicate);
        assert_eq!(check(vec![put("a"), nested(vec![], vec![put("a")])]), duplicate);
        assert_eq!(check(vec![delete("a", ""), nested(vec![put("a")], vec![])]), duplicate);
        assert_eq!(check(vec![put("a"), nested(vec![delete("a", "")], vec![])]), duplicate);
    }

    #[test]
    fn long_transactions_are_refused() {
        let puts = |count: usize| {
            (0..count)
                .map(|number| {
                    let put = PutRequest { key: format!("k{number}").into(), ..Default::default() };
                    RequestOp { request: Some(request_op::Request::RequestPut(put)) }
                })
                .collect::<Vec<_>>()
        };
        assert_eq!(check(puts(128)), Ok(()));
        assert_eq!(check(puts(129)), Err(RequestError::TooManyOps));
        assert_eq!(check(vec![nested(puts(128), vec![])]), Err(RequestError::TooManyOps));
        assert_eq!(check(vec![nested(puts(127), vec![])]), Ok(()));
    }

    #[test]
    fn operations_without_a_key_are_refused() {
        let compare = Compare::default();
        let request = TxnRequest { compare: vec![compare], ..Default::default() };
        assert_eq!(check_txn(&request), Err(RequestError::EmptyKey));
        assert_eq!(check(vec![put("")]), Err(RequestError::EmptyKey));
        assert_eq!(check(vec![RequestOp { request: None }]), Err(RequestError::KeyNotFound));
    }
}
