//! New authorities: what is refused, the way on and back, and a walk over everything that can
//! happen on it.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::LazyLock;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair};

use super::*;
use crate::message::{Message, Renew, Request};
use crate::protocol::Caller;
use crate::record::{DoneSteps, Fingerprint, RotationStep};
use crate::sample::{self, Joiner, NOW};
use crate::store::MemoryStore;
use crate::token::JoinToken;

const HOLD: Duration = Duration::hours(24);
/// Any will do where nobody verifies it.
static CROSSED: LazyLock<String> = LazyLock::new(|| certificate("crossed"));

fn certificate(name: &str) -> String {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.self_signed(&key).unwrap().pem()
}

fn certificates(name: &str) -> AuthorityCertificates {
    AuthorityCertificates {
        cluster: certificate(name),
        front_proxy: certificate("front proxy"),
        crossed: certificate("crossed"),
        service_account: format!("key of {name}"),
    }
}

fn request() -> RotationRequest {
    RotationRequest {
        old: certificates("skiff"),
        new: certificates("skiff 2"),
        hold: HOLD,
        without: BTreeSet::new(),
        distrust: false,
    }
}

/// `first` with the old authority of the request, a control-plane node and a worker.
fn cluster(request: &RotationRequest) -> (MemoryStore, Vec<Joiner>) {
    let store = sample::store();
    let joiners = vec![Joiner::control_plane(2, "second"), Joiner::new(3, "third")];
    for (joiner, seed) in joiners.iter().zip([2, 3]) {
        sample::add_token(&store, &sample::spec(joiner.applicant.role), seed);
        say(&store, &joiner.enter(), &Caller::Stranger);
        say(&store, &sample::confirm(), &joiner.caller());
    }
    let record = store.read_now().unwrap();
    let authorities = vec![request.old.fingerprint().unwrap()];
    let settings = ClusterSettings { authorities, ..record.settings.value.clone() };
    store.apply_now(&put(&record, settings).changes).unwrap();
    (store, joiners)
}

fn say(store: &MemoryStore, message: &Message, caller: &Caller) {
    let record = store.read_now().unwrap();
    let decision = crate::protocol::decide(&record, message, caller, sample::RELEASE, NOW).unwrap();
    store.apply_now(&decision.changes).unwrap();
}

type Decided = Result<Decision, Refusal>;

/// Makes a decision so; which step and target are there then.
fn act(store: &MemoryStore, decide: impl Fn(&ClusterRecord) -> Decided) -> Result<State, String> {
    let before = store.read_now().unwrap();
    let decision = decide(&before).map_err(|refusal| refusal.message)?;
    store.apply_now(&decision.changes).unwrap();
    let after = store.read_now().unwrap();
    after.check().unwrap();
    let rotation = &after.settings.value.rotation;
    assert_eq!(decision.outcome, Outcome::Rotation(rotation.step));
    Ok((rotation.step.0, rotation.current.as_ref().map(|current| current.target)))
}

type State = (u64, Option<Position>);

fn begin(store: &MemoryStore, request: &RotationRequest) -> Result<State, String> {
    act(store, |record| decide_rotation_begin(record, request, NOW))
}

fn turn(store: &MemoryStore, way: Way) -> Result<State, String> {
    let crossed = certificate("crossed");
    act(store, |record| decide_rotation_turn(record, way, &crossed, NOW))
}

fn advance(store: &MemoryStore, later: Duration) -> State {
    act(store, |record| Ok(decide_rotation_advance(record, NOW + later))).unwrap()
}

/// Every node says that it has done the present step.
fn arrive(store: &MemoryStore, joiners: &[Joiner]) {
    let step = store.read_now().unwrap().settings.value.rotation.step;
    let callers = joiners.iter().map(Joiner::caller).chain([Caller::Node(sample::first())]);
    callers.for_each(|caller| done(store, &caller, step));
}

fn done(store: &MemoryStore, caller: &Caller, step: RotationStep) {
    let renew = Renew { rotation: Some(DoneSteps { step, failed: None }), ..Renew::default() };
    say(store, &sample::message(Request::Renew(renew)), caller);
}

fn authorities(store: &MemoryStore) -> Vec<Fingerprint> {
    store.read_now().unwrap().settings.value.authorities
}

#[test]
fn new_authorities_take_the_place_of_the_old_ones_when_all_nodes_are_there() {
    let request = request();
    let (store, joiners) = cluster(&request);
    let prints = [&request.old, &request.new].map(|side| side.fingerprint().unwrap());
    let [old, new] = prints;
    assert_eq!(begin(&store, &request), Ok((1, Some(Position::BothOld))));
    assert_eq!(begin(&store, &request), Ok((1, Some(Position::BothOld))), "it was begun already");
    assert_eq!(authorities(&store), [old, new]);
    let both_old = (1, Some(Position::BothOld));
    assert_eq!(advance(&store, HOLD), both_old, "nobody is there");
    arrive(&store, &joiners[1..]);
    assert_eq!(advance(&store, HOLD), both_old, "one is missing");
    let record = store.read_now().unwrap();
    assert_eq!(
        missing_in_rotation(&record).map(|member| member.name.as_str()).collect::<Vec<_>>(),
        ["second"]
    );
    arrive(&store, &joiners);
    assert_eq!(advance(&store, Duration::ZERO), (2, Some(Position::BothNew)));
    assert_eq!(authorities(&store), [new, old], "the one that signs stands first");
    arrive(&store, &joiners);
    let both_new = (2, Some(Position::BothNew));
    assert_eq!(advance(&store, Duration::HOUR), both_new, "the hold begins when all are there");
    assert_eq!(advance(&store, HOLD), both_new);
    assert_eq!(advance(&store, HOLD + Duration::HOUR), (3, Some(Position::New)));
    assert_eq!(authorities(&store), [new]);
    arrive(&store, &joiners);
    assert_eq!(advance(&store, Duration::ZERO), (3, None));
    assert_eq!(authorities(&store), [new]);
    assert_eq!(advance(&store, Duration::ZERO), (3, None), "it is over");
    assert!(turn(&store, Way::Back).unwrap_err().contains("not being replaced"));
}

#[test]
fn from_every_position_the_way_back_ends_with_the_old_ones() {
    for steps in 0..3_u64 {
        let request = request();
        let (store, joiners) = cluster(&request);
        begin(&store, &request).unwrap();
        for _ in 0..steps {
            arrive(&store, &joiners);
            advance(&store, Duration::ZERO);
            advance(&store, HOLD);
        }
        let reached = Position::ALL[1 + usize::try_from(steps).unwrap()];
        let from = reached.next(Way::Back);
        assert_eq!(turn(&store, Way::Back), Ok((steps + 2, from)));
        assert_eq!(turn(&store, Way::Back), Ok((steps + 2, from)), "it has turned round already");
        for _ in 0..=steps {
            arrive(&store, &joiners);
            advance(&store, Duration::ZERO);
            advance(&store, TOKEN_HOLD);
        }
        assert_eq!(advance(&store, Duration::ZERO).1, None, "{reached:?}");
        assert_eq!(authorities(&store), [request.old.fingerprint().unwrap()]);
    }
}

#[test]
fn tokens_that_the_new_key_signed_are_waited_for_on_the_way_back() {
    let request = request();
    let (store, joiners) = cluster(&request);
    begin(&store, &request).unwrap();
    arrive(&store, &joiners);
    advance(&store, Duration::ZERO);
    assert_eq!(turn(&store, Way::Back), Ok((3, Some(Position::BothOld))));
    arrive(&store, &joiners);
    advance(&store, Duration::ZERO);
    let before = advance(&store, TOKEN_HOLD - Duration::SECOND);
    assert_eq!(before, (3, Some(Position::BothOld)));
    assert_eq!(advance(&store, TOKEN_HOLD), (4, Some(Position::Old)));
}

#[test]
fn a_hold_is_ended_by_a_word_and_only_where_there_is_one() {
    let request = request();
    let (store, joiners) = cluster(&request);
    let finish = || act(&store, decide_rotation_finish);
    assert!(finish().unwrap_err().contains("not being replaced"));
    begin(&store, &request).unwrap();
    assert!(finish().unwrap_err().contains("has not done step 1"));
    arrive(&store, &joiners);
    assert!(finish().unwrap_err().contains("nothing is held"));
    advance(&store, Duration::ZERO);
    assert!(finish().unwrap_err().contains("has not done step 2"));
    arrive(&store, &joiners);
    assert_eq!(finish(), Ok((2, Some(Position::BothNew))));
    assert_eq!(finish(), Ok((2, Some(Position::BothNew))));
    assert_eq!(advance(&store, Duration::ZERO), (3, Some(Position::New)));
    turn(&store, Way::Back).unwrap();
    let current = store.read_now().unwrap().settings.value.rotation.current.unwrap();
    assert!(!current.finished, "a word holds for one target");
}

#[test]
fn who_is_off_holds_it_up_until_somebody_says_that_nobody_waits() {
    let request = request();
    let (store, joiners) = cluster(&request);
    begin(&store, &request).unwrap();
    arrive(&store, &joiners[..1]);
    assert_eq!(advance(&store, HOLD), (1, Some(Position::BothOld)));
    let without = |names: &[&str]| {
        let names = names.iter().map(|name| name.parse().unwrap()).collect();
        act(&store, |record| decide_rotation_without(record, &names))
    };
    assert!(without(&["nobody"]).unwrap_err().contains("there is no node nobody"));
    assert!(without(&["first", "second"]).unwrap_err().contains("must have the keys"));
    for _ in 0..2 {
        assert_eq!(without(&["third"]), Ok((1, Some(Position::BothOld))));
    }
    assert_eq!(advance(&store, Duration::ZERO), (2, Some(Position::BothNew)));
}

#[test]
fn who_joins_meanwhile_is_waited_for_and_cannot_be_overlooked() {
    let request = request();
    let (store, joiners) = cluster(&request);
    // Its token names the old authority, which is believed still.
    let mut late = Joiner::new(4, "late");
    let (authority, address) = (request.old.fingerprint().unwrap(), "192.0.2.1:7443");
    let addresses = vec![address.parse().unwrap()];
    late.token = JoinToken::new(addresses, authority, sample::secret(4)).unwrap();
    let record = store.read_now().unwrap();
    let spec = crate::protocol::TokenSpec { authority, ..sample::spec(NodeRole::Worker) };
    let token = crate::protocol::decide_add_token(&record, &spec, &sample::secret(4), NOW).unwrap();
    store.apply_now(&token.changes).unwrap();
    begin(&store, &request).unwrap();
    arrive(&store, &joiners);
    let decided = decide_rotation_advance(&store.read_now().unwrap(), NOW);
    say(&store, &late.enter(), &Caller::Stranger);
    assert!(store.apply_now(&decided.changes).is_err(), "it was decided without the joiner");
    assert_eq!(advance(&store, HOLD), (1, Some(Position::BothOld)));
    done(&store, &late.caller(), RotationStep(1));
    assert_eq!(advance(&store, Duration::ZERO), (2, Some(Position::BothNew)));
}

#[test]
fn what_makes_no_sense_does_not_begin() {
    let good = request();
    let (store, _) = cluster(&good);
    let other = certificates("skiff");
    let cut = AuthorityCertificates { cluster: good.new.cluster[..99].into(), ..good.new.clone() };
    let two = good.new.cluster.clone() + &good.old.cluster;
    let two = AuthorityCertificates { cluster: two, ..good.new.clone() };
    let long = "x".repeat(9000);
    let long = AuthorityCertificates { service_account: long, ..good.new.clone() };
    let nameless = ["nobody".parse().unwrap()].into();
    let same_tokens = AuthorityCertificates {
        service_account: good.old.service_account.clone(),
        ..good.new.clone()
    };
    for (request, why) in [
        (RotationRequest { old: other, ..good.clone() }, "is not the one that the cluster has"),
        (RotationRequest { new: good.old.clone(), ..good.clone() }, "are the old ones"),
        (RotationRequest { new: same_tokens, ..good.clone() }, "are the old ones"),
        (RotationRequest { new: cut, ..good.clone() }, "not one certificate"),
        (RotationRequest { new: two, ..good.clone() }, "not one certificate"),
        (RotationRequest { new: long, ..good.clone() }, "too long"),
        (RotationRequest { hold: Duration::HOUR, ..good.clone() }, "70 min to 30 days"),
        (RotationRequest { hold: Duration::days(31), ..good.clone() }, "70 min to 30 days"),
        (RotationRequest { without: nameless, ..good.clone() }, "there is no node nobody"),
    ] {
        let before = store.read_now().unwrap();
        let refused = begin(&store, &request).unwrap_err();
        assert!(refused.contains(why), "{refused}");
        assert_eq!(store.read_now().unwrap(), before);
    }
    let mut record = store.read_now().unwrap();
    record.members.values_mut().next().unwrap().value.release = Version::new(0, 0, 9);
    let refused = decide_rotation_begin(&record, &good, NOW).unwrap_err();
    assert_eq!(refused.code, RefusalCode::ReleasesApart);
    begin(&store, &good).unwrap();
    let second = RotationRequest { new: certificates("skiff 3"), ..good };
    assert!(begin(&store, &second).unwrap_err().contains("being replaced already"));
}

/// What the walk goes over: the target of the record, and of each node where it is, which step it has
/// done, what the record has heard of it, and words of it that are still under way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct World {
    step: u64,
    target: Option<(Position, Way)>,
    nodes: Vec<Walker>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Walker {
    at: Position,
    done: u64,
    heard: Word,
    late: Option<Word>,
}

/// What a node says that it has done; the planted mistake says it as a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Word {
    Step(u64),
    At(Position),
}

/// Targets that are chosen in one walk: on, back and on again, and round.
const STEPS_MAX: u64 = 5;

/// Of so many worlds one is taken to both ends.
const EVERY: usize = 10;

/// Every world that can follow: the record's part is decided by the real functions.
fn follow(world: &World, base: &ClusterRecord, word: fn(&Walker) -> Word) -> Vec<World> {
    let mut all = Vec::new();
    let record = record_of(world, base);
    for way in [Way::On, Way::Back] {
        let turned = decide_rotation_turn(&record, way, CROSSED.as_str(), NOW);
        all.extend(turned.ok().map(|d| after(world, &d)));
    }
    let finished = decide_rotation_finish(&record).ok();
    all.extend(finished.and_then(|finished| advanced(world, base, &finished)));
    all.push(after(world, &decide_rotation_advance(&record, NOW)));
    for n in 0..world.nodes.len() {
        let with = |change: &dyn Fn(&mut Walker)| {
            let mut next = world.clone();
            change(&mut next.nodes[n]);
            next
        };
        if let (Some((target, _)), true) = (world.target, world.nodes[n].done < world.step) {
            all.push(with(&|node| (node.at, node.done) = (target, world.step)));
        }
        let said = word(&world.nodes[n]);
        all.push(with(&|node| node.heard = said));
        // One word of each is kept back at a time, for as long as it likes, and comes repeatedly.
        if world.nodes[n].late.is_none() {
            all.push(with(&|node| node.late = Some(said)));
        }
        if let Some(late) = world.nodes[n].late {
            all.push(with(&|node| node.heard = late));
        }
    }
    all.retain(|next| next.step <= STEPS_MAX && next != world);
    all
}

/// The record that `world` tells of, with `base`'s certificates and members.
fn record_of(world: &World, base: &ClusterRecord) -> ClusterRecord {
    let mut record = base.clone();
    let rotation = &mut record.settings.value.rotation;
    rotation.step = RotationStep(world.step);
    match world.target {
        Some((target, way)) => {
            let current = rotation.current.as_mut().unwrap();
            (current.target, current.way) = (target, way);
        }
        None => rotation.current = None,
    }
    for (member, node) in record.members.values_mut().zip(&world.nodes) {
        let is_there = match node.heard {
            Word::Step(step) => step == world.step,
            Word::At(at) => world.target.is_some_and(|(target, _)| target == at),
        };
        member.value.rotation.step = RotationStep(if is_there { world.step } else { 0 });
    }
    record
}

fn after(world: &World, decision: &Decision) -> World {
    let mut next = world.clone();
    if let Some(settings) = settings_of(decision) {
        let rotation = &settings.rotation;
        next.step = rotation.step.0;
        next.target = rotation.current.as_ref().map(|current| (current.target, current.way));
    }
    next
}

/// The hold ends, and the keeper goes on.
fn advanced(world: &World, base: &ClusterRecord, finished: &Decision) -> Option<World> {
    let mut record = record_of(world, base);
    record.settings.value = settings_of(finished)?;
    Some(after(world, &decide_rotation_advance(&record, NOW)))
}

fn settings_of(decision: &Decision) -> Option<ClusterSettings> {
    decision.changes.iter().find_map(|change| match change {
        Change::PutSettings { settings, .. } => Some((**settings).clone()),
        _ => None,
    })
}

/// Two that do not believe each other, if there are.
fn strangers(world: &World) -> Option<(Position, Position)> {
    let at = |n: usize| world.nodes[n].at;
    let believes = |one: Position, other: Position| one.believes().contains(&other.signs());
    let pairs = (0..world.nodes.len()).flat_map(|n| (0..n).map(move |m| (at(n), at(m))));
    pairs.into_iter().find(|(one, other)| !believes(*one, *other) || !believes(*other, *one))
}

/// Whether two do not believe each other, or it is over and not all are at one end.
fn is_broken(world: &World) -> bool {
    let first = world.nodes[0].at;
    let is_mixed = world.nodes.iter().any(|node| node.at != first);
    strangers(world).is_some() || (world.target.is_none() && is_mixed)
}

/// When everybody does and says what is to be done: where all are at last.
fn end(mut world: World, base: &ClusterRecord, way: Way) -> Option<Position> {
    if let Ok(turned) = decide_rotation_turn(&record_of(&world, base), way, CROSSED.as_str(), NOW) {
        world = after(&world, &turned);
    }
    for _ in 0..Position::ALL.len() {
        let Some((target, _)) = world.target else { break };
        for node in &mut world.nodes {
            (node.at, node.done, node.heard) = (target, world.step, Word::Step(world.step));
        }
        let record = record_of(&world, base);
        world = match decide_rotation_finish(&record) {
            Ok(finished) => advanced(&world, base, &finished)?,
            Err(_) => after(&world, &decide_rotation_advance(&record, NOW)),
        };
    }
    let first = world.nodes.first()?.at;
    (world.target.is_none() && !is_broken(&world)).then_some(first)
}

/// Goes everywhere. The number of worlds with the ends that were seen, or one that is broken.
fn walk(word: fn(&Walker) -> Word) -> Result<(usize, HashSet<Position>), World> {
    let request = request();
    let (store, _) = cluster(&request);
    begin(&store, &request).unwrap();
    let mut base = store.read_now().unwrap();
    base.members.pop_last();
    let node = Walker { at: Position::Old, done: 0, heard: Word::Step(0), late: None };
    let target = Some((Position::BothOld, Way::On));
    let first = World { step: 1, target, nodes: vec![node; base.members.len()] };
    let (mut seen, mut ends) = (HashSet::from([first.clone()]), HashSet::new());
    let mut next = VecDeque::from([first]);
    while let Some(world) = next.pop_front() {
        if is_broken(&world) {
            return Err(world);
        }
        match world.target {
            None => ends.extend(world.nodes.iter().map(|node| node.at)),
            Some(_) if seen.len() % EVERY == 0 => {
                assert_eq!(end(world.clone(), &base, Way::On), Some(Position::New), "{world:?}");
                assert_eq!(end(world.clone(), &base, Way::Back), Some(Position::Old), "{world:?}");
            }
            Some(_) => {}
        }
        for world in follow(&world, &base, word) {
            if seen.insert(world.clone()) {
                next.push_back(world);
            }
        }
    }
    Ok((seen.len(), ends))
}

#[test]
fn wherever_it_turns_round_all_nodes_believe_each_other_and_it_ends_whole() {
    let (worlds, ends) = walk(|node| Word::Step(node.done)).unwrap_or_else(|world| {
        panic!("{:?} do not believe each other in {world:?}", strangers(&world))
    });
    assert!(worlds > 1000, "{worlds} worlds are not all that can happen");
    assert_eq!(ends, HashSet::from([Position::Old, Position::New]));
}

#[test]
fn a_word_that_tells_a_position_instead_of_a_step_is_found_to_be_a_mistake() {
    assert!(walk(|node| Word::At(node.at)).is_err());
}

#[test]
fn a_node_takes_up_no_step_that_it_has_done_or_gone_beyond() {
    let request = request();
    let (store, _) = cluster(&request);
    begin(&store, &request).unwrap();
    let rotation = store.read_now().unwrap().settings.value.rotation;
    let works: BTreeMap<u64, bool> =
        (0..3).map(|own| (own, rotation.work(RotationStep(own)).is_some())).collect();
    assert_eq!(works, [(0, true), (1, false), (2, false)].into());
}
