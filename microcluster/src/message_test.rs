use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::sample;

#[test]
fn a_field_that_is_not_known_is_left_alone() {
    let message = json!({
        "release": "0.1.0", "sent": "2026-11-27T12:00:00Z", "colour": "blue",
        "request": { "renew": { "colour": "blue" } },
    });
    let message = Message::parse(message.to_string().as_bytes()).unwrap();
    assert!(matches!(message.request, Request::Renew(_)));
}

#[test]
fn a_request_that_is_not_known_is_refused_by_its_name() {
    let message = json!({
        "release": "0.1.0", "sent": "2026-11-27T12:00:00Z", "request": { "fly": {} },
    });
    let refusal = Message::parse(message.to_string().as_bytes()).unwrap_err();
    assert_eq!(refusal.code, RefusalCode::Malformed);
    assert!(refusal.message.contains("fly"), "{refusal}");
}

#[test]
fn a_refusal_of_a_newer_version_can_be_read() {
    let answer = json!({ "refused": { "code": "too-blue", "message": "it is too blue" } });
    let answer = Answer::parse(answer.to_string().as_bytes()).unwrap();
    let Answer::Refused(refusal) = answer else { panic!("{answer:?}") };
    assert_eq!((refusal.code, &*refusal.message), (RefusalCode::Other, "it is too blue"));
}

#[test]
fn a_message_that_is_too_large_is_refused_unread() {
    let bytes = vec![b' '; REQUEST_MESSAGE_BYTES_MAX + 1];
    assert_eq!(Message::parse(&bytes).unwrap_err().code, RefusalCode::TooLarge);
}

#[test]
fn messages_read_back() {
    let joiner = sample::Joiner::new(1, "alpha");
    for message in [joiner.ask(), joiner.enter(), joiner.undo(), joiner.enter_again()] {
        assert_eq!(Message::parse(&message.to_bytes()), Ok(message));
    }
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes: Vec<u8>, at: prop::sample::Index, byte: u8) {
        let _ = Message::parse(&bytes);
        let _ = Answer::parse(&bytes);
        // A real message with one byte changed is more likely to get further in.
        let mut real = sample::Joiner::new(1, "alpha").enter().to_bytes();
        let at = at.index(real.len());
        real[at] = byte;
        let _ = Message::parse(&real);
    }
}
