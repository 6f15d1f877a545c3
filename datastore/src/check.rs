//! Refuses requests that make no sense, before anything is queued for them.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::error::RequestError;
use crate::key_range::{End, KeyRange};
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
    puts: BTreeMap<Bytes, ()>,
    deletes: Vec<KeyRange>,
}

impl Writes {
    /// Collects the writes of a branch and refuses a key written twice. The
    /// two branches of a nested transaction exclude each other, so the same
    /// key may be put in both.
    fn of(operations: &[RequestOp]) -> Result<Writes, RequestError> {
        let mut writes = Writes::default();
        for operation in operations {
            if let Some(Request::RequestDeleteRange(delete)) = &operation.request {
                writes.deletes.push(checked_range(delete));
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
        if self.is_deleted(&key) || self.puts.insert(key, ()).is_some() {
            return Err(RequestError::DuplicateKey);
        }
        Ok(())
    }

    fn add_nested(&mut self, success: Writes, failure: Writes) -> Result<(), RequestError> {
        for key in success.puts.keys() {
            self.add_put(key.clone())?;
        }
        for key in failure.puts.into_keys() {
            if success.puts.contains_key(&key) {
                continue;
            }
            self.add_put(key)?;
        }
        self.deletes.extend(success.deletes);
        self.deletes.extend(failure.deletes);
        Ok(())
    }

    fn is_deleted(&self, key: &[u8]) -> bool {
        self.deletes.iter().any(|range| range.contains(key))
    }
}

/// The keys that a deletion is taken to mean when looking for duplicates.
/// Here etcd reads an end of `\0` as the key, and not as "to the end": a
/// transaction may put a key and then delete everything from it on.
fn checked_range(delete: &DeleteRangeRequest) -> KeyRange {
    let start = delete.key.clone();
    let end = match &delete.range_end {
        end if end.is_empty() => End::Single,
        end => End::Before(end.clone()),
    };
    KeyRange { start, end }
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
