//! Between what the engine speaks of and what goes over the wire.

use crate::command::{Change, Outcome};
use crate::error::RequestError;
use crate::lease::LeaseView;
use crate::proto::peer::forward_request::Wish;
use crate::proto::peer::forward_response::Outcome as WireOutcome;
use crate::proto::peer::{self, Grant, LeaseTimes};
use crate::record::{LeaseId, Revision};
use crate::store::{Chunk, LogRow, Sequence};

/// A change as it is forwarded; nothing for what only a leader asks itself.
pub fn wish_of(change: Change) -> Option<Wish> {
    Some(match change {
        Change::Put(put) => Wish::Put(put),
        Change::DeleteRange(delete) => Wish::DeleteRange(delete),
        Change::Txn(txn) => Wish::Txn(txn),
        Change::Compact(revision) => Wish::Compact(revision.0),
        Change::Grant { lease, ttl_s } => Wish::Grant(Grant { lease: lease.0, ttl_s }),
        Change::Revoke { lease } => Wish::Revoke(lease.0),
        Change::Expire { .. } | Change::Barrier => return None,
    })
}

/// A change that was forwarded; nothing for what is none.
pub fn change_of(wish: Wish) -> Option<Change> {
    Some(match wish {
        Wish::Put(put) => Change::Put(put),
        Wish::DeleteRange(delete) => Change::DeleteRange(delete),
        Wish::Txn(txn) => Change::Txn(txn),
        Wish::Compact(revision) => Change::Compact(Revision(revision)),
        Wish::Grant(Grant { lease, ttl_s }) => Change::Grant { lease: LeaseId(lease), ttl_s },
        Wish::Revoke(lease) => Change::Revoke { lease: LeaseId(lease) },
        Wish::Renew(_) | Wish::View(_) => return None,
    })
}

/// What came of a change, as it goes back.
pub fn to_wire(result: Result<Outcome, RequestError>) -> WireOutcome {
    match result {
        Ok(Outcome::Put(put)) => WireOutcome::Put(put),
        Ok(Outcome::DeleteRange(delete)) => WireOutcome::DeleteRange(delete),
        Ok(Outcome::Txn(txn)) => WireOutcome::Txn(txn),
        Ok(Outcome::Done(revision)) => WireOutcome::Done(revision.0),
        Err(error) => WireOutcome::Refused(error.to_string()),
    }
}

/// What came of a change, as it came back. What is not understood may have
/// been done.
pub fn from_wire(outcome: Option<WireOutcome>) -> Result<Outcome, RequestError> {
    match outcome {
        Some(WireOutcome::Put(put)) => Ok(Outcome::Put(put)),
        Some(WireOutcome::DeleteRange(delete)) => Ok(Outcome::DeleteRange(delete)),
        Some(WireOutcome::Txn(txn)) => Ok(Outcome::Txn(txn)),
        Some(WireOutcome::Done(revision)) => Ok(Outcome::Done(Revision(revision))),
        Some(WireOutcome::Refused(text)) => Err(error_of(&text)),
        Some(WireOutcome::Lease(_)) | None => Err(RequestError::TimedOut),
    }
}

/// The error that a leader named.
pub fn error_of(text: &str) -> RequestError {
    RequestError::from_text(text).unwrap_or(RequestError::TimedOut)
}

/// The times of a lease as they go over the wire.
pub fn times_of(view: Option<LeaseView>) -> LeaseTimes {
    view.map_or_else(LeaseTimes::default, |view| LeaseTimes {
        exists: true,
        granted_ttl_s: view.granted_ttl_s,
        remaining_ttl_s: view.remaining_ttl_s,
        is_alive: view.is_alive,
    })
}

/// The times of a lease as they came.
pub fn view_of(times: &LeaseTimes) -> Option<LeaseView> {
    times.exists.then_some(LeaseView {
        granted_ttl_s: times.granted_ttl_s,
        remaining_ttl_s: times.remaining_ttl_s,
        is_alive: times.is_alive,
    })
}

impl From<&LogRow> for peer::Row {
    fn from(row: &LogRow) -> peer::Row {
        peer::Row {
            sequence: row.sequence.0,
            first: row.first.0,
            last: row.last.0,
            data: row.data.clone().into(),
        }
    }
}

impl From<peer::Row> for LogRow {
    fn from(row: peer::Row) -> LogRow {
        LogRow {
            sequence: Sequence(row.sequence),
            first: Revision(row.first),
            last: Revision(row.last),
            data: row.data.into(),
        }
    }
}

impl From<Chunk> for peer::Chunk {
    fn from(chunk: Chunk) -> peer::Chunk {
        peer::Chunk { first_key: chunk.first_key, data: chunk.data.into() }
    }
}

impl From<peer::Chunk> for Chunk {
    fn from(chunk: peer::Chunk) -> Chunk {
        Chunk { first_key: chunk.first_key, data: chunk.data.into() }
    }
}
