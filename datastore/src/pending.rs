//! What a writer leaves behind when it may write no more.

use tokio::sync::oneshot;

use crate::command::Outcome;
use crate::compactor::Compactor;
use crate::error::RequestError;
use crate::store::{LogRow, Sequence};
use crate::writer::{WriterError, answer, refuse};

/// Who waits, and what they get when the commit succeeds.
pub type Reply = (oneshot::Sender<Result<Outcome, RequestError>>, Result<Outcome, RequestError>);

/// A row whose outcome its writer could not learn, and who waits for it. The
/// row that the log has at its place decides.
pub struct Pending {
    pub row: LogRow,
    pub(crate) replies: Vec<Reply>,
}

impl Pending {
    /// The row was written: everyone gets their answer.
    pub fn succeed(self) {
        answer(self.replies);
    }

    /// The row was not written: nothing was done.
    pub fn refuse(self) {
        refuse(self.replies, RequestError::LeaderChanged);
    }

    /// Nobody knows.
    pub fn give_up(self) {
        refuse(self.replies, RequestError::TimedOut);
    }
}

/// What a writer leaves behind.
pub struct Ended {
    pub result: Result<(), WriterError>,
    pub pending: Option<Pending>,
    pub compactor: Compactor,
    pub sequence: Sequence,
}
