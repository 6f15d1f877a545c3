//! RangeStream: reads keys, answered by several messages.

use futures::Stream;
use tonic::Status;

use super::Server;
use crate::check::check_range;
use crate::identity::Identity;
use crate::proto::{RangeRequest, RangeResponse, RangeStreamResponse};
use crate::range::{Found, is_filtered, is_sorted};

/// Bytes of keys and values after which a message is closed.
const MESSAGE_BYTES: usize = 64 << 10;

/// Put together the messages are the answer of Range: each carries some keys,
/// the last one the header, the count and whether there is more.
pub async fn range_stream(
    server: &Server,
    request: &RangeRequest,
) -> Result<impl Stream<Item = Result<RangeStreamResponse, Status>> + use<>, Status> {
    check_range(request)?;
    // Sorting needs the whole of it. Words and code are etcd's.
    if is_sorted(request) {
        let words = "RangeStream does not support custom sort orders";
        return Err(Status::unimplemented(words));
    }
    if is_filtered(request) {
        return Err(Status::unimplemented("RangeStream does not support revision filters"));
    }
    server.engine.settle(request.serializable).await?;
    let found = server.engine.search(request).await?;
    let identity = server.engine.identity();
    let pieces = futures::stream::unfold((Some(found), 0), move |(found, sent)| async move {
        let (piece, rest, sent) = next(found?, sent, &identity);
        Some((Ok(RangeStreamResponse { range_response: Some(piece) }), (rest, sent)))
    });
    Ok(pieces)
}

/// The message with the records from `sent` on, what is left, and where.
fn next(found: Found, sent: usize, identity: &Identity) -> (RangeResponse, Option<Found>, usize) {
    let mut bytes = 0;
    let kvs: Vec<_> = found.records[sent..]
        .iter()
        .map(|record| found.fields.of(record))
        .take_while(|kv| {
            let before = bytes;
            bytes += kv.key.len() + kv.value.len();
            before < MESSAGE_BYTES
        })
        .collect();
    let sent = sent + kvs.len();
    if sent < found.records.len() {
        return (RangeResponse { kvs, ..Default::default() }, Some(found), sent);
    }
    let header = identity.header(found.newest);
    (RangeResponse { header, kvs, more: found.more, count: found.count }, None, sent)
}
