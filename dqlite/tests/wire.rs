//! The wire protocol: what is written is read again, and no bytes make the decoder fail badly.

use bytes::{Bytes, BytesMut};
use dqlite::Value;
use dqlite::wire::{HEADER_BYTES, Header, Request, Response, RowsEnd, WireError};
use proptest::collection::vec;
use proptest::prelude::*;

/// A text without NUL.
fn text() -> impl Strategy<Value = String> {
    "[^\0]{0,40}"
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<i64>().prop_map(Value::Integer),
        // Not-a-number is not equal to itself.
        any::<f64>().prop_filter("comparable", |f| !f.is_nan()).prop_map(Value::Float),
        text().prop_map(Value::Text),
        vec(any::<u8>(), 0..100).prop_map(|bytes| Value::Blob(bytes.into())),
        any::<i64>().prop_map(Value::UnixTime),
        text().prop_map(Value::Iso8601),
        any::<bool>().prop_map(Value::Boolean),
    ]
}

fn request() -> impl Strategy<Value = Request<'static>> {
    let id = any::<u64>;
    let db = any::<u32>;
    let params = || vec(value(), 0..20);
    prop_oneof![
        Just(Request::Leader),
        id().prop_map(|id| Request::Client { id }),
        text().prop_map(|name| Request::Open { name: name.into() }),
        (db(), text()).prop_map(|(db, sql)| Request::Prepare { db, sql: sql.into() }),
        (db(), db(), params()).prop_map(|(db, statement, params)| Request::Exec {
            db,
            statement,
            params: params.into()
        }),
        (db(), db(), params()).prop_map(|(db, statement, params)| Request::Query {
            db,
            statement,
            params: params.into()
        }),
        (db(), db()).prop_map(|(db, statement)| Request::Finalize { db, statement }),
        (db(), text(), params()).prop_map(|(db, sql, params)| Request::ExecSql {
            db,
            sql: sql.into(),
            params: params.into()
        }),
        (db(), text(), params()).prop_map(|(db, sql, params)| Request::QuerySql {
            db,
            sql: sql.into(),
            params: params.into()
        }),
        db().prop_map(|db| Request::Interrupt { db }),
        (id(), text()).prop_map(|(id, address)| Request::Connect { id, address: address.into() }),
        (id(), text()).prop_map(|(id, address)| Request::Add { id, address: address.into() }),
        (id(), id()).prop_map(|(id, role)| Request::Assign { id, role }),
        id().prop_map(|id| Request::Remove { id }),
        text().prop_map(|name| Request::Dump { name: name.into() }),
        Just(Request::Cluster),
        id().prop_map(|id| Request::Transfer { id }),
        Just(Request::Describe),
        id().prop_map(|weight| Request::Weight { weight }),
    ]
}

fn rows() -> impl Strategy<Value = Response> {
    (1..20usize).prop_flat_map(|columns| {
        let end = prop_oneof![Just(RowsEnd::Part), Just(RowsEnd::Done)];
        (vec(text(), columns), vec(vec(value(), columns), 0..10), end)
            .prop_map(|(columns, rows, end)| Response::Rows { columns, rows, end })
    })
}

fn response() -> impl Strategy<Value = Response> {
    let id = any::<u64>;
    prop_oneof![
        (id(), text()).prop_map(|(code, message)| Response::Failure { code, message }),
        (id(), text()).prop_map(|(id, address)| Response::Server { id, address }),
        id().prop_map(|heartbeat_timeout| Response::Welcome { heartbeat_timeout }),
        vec((id(), text(), id()), 0..5).prop_map(Response::Servers),
        any::<u32>().prop_map(|id| Response::Database { id }),
        (any::<u32>(), any::<u32>(), id()).prop_map(|(db, id, params)| Response::Statement {
            db,
            id,
            params
        }),
        (id(), id()).prop_map(|(last_insert_id, rows_affected)| Response::Result {
            last_insert_id,
            rows_affected
        }),
        rows(),
        Just(Response::Empty),
        vec((text(), vec(any::<u8>(), 0..50).prop_map(Bytes::from)), 0..3)
            .prop_map(Response::Files),
        (id(), id())
            .prop_map(|(failure_domain, weight)| Response::Metadata { failure_domain, weight }),
    ]
}

/// Takes a message apart, checking that the header tells the truth.
fn split(message: BytesMut) -> (Header, Bytes) {
    let message = message.freeze();
    let header = Header::decode(message[..HEADER_BYTES].try_into().expect("eight bytes"));
    let body = message.slice(HEADER_BYTES..);
    assert_eq!(header.body_bytes(), body.len() as u64);
    assert!(!body.is_empty(), "the library waits for ever for an empty body");
    (header, body)
}

proptest! {
    #[test]
    fn requests_survive_the_wire(request in request()) {
        let mut message = BytesMut::new();
        request.encode(&mut message).unwrap();
        let (header, body) = split(message);
        prop_assert_eq!(Request::decode(header, body).unwrap(), request);
    }

    #[test]
    fn responses_survive_the_wire(response in response()) {
        let mut message = BytesMut::new();
        response.encode(&mut message).unwrap();
        let (header, body) = split(message);
        prop_assert_eq!(Response::decode(header, body).unwrap(), response);
    }

    #[test]
    fn any_bytes_are_decoded_or_refused(kind: u8, schema in 0..3u8, body in vec(any::<u8>(), 0..400)) {
        let header = Header { words: (body.len() / 8) as u32, kind: kind % 24, schema };
        let body = Bytes::from(body);
        let _ = Request::decode(header, body.clone());
        let _ = Response::decode(header, body);
    }

    #[test]
    fn a_damaged_message_is_decoded_or_refused(
        response in response(),
        request in request(),
        at: usize,
        with: u8,
        cut: usize,
    ) {
        for asked in [true, false] {
            let mut message = BytesMut::new();
            if asked { request.encode(&mut message).unwrap() } else { response.encode(&mut message).unwrap() }
            let (header, body) = split(message);
            let mut body = body.to_vec();
            let at = at % body.len();
            body[at] = with;
            body.truncate(cut % (body.len() + 1));
            let _ = Request::decode(header, body.clone().into());
            let _ = Response::decode(header, body.into());
        }
    }

    #[test]
    fn a_failure_is_found_behind_part_of_a_result(rows in rows(), code: u64, message in text()) {
        let mut polluted = BytesMut::new();
        rows.encode(&mut polluted).unwrap();
        // The mark at the end is what the library replaces by the failure.
        polluted.truncate(polluted.len() - 8);
        let failure = Response::Failure { code, message };
        let mut clean = BytesMut::new();
        failure.encode(&mut clean).unwrap();
        polluted.extend_from_slice(&clean[HEADER_BYTES..]);
        let header = Header { words: 0, kind: 0, schema: 0 };
        let body = polluted.freeze().slice(HEADER_BYTES..);
        prop_assert_eq!(Response::decode(header, body).unwrap(), failure);
    }
}

#[test]
fn a_nul_in_a_text_is_refused_and_leaves_the_buffer_as_it_was() {
    let mut message = BytesMut::from(&b"before"[..]);
    let request = Request::Open { name: "a\0b".into() };
    assert_eq!(request.encode(&mut message), Err(WireError::Nul { field: "name", at: 1 }));
    assert_eq!(&message[..], b"before");
}

#[test]
fn a_request_is_laid_out_as_the_library_expects() {
    let mut message = BytesMut::new();
    let params = vec![Value::Integer(7), Value::Text("ab".into()), Value::Blob(b"xyz"[..].into())];
    let request = Request::ExecSql { db: 0, sql: "S".into(), params: params.into() };
    request.encode(&mut message).unwrap();
    let words: Vec<&[u8]> = message.chunks(8).collect();
    let expected: [&[u8; 8]; 8] = [
        b"\x07\0\0\0\x08\x01\0\0",
        b"\0\0\0\0\0\0\0\0",
        b"S\0\0\0\0\0\0\0",
        b"\x03\0\0\0\x01\x03\x04\0",
        b"\x07\0\0\0\0\0\0\0",
        b"ab\0\0\0\0\0\0",
        b"\x03\0\0\0\0\0\0\0",
        b"xyz\0\0\0\0\0",
    ];
    assert_eq!(words, expected);
}
