use rcgen::{KeyPair, PublicKeyData};
use time::Duration;

use super::tests::{World, two_uses};
use super::*;
use crate::message::LeaveStep;
use crate::message::{Answer, Entrant, Renew};
use crate::record::{Fingerprint, KEYS_MAX, MemberRecord, MemberState, NodeRole, Revision};
use crate::sample::{self, Joiner, NOW, RELEASE, TestSigner};
use crate::store::Change;
use crate::token::TokenState;
use crate::trust::{Purpose, Signer};

// Confirm, undo, expire.

#[test]
fn confirm_is_for_the_node_itself_and_may_be_repeated() {
    let (world, joiner) = (World::new(), Joiner::new(1, "alpha"));
    assert_eq!(world.code(&sample::confirm(), &Caller::Stranger), RefusalCode::NotAllowed);
    assert_eq!(world.code(&sample::confirm(), &joiner.caller()), RefusalCode::NotMember);
    world.join(&joiner);
    let again = world.say(&sample::confirm(), &joiner.caller()).unwrap();
    assert_eq!(again.changes, []);
    world.say(&sample::leave(LeaveStep::Begin), &joiner.caller()).unwrap();
    assert_eq!(world.code(&sample::confirm(), &joiner.caller()), RefusalCode::NotJoining);
}

#[test]
fn undo_gives_the_use_back_once() {
    let (world, joiner) = (World::with(&two_uses()), Joiner::new(1, "alpha"));
    world.stranger(&joiner.enter()).unwrap();
    assert_eq!(world.uses_left(), 1);
    for message in [joiner.undo(), joiner.undo(), joiner.undo_own()] {
        world.say(&message, &joiner.caller()).unwrap();
        assert_eq!(world.uses_left(), 2);
    }
    assert_eq!(world.record().members.len(), 1);
    world.join(&Joiner::new(1, "alpha"));
}

#[test]
fn undo_by_the_identity_that_was_given_is_enough() {
    let (world, joiner) = (World::new(), Joiner::new(1, "alpha"));
    world.stranger(&joiner.enter()).unwrap();
    assert_eq!(world.code(&joiner.undo_own(), &Caller::Stranger), RefusalCode::NotAllowed);
    world.say(&joiner.undo_own(), &joiner.caller()).unwrap();
    assert_eq!(world.uses_left(), 1);
}

#[test]
fn a_member_is_not_undone() {
    let (world, joiner) = (World::new(), Joiner::new(1, "alpha"));
    world.join(&joiner);
    for message in [joiner.undo(), joiner.undo_own()] {
        assert_eq!(world.code(&message, &joiner.caller()), RefusalCode::AlreadyMember);
    }
}

#[test]
fn nobody_undoes_the_join_of_another() {
    let (world, joiner) = (World::with(&two_uses()), Joiner::new(1, "alpha"));
    sample::add_token(&world.store, &sample::spec(NodeRole::Worker), 2);
    world.stranger(&joiner.enter()).unwrap();
    let other = Joiner { token: sample::token(2), ..Joiner::new(1, "alpha") };
    let id = joiner.id();
    let mut stranger = other;
    stranger.applicant.id = id;
    assert_eq!(world.code(&stranger.undo(), &Caller::Stranger), RefusalCode::NotAllowed);
}

#[test]
fn joins_that_are_given_up_for_ever_wear_the_token_out() {
    let world = World::new();
    for _ in 0..crate::token::ATTEMPTS_PER_USE {
        let joiner = Joiner::new(1, "alpha");
        world.stranger(&joiner.enter()).unwrap();
        world.stranger(&joiner.undo()).unwrap();
    }
    let joiner = Joiner::new(1, "alpha");
    assert_eq!(world.code(&joiner.enter(), &Caller::Stranger), RefusalCode::TokenWornOut);
    let before = world.record();
    world.stranger(&joiner.undo()).unwrap();
    assert_eq!(world.record(), before, "a worn-out token leaves no further lines");
}

#[test]
fn a_join_that_nobody_finishes_is_forgotten_and_its_use_given_back() {
    let (mut world, joiner) = (World::with(&two_uses()), Joiner::new(1, "alpha"));
    world.stranger(&joiner.enter()).unwrap();
    world.now = NOW + JOIN_TIME_MAX - Duration::SECOND;
    assert_eq!(world.expire().outcome, Outcome::Expired { count: 0, has_more: false });
    world.now = NOW + JOIN_TIME_MAX;
    assert_eq!(world.code(&joiner.enter_again(), &joiner.caller()), RefusalCode::Removed);
    assert_eq!(world.expire().outcome, Outcome::Expired { count: 1, has_more: true });
    assert_eq!(world.expire().outcome, Outcome::Expired { count: 0, has_more: false });
    assert_eq!(world.uses_left(), 2);
    assert_eq!(world.code(&sample::confirm(), &joiner.caller()), RefusalCode::Removed);
    world.say(&joiner.undo_own(), &joiner.caller()).unwrap();
}

#[test]
fn an_undo_after_the_end_of_its_token_forbids_an_enter_that_was_decided_before() {
    let (mut world, mut joiner) = (World::new(), Joiner::new(1, "alpha"));
    world.now = NOW + Duration::HOUR - Duration::SECOND;
    joiner.applicant.sent = world.now;
    let enter = Message { sent: world.now, ..joiner.enter() };
    let decided = decide(&world.record(), &enter, &Caller::Stranger, RELEASE, world.now).unwrap();
    world.now = NOW + Duration::HOUR;
    world.stranger(&joiner.undo()).unwrap();
    let late = world.store.apply_now(&decided.changes);
    assert!(matches!(late, Err(crate::store::StoreError::Collided { .. })), "{late:?}");
    assert_eq!(world.code(&joiner.enter(), &Caller::Stranger), RefusalCode::Removed);
}

#[test]
fn a_confirm_that_comes_late_and_before_the_keeper_counts() {
    let (mut world, joiner) = (World::new(), Joiner::new(1, "alpha"));
    world.stranger(&joiner.enter()).unwrap();
    world.now = NOW + JOIN_TIME_MAX + Duration::HOUR;
    world.say(&sample::confirm(), &joiner.caller()).unwrap();
    assert_eq!(world.expire().outcome, Outcome::Expired { count: 0, has_more: false });
}

#[test]
fn what_is_long_over_is_forgotten_a_bounded_part_at_once() {
    let mut world = World::with(&two_uses());
    let joiner = Joiner::new(1, "alpha");
    world.join(&joiner);
    world.remove("alpha", false, false).unwrap();
    for seed in 2..=30 {
        sample::add_token(&world.store, &sample::spec(NodeRole::Worker), seed);
    }
    world.now = NOW + Duration::HOUR + Duration::days(7);
    let first = world.expire();
    assert_eq!(first.outcome, Outcome::Expired { count: EXPIRED_AT_ONCE_MAX, has_more: true });
    assert_eq!(world.expire().outcome, Outcome::Expired { count: 10, has_more: false });
    assert_eq!(world.record().removed.len(), 1);
    world.now = NOW + crate::record::REMOVED_KEPT;
    world.expire();
    assert_eq!(world.record().removed.len(), 0);
    // A stranger it is still.
    let mut caller = joiner.caller();
    if let Caller::Node(identity) = &mut caller {
        identity.not_after = world.now + Duration::HOUR;
    }
    assert_eq!(world.code(&sample::confirm(), &caller), RefusalCode::NotMember);
}

// Renewal.

fn renewing(renew: Renew) -> Message {
    sample::message(Request::Renew(renew))
}

#[test]
fn a_node_renews_its_own_certificates_and_nobody_elses() {
    let (world, joiner) = (World::new(), Joiner::new(1, "alpha"));
    world.join(&joiner);
    let renew = renewing(sample::renew(joiner.requests.clone()));
    assert_eq!(world.code(&renew, &Caller::Stranger), RefusalCode::NotAllowed);
    let orders = world.say(&renew, &joiner.caller()).unwrap().orders;
    assert_eq!(orders[0].common_name, "skiff:node:alpha");
    let names = ["CN=skiff:node:first"];
    let foreign = vec![sample::request(Purpose::Node, &joiner.key, &names)];
    let foreign = renewing(sample::renew(foreign));
    assert_eq!(world.code(&foreign, &joiner.caller()), RefusalCode::RequestForeign);
}

#[test]
fn a_node_that_was_off_for_a_month_gets_new_certificates_and_nothing_else() {
    let (mut world, joiner) = (World::new(), Joiner::new(1, "alpha"));
    world.join(&joiner);
    world.now = NOW + Duration::days(31);
    assert_eq!(
        world.code(&sample::message(Request::Members {}), &joiner.caller()),
        RefusalCode::IdentityStale
    );
    let renewed = world.say(&renewing(sample::renew(joiner.requests.clone())), &joiner.caller());
    let orders = renewed.unwrap().orders;
    assert!(orders[0].not_after > world.now);
}

#[test]
fn a_removed_node_is_told_so_and_gets_no_certificate() {
    let (world, joiner) = (World::new(), Joiner::new(1, "alpha"));
    world.join(&joiner);
    world.remove("alpha", false, false).unwrap();
    for message in [
        renewing(sample::renew(joiner.requests.clone())),
        sample::message(Request::Members {}),
        sample::confirm(),
        sample::leave(LeaveStep::Begin),
        joiner.undo_own(),
        joiner.enter_again(),
    ] {
        let refusal = world.say(&message, &joiner.caller()).unwrap_err();
        assert_eq!(refusal.code, RefusalCode::Removed, "{message:?}");
        assert_eq!(refusal.message, "this node was removed from the cluster");
        assert!(refusal.hint.contains("skiff reset"), "{}", refusal.hint);
    }
}

#[test]
fn an_answer_that_was_lost_locks_no_node_out_and_a_former_key_does() {
    let (world, mut joiner) = (World::new(), Joiner::new(1, "alpha"));
    world.join(&joiner);
    let old = joiner.caller();
    let with =
        |key: &KeyPair| renewing(sample::renew(vec![sample::request(Purpose::Node, key, &[])]));
    let (lost, fresh) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    world.say(&with(&lost), &old).unwrap();
    world.say(&with(&fresh), &old).unwrap();
    // The first request once more: nobody knows in which order they were decided.
    world.say(&with(&lost), &old).unwrap();
    assert_eq!(world.node("alpha").keys.len(), 3);
    joiner.key = fresh;
    let own = Fingerprint::of(&joiner.key.subject_public_key_info());
    world.say(&with(&joiner.key), &joiner.caller()).unwrap();
    assert_eq!(world.node("alpha").keys, [own]);
    assert_eq!(world.code(&sample::confirm(), &old), RefusalCode::IdentityStale);
    joiner.key = lost;
    assert_eq!(world.code(&sample::confirm(), &joiner.caller()), RefusalCode::IdentityStale);
}

#[test]
fn keys_that_a_node_was_given_and_never_showed_are_bounded_and_the_newest_counts() {
    let (world, mut joiner) = (World::new(), Joiner::new(1, "alpha"));
    world.join(&joiner);
    let old = joiner.caller();
    for _ in 0..2 * KEYS_MAX {
        joiner.key = KeyPair::generate().unwrap();
        let request = sample::request(Purpose::Node, &joiner.key, &[]);
        world.say(&renewing(sample::renew(vec![request])), &old).unwrap();
    }
    assert_eq!(world.node("alpha").keys.len(), KEYS_MAX);
    for caller in [old, joiner.caller()] {
        world.say(&sample::confirm(), &caller).unwrap();
    }
}

#[test]
fn a_node_moves_to_an_address_that_is_free() {
    let (world, joiner) = (World::new(), Joiner::new(1, "alpha"));
    world.join(&joiner);
    let moved = |address: [u8; 4]| {
        renewing(Renew { addresses: Some(vec![address.into()]), ..sample::renew(vec![]) })
    };
    world.say(&moved([192, 0, 2, 50]), &joiner.caller()).unwrap();
    assert_eq!(world.node("alpha").addresses, [std::net::IpAddr::from([192, 0, 2, 50])]);
    for (address, code) in [
        ([192, 0, 2, 1], RefusalCode::AddressTaken),
        ([10, 152, 183, 1], RefusalCode::AddressInvalid),
    ] {
        assert_eq!(world.code(&moved(address), &joiner.caller()), code);
    }
    let domain = Renew { failure_domain: Some("?".into()), ..sample::renew(vec![]) };
    assert_eq!(world.code(&renewing(domain), &joiner.caller()), RefusalCode::NameInvalid);
}

#[test]
fn an_identity_that_is_not_quite_the_records_is_a_strangers() {
    let (world, joiner) = (World::new(), Joiner::new(1, "alpha"));
    world.join(&joiner);
    let Caller::Node(real) = joiner.caller() else { panic!() };
    let members = sample::message(Request::Members {});
    let renamed =
        Caller::Node(crate::trust::PeerIdentity { name: "first".parse().unwrap(), ..real.clone() });
    assert_eq!(world.code(&members, &renamed), RefusalCode::NotMember);
    let early = Caller::Node(crate::trust::PeerIdentity {
        not_before: NOW + Duration::SECOND,
        ..real.clone()
    });
    assert_eq!(world.code(&members, &early), RefusalCode::IdentityStale);
    assert_eq!(world.say(&members, &Caller::Node(real)).unwrap().outcome, Outcome::Members);
}

// Leaving and removal.

#[test]
fn a_member_leaves_by_begin_and_finish_and_each_may_be_repeated() {
    let (world, joiner) = (World::new(), Joiner::new(1, "alpha"));
    world.join(&joiner);
    let step = |step| world.say(&sample::leave(step), &joiner.caller());
    let code = |step| world.code(&sample::leave(step), &joiner.caller());
    assert_eq!(code(LeaveStep::Finish), RefusalCode::NotAllowed);
    assert_eq!(step(LeaveStep::Cancel).unwrap().changes, []);
    step(LeaveStep::Begin).unwrap();
    assert_eq!(step(LeaveStep::Begin).unwrap().changes, []);
    step(LeaveStep::Cancel).unwrap();
    assert_eq!(world.node("alpha").state, MemberState::Member);
    step(LeaveStep::Begin).unwrap();
    step(LeaveStep::Finish).unwrap();
    assert_eq!(step(LeaveStep::Finish).unwrap().changes, []);
    assert_eq!(code(LeaveStep::Begin), RefusalCode::Removed);
    assert_eq!(world.uses_left(), 0, "a member that leaves gives no use back");
}

#[test]
fn a_node_that_has_not_finished_joining_does_not_leave() {
    let (world, joiner) = (World::new(), Joiner::new(1, "alpha"));
    world.stranger(&joiner.enter()).unwrap();
    let code = world.code(&sample::leave(LeaveStep::Begin), &joiner.caller());
    assert_eq!(code, RefusalCode::NotMember);
}

#[test]
fn the_last_control_plane_node_neither_leaves_nor_is_removed() {
    let world = World::with(&sample::spec(NodeRole::ControlPlane));
    let (first, beta) = (Caller::Node(sample::first()), Joiner::control_plane(1, "beta"));
    let begin = sample::leave(LeaveStep::Begin);
    assert_eq!(world.code(&begin, &first), RefusalCode::LastControlPlane);
    world.stranger(&beta.enter()).unwrap();
    assert_eq!(world.code(&begin, &first), RefusalCode::LastControlPlane, "beta only joins");
    world.say(&sample::confirm(), &beta.caller()).unwrap();
    world.say(&begin, &first).unwrap();
    assert_eq!(world.code(&begin, &beta.caller()), RefusalCode::LastControlPlane);
    let removed = world.remove("beta", false, true).unwrap_err();
    assert_eq!(removed.code, RefusalCode::LastControlPlane);
}

#[test]
fn two_control_plane_nodes_that_leave_at_once_collide() {
    let world = World::with(&sample::spec(NodeRole::ControlPlane));
    let (first, beta) = (Caller::Node(sample::first()), Joiner::control_plane(1, "beta"));
    world.join(&beta);
    let record = world.record();
    let begin = |caller: &Caller| decide_leave(&record, LeaveStep::Begin, caller, NOW).unwrap();
    let (one, other) = (begin(&first), begin(&beta.caller()));
    world.store.apply_now(&one.changes).unwrap();
    assert!(world.store.apply_now(&other.changes).is_err());
}

#[test]
fn two_that_join_at_once_with_one_address_collide() {
    let world = World::with(&two_uses());
    let (alpha, beta) = (Joiner::new(1, "alpha"), Joiner::new(1, "beta"));
    sample::add_token(&world.store, &sample::spec(NodeRole::Worker), 2);
    let beta = Joiner { token: sample::token(2), ..beta };
    let record = world.record();
    let enter = |joiner: &Joiner| {
        decide(&record, &joiner.enter(), &Caller::Stranger, RELEASE, NOW).unwrap().changes
    };
    let (one, other) = (enter(&alpha), enter(&beta));
    world.store.apply_now(&one).unwrap();
    assert!(world.store.apply_now(&other).is_err());
}

#[test]
fn a_node_that_answers_is_removed_by_force_only() {
    let (world, joiner) = (World::new(), Joiner::new(1, "alpha"));
    world.join(&joiner);
    assert_eq!(world.remove("alpha", true, false).unwrap_err().code, RefusalCode::StillReachable);
    let removed = world.remove("alpha", true, true).unwrap();
    assert!(matches!(removed.outcome, Outcome::Removed { held_keys: false, .. }));
    assert_eq!(world.remove("alpha", true, false).unwrap().changes, [], "said again");
    assert_eq!(world.uses_left(), 0);
}

#[test]
fn removing_a_control_plane_node_tells_that_it_had_the_keys() {
    let world = World::with(&sample::spec(NodeRole::ControlPlane));
    world.join(&Joiner::control_plane(1, "beta"));
    let removed = world.remove("beta", false, false).unwrap();
    assert!(matches!(removed.outcome, Outcome::Removed { held_keys: true, .. }));
}

#[test]
fn what_cannot_be_removed_is_refused() {
    let world = World::new();
    assert_eq!(world.remove("nobody", false, true).unwrap_err().code, RefusalCode::NodeUnknown);
    assert_eq!(world.remove("first", false, true).unwrap_err().code, RefusalCode::NotAllowed);
}

#[test]
fn a_join_that_is_removed_gives_its_use_back() {
    let (world, joiner) = (World::new(), Joiner::new(1, "alpha"));
    world.stranger(&joiner.enter()).unwrap();
    world.remove("alpha", false, false).unwrap();
    assert_eq!(world.uses_left(), 1);
    let record = world.record();
    assert_eq!(record.tokens.values().next().unwrap().value.state_at(NOW), TokenState::Live);
}

#[test]
fn only_a_sensible_founder_founds() {
    let founder = Founder { addresses: vec![], ..sample::founder() };
    let refusal = decide_found(&sample::settings(), &founder, NOW).unwrap_err();
    assert_eq!(refusal.code, RefusalCode::AddressInvalid);
    let founder = Founder { name: "kubernetes".parse().unwrap(), ..sample::founder() };
    let refusal = decide_found(&sample::settings(), &founder, NOW).unwrap_err();
    assert_eq!(refusal.code, RefusalCode::NameReserved);
}

#[test]
fn the_record_knows_every_certificate_that_is_handed_out() {
    let (world, joiner) = (World::new(), Joiner::new(1, "alpha"));
    let mut decision =
        decide(&world.record(), &joiner.enter(), &Caller::Stranger, RELEASE, NOW).unwrap();
    let issued = vec![TestSigner::new().sign(&decision.orders[0], &sample::settings()).unwrap()];
    decision.note_issued(&issued);
    world.store.apply_now(&decision.changes).unwrap();
    assert_eq!(world.node("alpha").certificates, [issued[0].certificate()]);
}

#[test]
fn a_record_that_contradicts_itself_is_not_used() {
    let world = World::new();
    let first = world.node("first");
    let double = MemberRecord { name: "double".parse().unwrap(), ..first };
    let put = Change::PutMember { member: Box::new(double), was: None };
    assert_eq!(world.store.apply_now(&[put]).unwrap(), Revision(3));
    assert!(world.store.read_now().is_err());
}

/// A refusal travels: the other side reads what was meant.
#[test]
fn refusals_read_back() {
    let refusal = World::new().stranger(&sample::confirm()).unwrap_err();
    let answer = Answer::Refused(refusal.clone()).to_bytes();
    assert_eq!(Answer::parse(&answer), Ok(Answer::Refused(refusal)));
}

/// Everything that a joiner states is signed: nothing of it can be taken from elsewhere.
#[test]
fn an_entrant_reads_back() {
    let joiner = Joiner::control_plane(1, "beta");
    let entrant = Entrant {
        applicant: joiner.applicant,
        requests: joiner.requests,
        recipient: joiner.recipient,
    };
    let text = serde_json::to_string(&entrant).unwrap();
    assert_eq!(serde_json::from_str::<Entrant>(&text).unwrap(), entrant);
}

// Settings.

#[test]
fn the_only_api_server_may_move_to_another_port_and_one_of_several_may_not() {
    let world = World::with(&sample::spec(NodeRole::ControlPlane));
    let before = world.record();
    assert_eq!(decide_api_port(&before, before.settings.value.api_port).unwrap().changes, []);
    let moved = decide_api_port(&before, 6500).unwrap();
    // Another one came between the decision and its being done.
    world.stranger(&Joiner::control_plane(1, "beta").enter()).unwrap();
    assert!(world.store.apply_now(&moved.changes).is_err(), "it was done all the same");
    let refused = decide_api_port(&world.record(), 6500).unwrap_err();
    assert_eq!(refused.code, RefusalCode::NotAllowed);

    let world = World::new();
    let moved = decide_api_port(&world.record(), 6500).unwrap();
    world.store.apply_now(&moved.changes).unwrap();
    assert_eq!(world.record().settings.value.api_port, 6500);
    world.record().check().unwrap();
}
