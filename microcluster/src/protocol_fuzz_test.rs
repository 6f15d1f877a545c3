//! Messages that are nearly right: a real one with one value changed, its statement signed by a
//! token that is good. Whoever has a token, or a node's identity, can say all of these.

use futures::FutureExt;
use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::desk::{Clock, Desk};
use crate::message::Answer;
use crate::message::LeaveStep;
use crate::sample::{self, Joiner, NOW, RELEASE, TestSigner};
use crate::token::{Proven, Statement};

/// What stands in the place of a value.
fn any_value() -> impl Strategy<Value = Value> {
    let words = prop_oneof![
        Just(String::new()),
        Just("alpha".to_owned()),
        Just("first".to_owned()),
        Just("kubernetes.default.svc".to_owned()),
        Just("10.1.2.3".to_owned()),
        Just("::ffff:10.0.0.1".to_owned()),
        Just("9999-12-31T23:59:59Z".to_owned()),
        Just("0000-01-01T00:00:00Z".to_owned()),
        Just("999999.999999.999999".to_owned()),
        Just("control-plane".to_owned()),
        Just("x".repeat(3000)),
        ".*",
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        words.prop_map(Value::from),
    ];
    leaf.prop_recursive(2, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..10).prop_map(Value::from),
            prop::collection::btree_map("[a-z-]{0,9}", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// Puts `fresh` in the place of one of all the values in it, or takes that away.
fn change(value: &mut Value, at: prop::sample::Index, fresh: Option<Value>) {
    fn places<'a>(value: &'a mut Value, count: &mut usize, wanted: usize) -> Option<&'a mut Value> {
        if *count == wanted {
            return Some(value);
        }
        *count += 1;
        match value {
            Value::Array(all) => all.iter_mut().find_map(|one| places(one, count, wanted)),
            Value::Object(all) => all.values_mut().find_map(|one| places(one, count, wanted)),
            _ => None,
        }
    }
    fn size(value: &Value) -> usize {
        1 + match value {
            Value::Array(all) => all.iter().map(size).sum(),
            Value::Object(all) => all.values().map(size).sum::<usize>(),
            _ => 0,
        }
    }
    let wanted = at.index(size(value));
    if let Some(place) = places(value, &mut 0, wanted) {
        *place = fresh.unwrap_or(Value::Null);
    }
}

/// A statement that its type would not write.
#[derive(serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
struct Ask(Value);
impl Statement for Ask {
    const KIND: &'static str = "ask";
}
#[derive(serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
struct EnterStatement(Value);
impl Statement for EnterStatement {
    const KIND: &'static str = "enter";
}

struct Noon;

impl Clock for Noon {
    fn now(&self) -> OffsetDateTime {
        NOW
    }
}

fn desk(signer: TestSigner) -> Desk<crate::store::MemoryStore, TestSigner, Noon> {
    let store = sample::store();
    sample::add_token(&store, &sample::spec(crate::record::NodeRole::Worker), 1);
    Desk::new(store, signer, Noon, RELEASE)
}

fn value_of(proven: &Proven) -> Value {
    serde_json::from_str(&proven.statement).unwrap()
}

/// What is said, and what may be made of it.
fn is_sane(message: &Message, joiner: &Joiner) {
    let desk = desk(TestSigner::new());
    for caller in [Caller::Stranger, joiner.caller(), Caller::Node(sample::first())] {
        let answer = desk.answer(&message.to_bytes(), &caller).now_or_never().unwrap();
        desk.record().now_or_never().unwrap().unwrap().check().unwrap();
        if let Answer::Entered(entered) = answer {
            assert_eq!(entered.sealed, None, "a worker was given the keys");
        }
    }
}

proptest! {
    #[test]
    fn no_signed_statement_makes_a_desk_panic(
        enters: bool,
        at: prop::sample::Index,
        fresh in prop::option::of(any_value()),
    ) {
        let joiner = Joiner::new(1, "alpha");
        let said = if enters { joiner.enter() } else { joiner.ask() };
        let proven = match &said.request {
            Request::Enter(crate::message::Enter::Proven(proven)) | Request::Ask(proven) => proven,
            _ => unreachable!("it is one of the two"),
        };
        let mut statement = value_of(proven);
        change(&mut statement, at, fresh);
        let request = match enters {
            true => {
                let proven = Proven::state(&joiner.token, &EnterStatement(statement)).unwrap();
                Request::Enter(crate::message::Enter::Proven(proven))
            }
            false => Request::Ask(Proven::state(&joiner.token, &Ask(statement)).unwrap()),
        };
        is_sane(&sample::message(request), &joiner);
    }

    #[test]
    fn no_changed_message_makes_a_desk_panic(
        which in 0_usize..6,
        at: prop::sample::Index,
        fresh in prop::option::of(any_value()),
    ) {
        let joiner = Joiner::new(1, "alpha");
        let renew = crate::message::Renew {
            addresses: Some(joiner.applicant.addresses.clone()),
            kubernetes: Some(sample::KUBERNETES),
            failure_domain: Some("a".into()),
            ..sample::renew(joiner.requests.clone())
        };
        let said = [
            joiner.enter_again(),
            sample::message(Request::Renew(renew)),
            sample::leave(LeaveStep::Begin),
            joiner.undo(),
            joiner.undo_own(),
            sample::confirm(),
        ];
        let mut value = serde_json::to_value(&said[which]).unwrap();
        change(&mut value, at, fresh);
        if let Ok(message) = Message::parse(value.to_string().as_bytes()) {
            is_sane(&message, &joiner);
        }
    }

    #[test]
    fn no_changed_answer_makes_a_joiner_panic(
        at: prop::sample::Index,
        fresh in prop::option::of(any_value()),
        byte: u8,
    ) {
        let answer = desk(TestSigner::new())
            .answer(&Joiner::new(1, "alpha").enter().to_bytes(), &Caller::Stranger)
            .now_or_never()
            .unwrap();
        let mut bytes = answer.to_bytes();
        let place = at.index(bytes.len());
        bytes[place] = byte;
        let _ = Answer::parse(&bytes);
        let mut value = serde_json::to_value(&answer).unwrap();
        change(&mut value, at, fresh);
        let _ = Answer::parse(value.to_string().as_bytes());
    }
}
