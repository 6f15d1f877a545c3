//! What can go wrong with a statement, sorted by what the caller may do about it.

use std::io;
use std::time::Duration;

use thiserror::Error;

use crate::wire::WireError;

/// SQLite's BUSY, which libdqlite also uses for its own locks.
pub(crate) const CODE_BUSY: u64 = 5;
/// SQLite's IOERR, without the details that it always gives itself: what libdqlite answers when raft
/// has failed for a reason that it has no code for.
pub(crate) const CODE_IO: u64 = 10;
/// SQLite's NOTFOUND: libdqlite has closed the database or the statement behind our back.
pub(crate) const CODE_NOT_FOUND: u64 = 12;
/// SQLITE_IOERR_NOT_LEADER of dqlite.
pub(crate) const CODE_NOT_LEADER: u64 = 10_250;
/// SQLITE_IOERR_LEADERSHIP_LOST of dqlite.
pub(crate) const CODE_LEADERSHIP_LOST: u64 = 10_506;

/// Why a statement did not succeed, or may not have.
#[derive(Debug, Error)]
pub enum Error {
    /// The node doesn't lead: nothing was executed, and an open transaction is gone. Find the leader.
    #[error("not the leader ({message})")]
    NotLeader {
        /// The node's words.
        message: String,
    },
    /// The statement may have been committed, or may be later. Read before writing again.
    #[error("outcome of the write is unknown")]
    OutcomeUnknown {
        /// What happened to the answer.
        #[source]
        cause: UnknownCause,
    },
    /// Another writer or a checkpoint was in the way for longer than the policy waits; the
    /// statement was not executed.
    #[error("database busy for {} ms: {message}", waited.as_millis())]
    Busy {
        /// The node's words.
        message: String,
        /// How long it was tried.
        waited: Duration,
    },
    /// The node has closed the database of this connection, because it lost leadership in between;
    /// nothing was executed. Open a new connection.
    #[error("the node has closed this connection's database ({message})")]
    DatabaseClosed {
        /// The node's words.
        message: String,
    },
    /// SQLite refused the statement.
    #[error("sql error {code}: {message}")]
    Sql {
        /// SQLite's extended code.
        code: u64,
        /// SQLite's words.
        message: String,
    },
    /// The connection failed where nothing can have been written.
    #[error("connection failed while {during}")]
    Io {
        /// What was going on.
        during: &'static str,
        /// The reason.
        #[source]
        source: io::Error,
    },
    /// The connection failed before this call, or an earlier call was dropped half-way.
    #[error("connection is not usable any more: an earlier call failed or was cancelled")]
    Unusable,
    /// The node answered something that we do not understand.
    #[error("bad answer from the node")]
    Protocol(#[source] WireError),
    /// A name, a statement or a parameter can't be sent; nothing was.
    #[error("statement can't be sent")]
    Parameter(#[source] WireError),
    /// A row doesn't hold what the caller expects of it.
    #[error("column {index} is {found}, expected {expected}")]
    Column {
        /// Which column, from 0.
        index: usize,
        /// What it holds.
        found: &'static str,
        /// What was asked for.
        expected: &'static str,
    },
}

/// Why nobody knows whether a write was committed.
#[derive(Debug, Error)]
pub enum UnknownCause {
    /// The node lost leadership while it replicated the write.
    #[error("leadership lost while the write was replicated ({message})")]
    LeadershipLost {
        /// The node's words.
        message: String,
    },
    /// The connection was lost between sending the write and its answer.
    #[error("connection lost after the write was sent")]
    ConnectionLost(#[source] io::Error),
    /// The node could not finish the write, and doesn't say how far it came: its disk is full or
    /// failed, or it is about to stop.
    #[error("the node failed to complete the write ({message})")]
    NodeFailed {
        /// The node's words.
        message: String,
    },
    /// The answer could not be understood.
    #[error("answer to the write was not understood")]
    BadAnswer(#[source] WireError),
}

impl Error {
    /// Whether the statement has certainly not been executed, so that it may be tried again, here or
    /// at another member. With several statements in one `exec` this speaks of the failing one; the
    /// transaction around it is for the caller to roll back.
    pub fn not_executed(&self) -> bool {
        matches!(
            self,
            Error::NotLeader { .. }
                | Error::Busy { .. }
                | Error::DatabaseClosed { .. }
                | Error::Unusable
                | Error::Io { .. }
                | Error::Parameter(_)
        )
    }

    /// The primary SQLite code of an [`Error::Sql`]: 13 full, 19 constraint …
    pub fn sqlite_primary(&self) -> Option<u64> {
        match self {
            Error::Sql { code, .. } => Some(code & 0xff),
            _ => None,
        }
    }

    /// What a failure on the wire means.
    pub(crate) fn from_failure(code: u64, message: String, reads_only: bool) -> Error {
        match code {
            CODE_NOT_LEADER => Error::NotLeader { message },
            CODE_LEADERSHIP_LOST => {
                Error::OutcomeUnknown { cause: UnknownCause::LeadershipLost { message } }
            }
            CODE_BUSY => Error::Busy { message, waited: Duration::ZERO },
            CODE_NOT_FOUND if message.starts_with("no database") => {
                Error::DatabaseClosed { message }
            }
            CODE_NOT_FOUND if message.starts_with("no statement") => {
                Error::DatabaseClosed { message }
            }
            CODE_IO if !reads_only => {
                Error::OutcomeUnknown { cause: UnknownCause::NodeFailed { message } }
            }
            code => Error::Sql { code, message },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_sorted_by_what_the_caller_may_do() {
        let sorted = |code, message: &str| Error::from_failure(code, message.to_string(), false);
        assert!(matches!(sorted(10, "leader exec failed"), Error::OutcomeUnknown { .. }));
        assert!(matches!(Error::from_failure(10, String::new(), true), Error::Sql { .. }));
        assert!(matches!(sorted(10_250, "not leader"), Error::NotLeader { .. }));
        assert!(matches!(sorted(10_506, "lost"), Error::OutcomeUnknown { .. }));
        assert!(matches!(sorted(5, "locked"), Error::Busy { .. }));
        assert!(matches!(sorted(12, "no database opened"), Error::DatabaseClosed { .. }));
        assert!(matches!(sorted(12, "something else"), Error::Sql { code: 12, .. }));
        assert!(sorted(10_250, "").not_executed());
        assert!(!sorted(10_506, "").not_executed());
        assert_eq!(sorted(2067, "unique").sqlite_primary(), Some(19));
    }
}
