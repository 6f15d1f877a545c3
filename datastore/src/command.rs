//! What is queued for the writer, and what it answers.

use prost::Message;
use tokio::sync::oneshot;

use crate::admission::Waiting;
use crate::error::RequestError;
use crate::proto::{
    DeleteRangeRequest, DeleteRangeResponse, PutRequest, PutResponse, TxnRequest, TxnResponse,
};
use crate::record::{LeaseId, Revision};

/// A wish to change something.
#[derive(Clone, Debug)]
pub enum Change {
    Put(PutRequest),
    DeleteRange(DeleteRangeRequest),
    Txn(TxnRequest),
    Compact(Revision),
    Grant {
        lease: LeaseId,
        ttl_s: i64,
    },
    Revoke {
        lease: LeaseId,
    },
    /// A revoke that is void when the lease was renewed meanwhile.
    Expire {
        lease: LeaseId,
    },
    /// Changes nothing; answered by a commit that began after it was asked for.
    Barrier,
}

impl Change {
    /// What it takes in memory, in bytes; nothing that counts when it writes no values.
    pub fn bytes(&self) -> usize {
        match self {
            Change::Put(put) => put.encoded_len(),
            Change::DeleteRange(delete) => delete.encoded_len(),
            Change::Txn(txn) => txn.encoded_len(),
            _ => 0,
        }
    }

    /// Whether it takes space, and so is refused when there is none.
    pub fn takes_space(&self) -> bool {
        match self {
            Change::Put(_) | Change::Grant { .. } => true,
            Change::Txn(txn) => txn_puts(txn),
            _ => false,
        }
    }
}

fn txn_puts(txn: &TxnRequest) -> bool {
    use crate::proto::request_op::Request;
    txn.success.iter().chain(&txn.failure).any(|operation| match &operation.request {
        Some(Request::RequestPut(_)) => true,
        Some(Request::RequestTxn(nested)) => txn_puts(nested),
        _ => false,
    })
}

/// What came of a [`Change`], with the revision after it.
#[derive(Debug)]
pub enum Outcome {
    Put(PutResponse),
    DeleteRange(DeleteRangeResponse),
    Txn(TxnResponse),
    Done(Revision),
}

/// A change and who waits for it.
#[derive(Debug)]
pub struct Command {
    pub change: Change,
    pub reply: oneshot::Sender<Result<Outcome, RequestError>>,
    /// Its place in the queue, whoever waits for it or does no more.
    pub place: Waiting,
}
