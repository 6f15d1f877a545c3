use rcgen::KeyPair;
use time::Duration;

use super::tests::{World, two_uses};
use super::*;
use crate::message::LeaveStep;
use crate::message::{Applicant, Enter};
use crate::record::{Fingerprint, MemberState, NodeId, NodeRole};
use crate::sample::{self, Joiner, KUBERNETES, NOW, RELEASE};
use crate::token::{Proven, Secret};
use crate::trust::Purpose;

// Joining.

#[test]
fn a_machine_joins_by_ask_enter_confirm() {
    let (world, joiner) = (World::new(), Joiner::new(1, "alpha"));
    let before = world.record();
    assert_eq!(world.stranger(&joiner.ask()).unwrap().outcome, Outcome::Asked);
    assert_eq!(world.record(), before, "asking changed something");
    let entered = world.stranger(&joiner.enter()).unwrap();
    assert_eq!(entered.orders.len(), 1);
    assert!(matches!(world.node("alpha").state, MemberState::Joining { .. }));
    assert_eq!(world.uses_left(), 0);
    world.say(&sample::confirm(), &joiner.caller()).unwrap();
    assert_eq!(world.node("alpha").state, MemberState::Member);
}

#[test]
fn labels_taints_and_role_come_from_the_token() {
    let spec = TokenSpec {
        labels: [("rack".to_owned(), "a".to_owned())].into(),
        taints: vec!["gpu:NoSchedule".into()],
        ..sample::spec(NodeRole::Worker)
    };
    let world = World::with(&spec);
    world.join(&Joiner::new(1, "alpha"));
    let node = world.node("alpha");
    assert_eq!((node.labels, node.taints), (spec.labels, spec.taints));
}

/// What is asked and what is entered is checked alike.
fn refused(change: impl Fn(&mut Joiner)) -> (RefusalCode, String) {
    let (world, mut joiner) = (World::new(), Joiner::new(1, "alpha"));
    change(&mut joiner);
    let asked = world.stranger(&joiner.ask()).unwrap_err();
    let entered = world.stranger(&joiner.enter()).unwrap_err();
    assert_eq!(asked, entered);
    assert_eq!(world.uses_left(), 1, "a refused join spent a use");
    (asked.code, asked.message)
}

type Changed = fn(&mut Joiner);

#[test]
fn what_a_machine_cannot_be_is_refused_when_it_asks_and_when_it_enters() {
    use RefusalCode::*;
    let table: &[(Changed, RefusalCode, &str)] = &[
        (|j| j.applicant.name = "Alpha".into(), NameInvalid, "\"alpha\" would do"),
        (|j| j.applicant.name = "a_b".into(), NameInvalid, "'_'"),
        (|j| j.applicant.name = "kubernetes".into(), NameReserved, "kubernetes"),
        (|j| j.applicant.name = "a.default.svc".into(), NameReserved, "a.default.svc"),
        (|j| j.applicant.name = "first".into(), NameTaken, "a node first in the cluster"),
        (|j| j.applicant.addresses = vec![], AddressInvalid, "and not 0"),
        (|j| j.applicant.addresses = vec![[127, 0, 0, 1].into()], AddressInvalid, "127.0.0.1"),
        (|j| j.applicant.addresses = vec![[10, 1, 2, 3].into()], AddressInvalid, "10.1.0.0/16"),
        (
            |j| j.applicant.addresses = vec![[10, 152, 183, 1].into()],
            AddressInvalid,
            "range for Services",
        ),
        (
            |j| j.applicant.addresses = vec![[192, 0, 2, 9].into(), [192, 0, 2, 1].into()],
            AddressTaken,
            "192.0.2.1 is the address of first",
        ),
        (|j| j.applicant.failure_domain = "a b".into(), NameInvalid, "failure domain"),
        (
            |j| j.applicant.choices.pod_cidrs = Some(vec!["10.2.0.0/16".parse().unwrap()]),
            RangesDiffer,
            "network.pod-cidr is 10.2.0.0/16 there, and the cluster has 10.1.0.0/16",
        ),
        (
            |j| j.applicant.choices.service_cidrs = Some(vec!["10.9.0.0/24".parse().unwrap()]),
            RangesDiffer,
            "network.service-cidr",
        ),
        (
            |j| j.applicant.choices.dns_domain = Some("other.local".into()),
            RangesDiffer,
            "network.dns-domain",
        ),
        (
            |j| j.applicant.choices.dns_address = Some([10, 9, 0, 10].into()),
            RangesDiffer,
            "network.dns-address",
        ),
        (
            |j| j.applicant.member_of = Some(crate::record::ClusterId("other".into())),
            AlreadyMember,
            "member of another cluster already",
        ),
        (
            |j| j.applicant.kubernetes = Version::new(1, 37, 0),
            KubernetesApart,
            "newer than the cluster's oldest API server",
        ),
        (|j| j.applicant.kubernetes = Version::new(1, 32, 0), KubernetesApart, "older than"),
        (|j| j.applicant.role = NodeRole::ControlPlane, TokenForAnotherRole, "for a worker node"),
        (|j| j.token = sample::token(2), TokenUnknown, "does not know the token"),
        (
            |j| j.applicant.sent = NOW - Duration::minutes(6),
            ClocksApart,
            "clock is 6 min behind this member's",
        ),
        (|j| j.applicant.sent = NOW + Duration::hours(3), ClocksApart, "3 h ahead of this"),
    ];
    for (change, code, words) in table {
        let (found, message) = refused(change);
        assert_eq!(found, *code, "{message}");
        assert!(message.contains(words), "{message}");
    }
}

#[test]
fn settings_that_the_joiner_chose_alike_are_no_difference() {
    let (world, mut joiner) = (World::new(), Joiner::new(1, "alpha"));
    let settings = sample::settings();
    joiner.applicant.choices.pod_cidrs = Some(settings.pod_cidrs);
    joiner.applicant.choices.dns_domain = Some(settings.dns_domain);
    world.join(&joiner);
}

#[test]
fn a_release_too_far_apart_is_refused_and_may_still_leave() {
    let (world, joiner) = (World::with(&two_uses()), Joiner::new(1, "alpha"));
    let of = |minor, message: Message| Message { release: Version::new(0, minor, 0), ..message };
    assert_eq!(world.code(&of(4, joiner.ask()), &Caller::Stranger), RefusalCode::ReleasesApart);
    assert_eq!(world.code(&of(0, joiner.enter()), &Caller::Stranger), RefusalCode::ReleasesApart);
    world.stranger(&of(3, joiner.enter())).unwrap();
    assert_eq!(world.node("alpha").release, Version::new(0, 3, 0));
    world.say(&sample::confirm(), &joiner.caller()).unwrap();
    world.say(&of(9, sample::leave(LeaveStep::Begin)), &joiner.caller()).unwrap();
}

#[test]
fn an_old_message_is_refused() {
    let (world, joiner) = (World::new(), Joiner::new(1, "alpha"));
    let old = Message { sent: NOW - Duration::HOUR, ..joiner.enter() };
    assert_eq!(world.code(&old, &Caller::Stranger), RefusalCode::ClocksApart);
    // Somebody who sends it anew cannot change what the token has signed.
    let late = World { now: NOW + Duration::minutes(6), ..world };
    assert_eq!(late.code(&joiner.enter(), &Caller::Stranger), RefusalCode::ClocksApart);
}

#[test]
fn a_control_plane_node_needs_versions_that_go_with_every_api_server_and_a_place_for_the_keys() {
    let world = World::with(&sample::spec(NodeRole::ControlPlane));
    let mut joiner = Joiner::control_plane(1, "beta");
    joiner.applicant.kubernetes = Version::new(1, 34, 0);
    assert_eq!(world.code(&joiner.ask(), &Caller::Stranger), RefusalCode::KubernetesApart);
    joiner.applicant.kubernetes = KUBERNETES;
    for recipient in [None, Some("ssh-ed25519 AAAA".to_owned()), Some("age1 x".into())] {
        joiner.recipient = recipient;
        assert_eq!(world.code(&joiner.enter(), &Caller::Stranger), RefusalCode::RequestInvalid);
    }
    joiner.recipient = Some(sample::RECIPIENT.into());
    let entered = world.stranger(&joiner.enter()).unwrap().outcome;
    let Outcome::Entered { recipient, .. } = entered else { panic!("{entered:?}") };
    assert_eq!(recipient, joiner.recipient);
}

#[test]
fn the_keys_are_sealed_to_whom_the_token_has_signed_and_to_nobody_else() {
    let world = World::with(&sample::spec(NodeRole::ControlPlane));
    let mut joiner = Joiner::control_plane(1, "beta");
    world.stranger(&joiner.enter()).unwrap();
    let first = joiner.recipient.replace("age1another".into());
    for message in [joiner.enter(), joiner.enter_again()] {
        let entered = world.say(&message, &joiner.caller()).unwrap().outcome;
        let Outcome::Entered { recipient, .. } = entered else { panic!("{entered:?}") };
        assert_eq!(recipient, first);
    }
}

#[test]
fn a_worker_is_not_given_the_keys() {
    let (world, mut joiner) = (World::new(), Joiner::new(1, "alpha"));
    joiner.recipient = Some(sample::RECIPIENT.into());
    let entered = world.stranger(&joiner.enter()).unwrap().outcome;
    assert!(matches!(entered, Outcome::Entered { recipient: None, .. }), "{entered:?}");
}

#[test]
fn the_cluster_and_its_control_plane_have_a_greatest_size() {
    let world = World::with(&sample::spec(NodeRole::ControlPlane));
    let joiner = Joiner::control_plane(1, "beta");
    let filled = |count: usize, role| {
        let mut record = world.record();
        let first = record.members.values().next().unwrap().clone();
        for number in 1..count {
            let mut member = first.clone();
            member.value.name = format!("n{number}").parse().unwrap();
            member.value.id = NodeId::of_key(&number.to_be_bytes());
            member.value.role = role;
            member.value.addresses = vec![[172, 16, (number >> 8) as u8, number as u8].into()];
            record.members.insert(member.value.name.clone(), member);
        }
        record
    };
    let ask = |record: &ClusterRecord| {
        decide(record, &joiner.ask(), &Caller::Stranger, RELEASE, NOW).map_err(|e| e.code)
    };
    let code = |record| ask(&record).map(|decision| decision.outcome);
    assert_eq!(
        code(filled(CONTROL_PLANE_MAX, NodeRole::ControlPlane)),
        Err(RefusalCode::ControlPlaneFull)
    );
    assert_eq!(code(filled(CONTROL_PLANE_MAX - 1, NodeRole::ControlPlane)), Ok(Outcome::Asked));
    assert_eq!(code(filled(MEMBERS_MAX, NodeRole::Worker)), Err(RefusalCode::ClusterFull));
}

// Tokens.

#[test]
fn a_token_used_twice_is_refused() {
    let world = World::new();
    world.join(&Joiner::new(1, "alpha"));
    let mut second = Joiner::new(1, "beta");
    second.applicant.addresses = vec![[192, 0, 2, 200].into()];
    assert_eq!(world.code(&second.ask(), &Caller::Stranger), RefusalCode::TokenUsed);
    assert_eq!(world.code(&second.enter(), &Caller::Stranger), RefusalCode::TokenUsed);
}

#[test]
fn an_expired_token_is_refused() {
    let world = World { now: NOW + Duration::HOUR, ..World::new() };
    let mut joiner = Joiner::new(1, "alpha");
    joiner.applicant.sent = world.now;
    assert_eq!(world.code(&joiner.enter(), &Caller::Stranger), RefusalCode::TokenExpired);
}

#[test]
fn a_revoked_token_is_refused_and_who_has_entered_may_finish() {
    let (world, joiner) = (World::with(&two_uses()), Joiner::new(1, "alpha"));
    world.stranger(&joiner.enter()).unwrap();
    for _ in 0..2 {
        let revoked = decide_revoke_token(&world.record(), joiner.token.id()).unwrap();
        world.store.apply_now(&revoked.changes).unwrap();
    }
    let mut second = Joiner::new(1, "beta");
    second.applicant.addresses = vec![[192, 0, 2, 200].into()];
    assert_eq!(world.code(&second.enter(), &Caller::Stranger), RefusalCode::TokenRevoked);
    world.say(&sample::confirm(), &joiner.caller()).unwrap();
}

#[test]
fn a_token_for_another_name_is_refused() {
    let spec = TokenSpec { name: Some("beta".parse().unwrap()), ..sample::spec(NodeRole::Worker) };
    let (world, alpha) = (World::with(&spec), Joiner::new(1, "alpha"));
    assert_eq!(world.code(&alpha.enter(), &Caller::Stranger), RefusalCode::TokenForAnotherName);
    world.join(&Joiner::new(1, "beta"));
}

#[test]
fn a_token_of_another_cluster_or_with_a_guessed_secret_is_unknown() {
    let (world, joiner) = (World::new(), Joiner::new(1, "alpha"));
    // The id is right, the secret is not.
    let mut forged = Proven::state(&sample::token(2), &joiner.applicant).unwrap();
    forged.token = sample::token(1).id();
    let ask = sample::message(Request::Ask(forged));
    assert_eq!(world.code(&ask, &Caller::Stranger), RefusalCode::TokenUnknown);
    // The secret is right, the authority is not.
    let address = "192.0.2.1:7443".parse().unwrap();
    let elsewhere =
        crate::token::JoinToken::new(vec![address], Fingerprint::of(b"x"), sample::secret(1));
    let elsewhere = Joiner { token: elsewhere.unwrap(), ..joiner };
    assert_eq!(world.code(&elsewhere.ask(), &Caller::Stranger), RefusalCode::TokenUnknown);
}

#[test]
fn a_statement_for_one_request_is_none_for_another() {
    let (world, joiner) = (World::new(), Joiner::new(1, "alpha"));
    let Request::Ask(asked) = joiner.ask().request else { panic!() };
    let enter = sample::message(Request::Enter(Enter::Proven(asked)));
    assert_eq!(world.code(&enter, &Caller::Stranger), RefusalCode::TokenUnknown);
}

#[test]
fn who_sits_between_cannot_put_another_key_into_a_message() {
    let (world, joiner) = (World::new(), Joiner::new(1, "alpha"));
    let attacker = Joiner::new(2, "alpha");
    let Request::Enter(Enter::Proven(real)) = joiner.enter().request else { panic!() };
    let Request::Enter(Enter::Proven(own)) = attacker.enter().request else { panic!() };
    let mixed = Proven { statement: own.statement, ..real };
    let enter = sample::message(Request::Enter(Enter::Proven(mixed)));
    assert_eq!(world.code(&enter, &Caller::Stranger), RefusalCode::TokenUnknown);
}

#[test]
fn a_proven_statement_that_makes_no_sense_is_malformed() {
    #[derive(serde::Serialize, serde::Deserialize)]
    struct Nonsense(u32);
    impl crate::token::Statement for Nonsense {
        const KIND: &'static str = <Applicant as crate::token::Statement>::KIND;
    }
    let proven = Proven::state(&sample::token(1), &Nonsense(1)).unwrap();
    let ask = sample::message(Request::Ask(proven));
    assert_eq!(World::new().code(&ask, &Caller::Stranger), RefusalCode::Malformed);
}

#[test]
fn what_a_token_cannot_be_is_refused() {
    let world = World::new();
    let worker = || sample::spec(NodeRole::Worker);
    let named = |name: &str| TokenSpec { name: Some(name.parse().unwrap()), ..worker() };
    for (spec, code) in [
        (TokenSpec { ttl: Duration::seconds(59), ..worker() }, RefusalCode::TokenInvalid),
        (TokenSpec { ttl: Duration::days(366), ..worker() }, RefusalCode::TokenInvalid),
        (TokenSpec { uses: 0, ..worker() }, RefusalCode::TokenInvalid),
        (TokenSpec { uses: 1001, ..worker() }, RefusalCode::TokenInvalid),
        (TokenSpec { uses: 2, ..named("beta") }, RefusalCode::TokenInvalid),
        (TokenSpec { authority: Fingerprint::of(b"x"), ..worker() }, RefusalCode::TokenInvalid),
        (TokenSpec { taints: vec!["x".into()], ..worker() }, RefusalCode::TokenInvalid),
        (
            TokenSpec { labels: [("a b".to_owned(), String::new())].into(), ..worker() },
            RefusalCode::TokenInvalid,
        ),
        (named("first"), RefusalCode::NameTaken),
        (named("localhost"), RefusalCode::NameReserved),
    ] {
        let refusal = decide_add_token(&world.record(), &spec, &sample::secret(9), NOW);
        assert_eq!(refusal.unwrap_err().code, code, "{spec:?}");
    }
    let unknown = decide_revoke_token(&world.record(), sample::token(9).id()).unwrap_err();
    assert_eq!(unknown.code, RefusalCode::TokenUnknown);
}

#[test]
fn tokens_have_a_greatest_number() {
    let mut record = World::new().record();
    let one = record.tokens.values().next().unwrap().clone();
    for number in 0..TOKENS_MAX as u64 {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&number.to_be_bytes());
        record.tokens.insert(Secret::from_bytes(bytes).token_id(), one.clone());
    }
    let spec = sample::spec(NodeRole::Worker);
    let refusal = decide_add_token(&record, &spec, &sample::secret(9), NOW).unwrap_err();
    assert_eq!(refusal.code, RefusalCode::TokenInvalid);
}

// Repetition.

#[test]
fn a_repeated_enter_is_answered_again_and_spends_nothing() {
    let (world, joiner) = (World::with(&two_uses()), Joiner::new(1, "alpha"));
    let first = world.stranger(&joiner.enter()).unwrap();
    for message in [joiner.enter(), joiner.enter_again()] {
        let again = world.say(&message, &joiner.caller()).unwrap();
        assert_eq!((again.orders, again.outcome), (first.orders.clone(), first.outcome.clone()));
        assert_eq!(world.uses_left(), 1);
    }
    assert_eq!(world.stranger(&joiner.ask()).unwrap().outcome, Outcome::Asked);
}

#[test]
fn a_joiner_that_died_goes_on_by_its_identity_without_the_token() {
    let (world, joiner) = (World::new(), Joiner::new(1, "alpha"));
    assert_eq!(world.code(&joiner.enter_again(), &Caller::Stranger), RefusalCode::NotAllowed);
    assert_eq!(world.code(&joiner.enter_again(), &joiner.caller()), RefusalCode::NotMember);
    world.stranger(&joiner.enter()).unwrap();
    world.say(&joiner.enter_again(), &joiner.caller()).unwrap();
    let other = Joiner::new(1, "alpha");
    let stolen = sample::message(Request::Enter(Enter::Again { requests: other.requests }));
    assert_eq!(world.code(&stolen, &joiner.caller()), RefusalCode::RequestInvalid);
}

#[test]
fn a_replayed_enter_of_a_member_is_refused() {
    let (world, joiner) = (World::with(&two_uses()), Joiner::new(1, "alpha"));
    world.join(&joiner);
    assert_eq!(world.code(&joiner.enter(), &Caller::Stranger), RefusalCode::AlreadyMember);
    assert_eq!(world.code(&joiner.enter_again(), &joiner.caller()), RefusalCode::AlreadyMember);
    assert_eq!(world.uses_left(), 1);
}

#[test]
fn a_replayed_enter_of_a_removed_node_is_refused() {
    let (world, joiner) = (World::with(&two_uses()), Joiner::new(1, "alpha"));
    world.join(&joiner);
    world.remove("alpha", false, false).unwrap();
    assert_eq!(world.code(&joiner.enter(), &Caller::Stranger), RefusalCode::Removed);
    assert_eq!(world.code(&joiner.ask(), &Caller::Stranger), RefusalCode::Removed);
    // The machine itself may come again, with another key.
    let mut anew = Joiner::new(1, "alpha");
    anew.applicant.addresses = joiner.applicant.addresses;
    world.join(&anew);
}

#[test]
fn an_enter_with_other_names_than_the_first_time_is_refused() {
    let (world, mut joiner) = (World::with(&two_uses()), Joiner::new(1, "alpha"));
    world.stranger(&joiner.enter()).unwrap();
    joiner.applicant.name = "beta".into();
    assert_eq!(world.code(&joiner.enter(), &Caller::Stranger), RefusalCode::AlreadyMember);
}

#[test]
fn an_enter_that_arrives_after_its_undo_is_refused() {
    let (world, joiner) = (World::with(&two_uses()), Joiner::new(1, "alpha"));
    world.stranger(&joiner.undo()).unwrap();
    assert_eq!(world.code(&joiner.enter(), &Caller::Stranger), RefusalCode::Removed);
    assert_eq!(world.uses_left(), 2);
}

// Signing requests.

#[test]
fn a_request_for_another_name_is_refused() {
    use RefusalCode::{RequestForeign, RequestInvalid};
    let spare = KeyPair::generate().unwrap();
    let cases: &[(Purpose, &[&str], RefusalCode)] = &[
        (Purpose::KubeletClient, &["CN=system:node:first", "O=system:nodes"], RequestForeign),
        (Purpose::KubeletClient, &["CN=system:node:alpha", "O=system:masters"], RequestForeign),
        (Purpose::KubeProxy, &["CN=system:kube-controller-manager"], RequestForeign),
        (Purpose::KubeletServing, &["kubernetes.default.svc"], RequestForeign),
        (Purpose::KubeletServing, &["first"], RequestForeign),
        (Purpose::KubeletServing, &["192.0.2.1"], RequestForeign),
        (Purpose::DatastoreMember, &[], RequestForeign),
        (Purpose::Node, &[], RequestInvalid),
    ];
    for (purpose, names, code) in cases {
        let (world, mut joiner) = (World::new(), Joiner::new(1, "alpha"));
        joiner.requests.push(sample::request(*purpose, &spare, names));
        assert_eq!(world.code(&joiner.enter(), &Caller::Stranger), *code, "{names:?}");
    }
    let (world, mut joiner) = (World::new(), Joiner::new(1, "alpha"));
    let own = ["CN=system:node:alpha", "O=system:nodes", "alpha", "192.0.2.101"];
    joiner.requests.push(sample::request(Purpose::KubeletServing, &spare, &own));
    world.join(&joiner);
}

#[test]
fn a_joiner_needs_a_request_with_the_key_of_its_id() {
    let (world, mut joiner) = (World::new(), Joiner::new(1, "alpha"));
    let requests = std::mem::take(&mut joiner.requests);
    assert_eq!(world.code(&joiner.enter(), &Caller::Stranger), RefusalCode::RequestInvalid);
    joiner.requests = requests;
    joiner.applicant.id = NodeId::of_key(b"another");
    assert_eq!(world.code(&joiner.enter(), &Caller::Stranger), RefusalCode::RequestInvalid);
    joiner.requests[0].request = "?".into();
    assert_eq!(world.code(&joiner.enter(), &Caller::Stranger), RefusalCode::RequestInvalid);
}
