//! A cluster's lost quorum on a node that runs: what `recover` says before it changes anything. What
//! it does is tested in `tests/cluster/recover.rs`.

use insta::assert_snapshot;
use skiff_api::{Quorum, QuorumMember, Version};

use crate::place::{Place, Screen};
use crate::stand_in::StandIn;

fn member(name: &str, role: &str, reachable: bool, revision: i64) -> QuorumMember {
    QuorumMember {
        name: name.into(),
        address: "192.0.2.7:7443".into(),
        own: name == "gamma",
        role: Some(role.into()),
        reachable,
        revision: Some(revision),
        last_contact: Some("2026-11-27T12:40:05Z".into()),
    }
}

/// `gamma` is left of three.
fn lost() -> Quorum {
    let long = QuorumMember {
        name: "a-node-with-the-longest-name-that-dns-allows-which-is-63-letters".into(),
        address: "[2001:db8:1234:5678:9abc:def0:1234:5678]:7443".into(),
        ..member("beta", "voter", false, 48_213)
    };
    Quorum {
        leader: None,
        voters: 3,
        reachable: 1,
        members: vec![
            QuorumMember { last_contact: None, ..member("alpha", "voter", false, 48_213) },
            long,
            member("gamma", "voter", true, 48_213),
        ],
    }
}

fn look(quorum: impl Into<Option<Quorum>>, options: &[&str]) -> Screen {
    let place = Place::new();
    let version = Version {
        skiff: "0.1.0".into(),
        build: "0123456789ab".into(),
        arch: "amd64".into(),
        components: vec![],
    };
    StandIn::new()
        .json("GET /v1/version", &version)
        .json("GET /v1/cluster/quorum", &quorum.into())
        .listen(&place);
    place.run(&[&["recover", "--dry-run"], options].concat())
}

#[test]
fn a_look_at_a_lost_quorum_says_who_is_missing_and_what_would_be_lost() {
    let screen = look(lost(), &[]);
    screen.assert_fits();
    assert_eq!(screen.code, 0, "{}", screen.whole());
    assert_snapshot!("recover-lost", screen.whole());
    let json = look(lost(), &["--output", "json"]);
    let found: serde_json::Value = serde_json::from_str(&json.stdout).expect("JSON");
    assert_eq!(found["members"][2]["state"], "this-node", "{}", json.whole());
    assert_eq!(found["leavesBehind"][0], "alpha", "{}", json.whole());
}

#[test]
fn what_is_not_lost_or_better_elsewhere_is_refused_with_what_to_type() {
    let led = Quorum { leader: Some("alpha".into()), reachable: 3, ..lost() };
    let most = Quorum { reachable: 2, ..lost() };
    let mut ahead = Quorum { voters: 5, reachable: 2, ..lost() };
    ahead.members.push(member("delta", "voter", true, 48_214));
    let mut spare = lost();
    spare.members[2].role = Some("spare".into());
    for (name, quorum) in [("led", led), ("most", most), ("ahead", ahead), ("spare", spare)] {
        let screen = look(quorum, &[]);
        screen.assert_fits();
        assert_eq!(screen.code, 1, "{}", screen.whole());
        assert_snapshot!(format!("recover-{name}"), screen.whole());
    }
}

#[test]
fn a_node_that_has_just_started_says_so() {
    let screen = look(None, &[]);
    assert_eq!(screen.code, 1, "{}", screen.whole());
    assert!(screen.stderr.contains("has not looked yet"), "{}", screen.whole());
}
