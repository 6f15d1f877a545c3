//! The answer to a range request on its way out, in pieces.
//!
//! One message of gRPC may be long: a list of everything. Encoding it as a
//! whole would hold up everybody else on the one thread, and hold all of it
//! in memory twice. So the message is encoded piece by piece as the client
//! takes it; what waits is a list of pointers into the index.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{BufMut, Bytes, BytesMut};
use http::HeaderMap;
use hyper::body::{Body, Frame, SizeHint};
use prost::Message;
use prost::encoding::{encode_varint, encoded_len_varint};
use tonic::{Code, Status};

use crate::identity::Identity;
use crate::proto::RangeResponse;
use crate::range::{Fields, Found};
use crate::record::Record;

/// Bytes after which a piece is sent.
const PIECE_BYTES: usize = 32 << 10;
/// The longest message that etcd sends, and its clients take.
const MESSAGE_BYTES_MAX: usize = i32::MAX as usize;
/// The tag of `RangeResponse.kvs`: field 2, with a length.
const KVS_TAG: u8 = 0x12;

/// The body of an answer over HTTP/2.
pub struct RangeBody {
    records: std::vec::IntoIter<Arc<Record>>,
    fields: Fields,
    /// What comes before the records and after them.
    head: Option<BytesMut>,
    tail: Option<Vec<u8>>,
    has_trailers: bool,
}

impl RangeBody {
    /// The body of the answer that `found` makes.
    pub fn new(found: Found, identity: &Identity) -> Result<RangeBody, Status> {
        let Found { records, more, count, newest, fields } = found;
        // `header` is field 1, `more` and `count` are 3 and 4: the message is
        // that of no records, divided before where those belong.
        let before =
            RangeResponse { header: identity.header(newest), ..Default::default() }.encode_to_vec();
        let after = RangeResponse { more, count, ..Default::default() }.encode_to_vec();
        let of_records: usize = records
            .iter()
            .map(|record| {
                let bytes = encoded_len(record, fields);
                1 + encoded_len_varint(bytes as u64) + bytes
            })
            .sum();
        let length = before.len() + of_records + after.len();
        if length > MESSAGE_BYTES_MAX {
            return Err(Status::resource_exhausted(format!(
                "trying to send message larger than max ({length} vs. {MESSAGE_BYTES_MAX})"
            )));
        }
        // All of a short answer goes into one piece.
        let mut head = BytesMut::with_capacity((length + 5).min(PIECE_BYTES + (PIECE_BYTES >> 2)));
        head.put_u8(0); // not compressed
        head.put_u32(length as u32);
        head.extend_from_slice(&before);
        let records = records.into_iter();
        Ok(RangeBody { records, fields, head: Some(head), tail: Some(after), has_trailers: true })
    }

    /// The next piece of the message; nothing at its end.
    fn next_piece(&mut self) -> Option<Bytes> {
        self.tail.as_ref()?;
        let mut piece =
            self.head.take().unwrap_or_else(|| BytesMut::with_capacity(PIECE_BYTES + 1024));
        while piece.len() < PIECE_BYTES {
            match self.records.next() {
                Some(record) => encode(&record, self.fields, &mut piece),
                None => {
                    piece.extend_from_slice(&self.tail.take().unwrap_or_default());
                    break;
                }
            }
        }
        Some(piece.freeze())
    }
}

impl Body for RangeBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if let Some(piece) = self.next_piece() {
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        if std::mem::take(&mut self.has_trailers) {
            let mut trailers = HeaderMap::new();
            trailers.insert(Status::GRPC_STATUS, (Code::Ok as u16).into());
            return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
        }
        Poll::Ready(None)
    }

    fn is_end_stream(&self) -> bool {
        !self.has_trailers
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

/// The numbers and bytes of a record as fields of `KeyValue`, by tag. Written
/// out so that no value is shared with a message for the sake of encoding it:
/// the first time that costs each an allocation, which then stays.
fn numbers(record: &Record, fields: Fields) -> [(u8, i64); 4] {
    let lease = if fields == Fields::WithoutValueAndLease { 0 } else { record.lease.0 };
    [(0x10, record.created.0), (0x18, record.modified.0), (0x20, record.version), (0x30, lease)]
}

fn value_of(record: &Record, fields: Fields) -> &[u8] {
    if fields == Fields::All { &record.value } else { &[] }
}

fn encoded_len(record: &Record, fields: Fields) -> usize {
    let of_bytes = |bytes: &[u8]| match bytes.len() {
        0 => 0,
        length => 1 + encoded_len_varint(length as u64) + length,
    };
    let of_numbers: usize = numbers(record, fields)
        .iter()
        .filter(|(_, number)| *number != 0)
        .map(|(_, number)| 1 + encoded_len_varint(*number as u64))
        .sum();
    of_bytes(&record.key) + of_bytes(value_of(record, fields)) + of_numbers
}

fn encode(record: &Record, fields: Fields, piece: &mut BytesMut) {
    let length = encoded_len(record, fields);
    piece.reserve(length + 11);
    piece.put_u8(KVS_TAG);
    encode_varint(length as u64, piece);
    put_bytes(0x0a, &record.key, piece);
    let numbers = numbers(record, fields);
    let (lease, others) = numbers.split_last().expect("there are four of them");
    others.iter().for_each(|number| put_number(*number, piece));
    put_bytes(0x2a, value_of(record, fields), piece);
    put_number(*lease, piece);
}

fn put_bytes(tag: u8, bytes: &[u8], piece: &mut BytesMut) {
    if !bytes.is_empty() {
        piece.put_u8(tag);
        encode_varint(bytes.len() as u64, piece);
        piece.extend_from_slice(bytes);
    }
}

fn put_number((tag, number): (u8, i64), piece: &mut BytesMut) {
    if number != 0 {
        piece.put_u8(tag);
        encode_varint(number as u64, piece);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::record::{LeaseId, Revision};

    fn record() -> impl Strategy<Value = Arc<Record>> {
        let bytes = |length| prop::collection::vec(any::<u8>(), 0..length).prop_map(Bytes::from);
        let value = prop_oneof![4 => bytes(40), 1 => Just(Bytes::from(vec![7; 40_000]))];
        (bytes(20), value, any::<i64>(), any::<i64>(), 0..3_i64, -1..2_i64).prop_map(
            |(key, value, created, modified, version, lease)| {
                let (created, modified) = (Revision(created), Revision(modified));
                Arc::new(Record { key, value, created, modified, version, lease: LeaseId(lease) })
            },
        )
    }

    fn fields() -> impl Strategy<Value = Fields> {
        prop_oneof![
            Just(Fields::All),
            Just(Fields::WithoutValue),
            Just(Fields::WithoutValueAndLease)
        ]
    }

    proptest! {
        #[test]
        fn pieces_make_the_message_that_the_generated_type_makes(
            records in prop::collection::vec(record(), 0..40),
            fields in fields(),
            more: bool,
            count in -1..1000_i64,
        ) {
            let found = Found { records, more, count, newest: Revision(9), fields };
            let identity = Identity { cluster_id: 1, member_id: 2, epoch: 3 };
            let expected = found.clone().into_response(&identity).encode_to_vec();
            let mut body = RangeBody::new(found, &identity).unwrap();
            let mut sent = Vec::new();
            while let Some(piece) = body.next_piece() {
                prop_assert!(piece.len() < PIECE_BYTES + 41_000);
                sent.extend_from_slice(&piece);
            }
            prop_assert_eq!(sent[0], 0);
            prop_assert_eq!(&sent[1..5], &(expected.len() as u32).to_be_bytes());
            prop_assert_eq!(&sent[5..], &expected);
        }
    }
}
