use std::collections::BTreeMap;

use proptest::prelude::*;
use time::macros::datetime;
use time::{Duration, OffsetDateTime};

use super::*;
use crate::record::{NodeRole, Rest};

const NOW: OffsetDateTime = datetime!(2026-11-27 12:00 UTC);

fn token() -> JoinToken {
    let addresses = ["10.0.0.5:7443", "[fd00::5]:7443", "alpha.example:7443"];
    let addresses = addresses.map(|text| text.parse().unwrap()).to_vec();
    JoinToken::new(addresses, Fingerprint::of(b"authority"), Secret::from_bytes([7; 16])).unwrap()
}

fn record() -> TokenRecord {
    let token = token();
    TokenRecord {
        id: token.id(),
        verifier: token.secret().verifier(),
        authority: *token.authority(),
        role: NodeRole::Worker,
        name: None,
        labels: BTreeMap::new(),
        taints: vec![],
        created: NOW,
        expires: NOW + Duration::HOUR,
        uses: 2,
        uses_left: 2,
        attempts_left: 3,
        revoked: false,
        rest: Rest::default(),
    }
}

#[test]
fn a_token_reads_back() {
    let text = token().to_string();
    assert!(text.starts_with("skiff1."), "{text}");
    assert_eq!(text.parse::<JoinToken>(), Ok(token()));
    assert_eq!(format!("  {text}\n").parse::<JoinToken>(), Ok(token()));
}

#[test]
fn the_secret_is_never_in_what_is_logged() {
    let token = token();
    let shown = format!("{token:?} {:?} {:?}", token.secret(), record());
    for secret in [format!("{:?}", [7u8; 16]), "0707".into(), token.to_string()] {
        assert!(!shown.contains(&secret), "{shown}");
    }
}

#[test]
fn each_mistake_has_its_sentence() {
    let text = token().to_string();
    for (given, why) in [
        (String::new(), "the token is empty"),
        ("  ".into(), "the token is empty"),
        ("10.0.0.5:25000/abc".into(), "this is no token"),
        ("skif".into(), "the token is cut"),
        ("skiff1.".into(), "the token is cut"),
        ("skiff2.AAAA".into(), "the token is of form \"skiff2\""),
        (text[..text.len() - 5].into(), "the token is cut: its end is missing (4 bytes)"),
        (text[..40].into(), "the token is cut"),
        (format!("{text}AAAA"), "something stands behind its end"),
        (format!("{text}{}", "A".repeat(9000)), "something stands behind its end"),
        (text.replacen("skiff1.", "skiff1.!", 1), "'!' at position 8 cannot be in one"),
    ] {
        let error = given.parse::<JoinToken>().unwrap_err().to_string();
        assert!(error.contains(why), "{given}: {error}");
    }
}

/// A token's text around a body, as somebody would make it who has our source.
fn around(body: &[u8]) -> String {
    let mut rest = (body.len() as u16).to_be_bytes().to_vec();
    rest.extend_from_slice(body);
    let mut bytes = crc32fast::hash(&rest).to_be_bytes().to_vec();
    bytes.extend_from_slice(&rest);
    format!("{PREFIX}{}", BASE64URL_NOPAD.encode(&bytes))
}

#[test]
fn a_token_without_an_address_or_with_a_bad_one_says_so() {
    let head = [7; 48];
    let with = |tail: &[u8]| around(&[&head[..], tail].concat()).parse::<JoinToken>().unwrap_err();
    assert_eq!(with(&[0]), TokenError::NoAddress);
    assert!(matches!(with(&[1, b'4', 127, 0, 0, 1, 0, 9]), TokenError::Address(_)));
    assert!(matches!(with(&[1, b'4', 10, 0, 0, 1, 0, 0]), TokenError::Address(_)));
    assert!(matches!(with(&[1, b'n', 1, b'_', 0, 9]), TokenError::Address(_)));
    assert_eq!(with(&[1, b'5', 10, 0, 0, 1, 0, 9]), TokenError::Inside);
    assert_eq!(with(&[2, b'4', 10, 0, 0, 1, 0, 9]), TokenError::Inside);
    let many = [&[17][..], &[b'4', 10, 0, 0, 1, 0, 9].repeat(17)].concat();
    assert_eq!(with(&many), TokenError::Addresses { count: 17 });
}

#[test]
fn any_single_changed_character_is_found() {
    let text = token().to_string();
    let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.";
    for position in 0..text.len() {
        for other in alphabet.chars().filter(|c| *c != text.as_bytes()[position] as char) {
            let mut changed: Vec<char> = text.chars().collect();
            changed[position] = other;
            let changed: String = changed.into_iter().collect();
            assert!(changed.parse::<JoinToken>().is_err(), "{changed}");
        }
        let mut shorter = text.clone();
        shorter.remove(position);
        assert!(shorter.parse::<JoinToken>().is_err(), "{shorter}");
    }
}

#[test]
fn a_token_is_redeemed_as_often_as_it_says() {
    let two = record();
    let one = two.redeem(NOW).unwrap();
    let none = one.redeem(NOW).unwrap();
    assert_eq!((one.uses_left, none.uses_left), (1, 0));
    assert_eq!(none.redeem(NOW), Err(TokenState::Used));
    assert_eq!(none.give_back().uses_left, 1);
    assert_eq!(two.give_back().uses_left, 2, "no more than it was made with");
    let worn = none.give_back().redeem(NOW).unwrap().give_back();
    assert_eq!(worn.redeem(NOW), Err(TokenState::WornOut));
}

#[test]
fn an_expired_or_revoked_token_is_not_redeemed() {
    assert_eq!(record().redeem(NOW + Duration::HOUR), Err(TokenState::Expired));
    let revoked = TokenRecord { revoked: true, ..record() };
    assert_eq!(revoked.redeem(NOW), Err(TokenState::Revoked));
    assert_eq!(revoked.give_back().redeem(NOW), Err(TokenState::Revoked));
}

#[derive(serde::Serialize, serde::Deserialize, Debug, PartialEq)]
struct One(u32);
impl Statement for One {
    const KIND: &'static str = "one";
}
#[derive(serde::Serialize, serde::Deserialize, Debug)]
struct Other(u32);
impl Statement for Other {
    const KIND: &'static str = "other";
}

#[test]
fn a_statement_is_believed_for_its_kind_and_its_cluster_only() {
    let proven = Proven::state(&token(), &One(1)).unwrap();
    assert_eq!(proven.open::<One>(&record()).unwrap(), One(1));
    assert!(proven.open::<Other>(&record()).is_err());
    let elsewhere = TokenRecord { authority: Fingerprint::of(b"another"), ..record() };
    assert!(proven.open::<One>(&elsewhere).is_err());
    let changed = Proven { statement: "2".into(), ..proven.clone() };
    assert!(changed.open::<One>(&record()).is_err());
    let other = Secret::from_bytes([8; 16]);
    let stranger = TokenRecord { verifier: other.verifier(), ..record() };
    assert!(proven.open::<One>(&stranger).is_err());
}

#[test]
fn an_older_version_keeps_what_a_newer_one_wrote() {
    let mut value = serde_json::to_value(record()).unwrap();
    value["colour"] = "blue".into();
    let read: TokenRecord = serde_json::from_value(value.clone()).unwrap();
    assert_eq!(serde_json::to_value(&read).unwrap(), value);
}

fn endpoint() -> impl Strategy<Value = Endpoint> {
    let four = any::<[u8; 4]>().prop_map(|four| Host::Address(four.into()));
    let six = any::<[u8; 16]>().prop_map(|six| Host::Address(six.into()));
    let name = "[a-z][a-z0-9]{0,30}(\\.[a-z]{1,9}){0,3}".prop_map(Host::Name);
    (prop_oneof![four, six, name], 1..=u16::MAX)
        .prop_filter_map("reachable", |(host, port)| Endpoint::new(host, port).ok())
}

proptest! {
    #[test]
    fn no_text_panics(text in ".*", tail in "[A-Za-z0-9_-]*") {
        let _ = text.parse::<JoinToken>();
        let _ = format!("skiff1.{tail}").parse::<JoinToken>();
        let _ = text.parse::<Endpoint>();
        let _ = text.parse::<TokenId>();
    }

    #[test]
    fn no_body_panics(body in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = around(&body).parse::<JoinToken>();
    }

    #[test]
    fn every_token_reads_back(
        addresses in prop::collection::vec(endpoint(), 1..=TOKEN_ADDRESSES_MAX),
        authority: [u8; 32],
        secret: [u8; 16],
    ) {
        let secret = Secret::from_bytes(secret);
        let token = JoinToken::new(addresses, Fingerprint::from_bytes(authority), secret).unwrap();
        prop_assert_eq!(token.to_string().parse::<JoinToken>(), Ok(token.clone()));
        prop_assert_eq!(token.id().to_string().parse::<TokenId>(), Ok(token.id()));
    }

    #[test]
    fn a_changed_character_of_any_token_is_found(
        addresses in prop::collection::vec(endpoint(), 1..5),
        secret: [u8; 16],
        at: prop::sample::Index,
        other in "[A-Za-z0-9_.-]",
    ) {
        let authority = Fingerprint::of(&secret);
        let token = JoinToken::new(addresses, authority, Secret::from_bytes(secret)).unwrap();
        let mut text: Vec<char> = token.to_string().chars().collect();
        let at = at.index(text.len());
        let other = other.chars().next().unwrap();
        prop_assume!(text[at] != other);
        text[at] = other;
        prop_assert!(text.into_iter().collect::<String>().parse::<JoinToken>().is_err());
    }
}
