//! Txn: compares, then reads and writes at one revision.

use tonic::Status;

use super::Server;
use crate::proto::{TxnRequest, TxnResponse};

/// Answers at once when nothing can be written, else when it is durable.
pub async fn txn(server: &Server, request: TxnRequest) -> Result<TxnResponse, Status> {
    Ok(server.engine.txn(request).await?)
}
