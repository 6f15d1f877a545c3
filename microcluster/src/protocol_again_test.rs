//! Every message once more, when it is over; and every message of a neighbouring release.

use super::tests::{World, two_uses};
use super::*;
use crate::message::LeaveStep;
use crate::sample::{self, Joiner};

/// How a node has ended.
#[derive(Clone, Copy, Debug)]
enum End {
    Member,
    Removed,
    Left,
    Undone,
}

/// A node that ended so, and where.
fn ended(end: End) -> (World, Joiner) {
    let (world, joiner) = (World::with(&two_uses()), Joiner::new(1, "alpha"));
    world.stranger(&joiner.enter()).unwrap();
    match end {
        End::Undone => drop(world.stranger(&joiner.undo()).unwrap()),
        _ => drop(world.say(&sample::confirm(), &joiner.caller()).unwrap()),
    }
    match end {
        End::Removed => drop(world.remove("alpha", false, false).unwrap()),
        End::Left => {
            for step in [LeaveStep::Begin, LeaveStep::Finish] {
                world.say(&sample::leave(step), &joiner.caller()).unwrap();
            }
        }
        End::Member | End::Undone => {}
    }
    (world, joiner)
}

fn messages(joiner: &Joiner) -> [(&'static str, Message); 11] {
    [
        ("ask", joiner.ask()),
        ("enter", joiner.enter()),
        ("again", joiner.enter_again()),
        ("confirm", sample::confirm()),
        ("undo", joiner.undo()),
        ("undo own", joiner.undo_own()),
        ("renew", sample::message(Request::Renew(sample::renew(joiner.requests.clone())))),
        ("members", sample::message(Request::Members {})),
        ("begin", sample::leave(LeaveStep::Begin)),
        ("cancel", sample::leave(LeaveStep::Cancel)),
        ("finish", sample::leave(LeaveStep::Finish)),
    ]
}

#[test]
fn every_message_that_is_said_again_is_refused_or_changes_nothing() {
    use RefusalCode::{AlreadyMember, Removed};
    let all_but = |others: &[(&'static str, Option<RefusalCode>)], code| {
        let (_, joiner) = ended(End::Member);
        let expected = |kind| match others.iter().find(|(other, _)| *other == kind) {
            Some((_, code)) => *code,
            None => Some(code),
        };
        messages(&joiner).map(|(kind, _)| (kind, expected(kind)))
    };
    let table = [
        (End::Removed, all_but(&[("undo", None)], Removed)),
        (End::Left, all_but(&[("undo", None), ("finish", None)], Removed)),
        (End::Undone, all_but(&[("undo", None), ("undo own", None)], Removed)),
    ];
    for (end, expected) in table {
        for (kind, code) in expected {
            let (world, joiner) = ended(end);
            let (_, message) = messages(&joiner).into_iter().find(|(k, _)| *k == kind).unwrap();
            let before = world.record();
            let found = world.say(&message, &joiner.caller()).err().map(|refusal| refusal.code);
            assert_eq!(found, code, "{kind} of a node that ended as {end:?}");
            assert_eq!(world.record(), before, "{kind} of {end:?} changed something");
        }
    }
    // A member's own way in is over for good.
    for kind in ["ask", "enter", "again", "undo", "undo own"] {
        let (world, joiner) = ended(End::Member);
        let (_, message) = messages(&joiner).into_iter().find(|(k, _)| *k == kind).unwrap();
        assert_eq!(world.code(&message, &joiner.caller()), AlreadyMember, "{kind}");
    }
    let (world, joiner) = ended(End::Member);
    let before = world.record();
    world.say(&sample::confirm(), &joiner.caller()).unwrap();
    assert_eq!(world.record(), before);
}

#[test]
fn a_message_of_a_release_one_apart_is_read_and_of_two_apart_refused_unless_it_says_goodbye() {
    let (world, joiner) = ended(End::Member);
    for (kind, message) in messages(&joiner) {
        let goes = matches!(kind, "undo" | "undo own" | "begin" | "cancel" | "finish");
        for (release, works) in [
            (Version::new(0, 0, 9), false),
            (Version::new(0, 1, 0), true),
            (Version::new(0, 2, 7), true),
            (Version::new(0, 3, 0), true),
            (Version::new(0, 4, 0), false),
            (Version::new(1, 2, 0), false),
        ] {
            let message = Message { release, ..message.clone() };
            let caller = joiner.caller();
            let decided = decide(&world.record(), &message, &caller, sample::RELEASE, world.now);
            let refused = decided.err().map(|refusal| refusal.code);
            let apart = refused == Some(RefusalCode::ReleasesApart);
            assert_eq!(apart, !works && !goes, "{kind} of {release}");
        }
    }
}
