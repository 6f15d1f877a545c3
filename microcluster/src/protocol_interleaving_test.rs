//! Several joiners, two desks, a keeper and an administrator, in any order; every message may be
//! said twice, recorded and said again, or cut off by a crash between reading and applying, or
//! between applying and answering. After each step the promises below are looked at.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use time::{Duration, OffsetDateTime};

use super::*;
use crate::message::{LeaveStep, Message};
use crate::record::{MemberState, NodeId, NodeRole};
use crate::sample::{self, Joiner, NOW, RELEASE};
use crate::store::{Change, MemoryStore, StoreError};
use crate::token::TokenId;

/// Joiners; two of them want the same name and two the same address.
const JOINERS: usize = 5;
/// Uses of each of the two tokens: fewer than those who have it.
const USES: u32 = 2;
/// Desks that have read and not yet applied.
const DESKS: usize = 3;

#[derive(Clone, Debug)]
enum Step {
    /// A joiner's message reaches a desk, which reads the record and decides.
    Say {
        desk: usize,
        joiner: usize,
        what: What,
    },
    /// Something that was said before is said again, as it was.
    Replay {
        desk: usize,
        index: prop::sample::Index,
    },
    Remove {
        desk: usize,
        joiner: usize,
    },
    Expire {
        desk: usize,
    },
    Revoke {
        desk: usize,
    },
    /// A desk applies what it had decided and answers.
    Apply {
        desk: usize,
        answer: bool,
    },
    /// A desk dies before it applies.
    Crash {
        desk: usize,
    },
    /// A joiner dies and begins anew, with another key.
    Begin {
        joiner: usize,
    },
    Wait {
        minutes: i64,
    },
}

#[derive(Clone, Copy, Debug)]
enum What {
    Enter,
    Again,
    Confirm,
    Undo,
    UndoOwn,
    Renew,
    Leave(LeaveStep),
}

fn step() -> impl Strategy<Value = Step> {
    let (desk, joiner) = (0..DESKS, 0..JOINERS);
    let what = prop_oneof![
        6 => Just(What::Enter),
        2 => Just(What::Again),
        4 => Just(What::Confirm),
        2 => Just(What::Undo),
        1 => Just(What::UndoOwn),
        2 => Just(What::Renew),
        1 => Just(What::Leave(LeaveStep::Begin)),
        1 => Just(What::Leave(LeaveStep::Finish)),
    ];
    prop_oneof![
        10 => (desk.clone(), joiner.clone(), what)
            .prop_map(|(desk, joiner, what)| Step::Say { desk, joiner, what }),
        4 => (desk.clone(), any::<prop::sample::Index>())
            .prop_map(|(desk, index)| Step::Replay { desk, index }),
        1 => (desk.clone(), joiner.clone()).prop_map(|(desk, joiner)| Step::Remove { desk, joiner }),
        1 => desk.clone().prop_map(|desk| Step::Expire { desk }),
        1 => (0..DESKS * 8).prop_map(|desk| match desk < DESKS {
            true => Step::Revoke { desk },
            false => Step::Expire { desk: desk % DESKS },
        }),
        14 => (desk.clone(), any::<bool>()).prop_map(|(desk, answer)| Step::Apply { desk, answer }),
        1 => desk.prop_map(|desk| Step::Crash { desk }),
        1 => joiner.prop_map(|joiner| Step::Begin { joiner }),
        1 => (1..20i64).prop_map(|minutes| Step::Wait { minutes }),
    ]
}

struct History {
    store: MemoryStore,
    joiners: Vec<Joiner>,
    desks: Vec<Option<Decision>>,
    said: Vec<(Message, Caller)>,
    now: OffsetDateTime,
    /// Nodes that were seen as former ones.
    gone: BTreeSet<NodeId>,
    /// What the promise about uses is computed from: joins that hold a use of a token, and
    /// whether they were confirmed and keep it.
    spent: BTreeMap<NodeId, (TokenId, bool)>,
}

impl History {
    fn new() -> Self {
        let store = sample::store();
        let spec =
            TokenSpec { uses: USES, ttl: Duration::days(2), ..sample::spec(NodeRole::Worker) };
        sample::add_token(&store, &spec, 1);
        sample::add_token(&store, &spec, 2);
        let joiners = (0..JOINERS).map(joiner).collect();
        let desks = (0..DESKS).map(|_| None).collect();
        let (gone, spent) = (BTreeSet::new(), BTreeMap::new());
        Self { store, joiners, desks, said: vec![], now: NOW, gone, spent }
    }

    fn record(&self) -> ClusterRecord {
        self.store.read_now().unwrap()
    }

    fn take(&mut self, step: &Step) {
        match step {
            Step::Say { desk, joiner, what } => {
                let joiner = &mut self.joiners[*joiner];
                joiner.applicant.sent = self.now;
                let message = Message { sent: self.now, ..message(joiner, *what) };
                let caller = match what {
                    What::Enter | What::Undo => Caller::Stranger,
                    _ => joiner.caller(),
                };
                self.said.push((message.clone(), caller.clone()));
                self.decide(*desk, &message, &caller);
            }
            Step::Replay { desk, index } => {
                if self.said.is_empty() {
                    return;
                }
                let (mut message, caller) = self.said[index.index(self.said.len())].clone();
                // Whoever repeats it can say another time, but not sign it.
                message.sent = self.now;
                self.decide(*desk, &message, &caller);
            }
            Step::Remove { desk, joiner } => {
                let name = self.joiners[*joiner].applicant.name.parse().unwrap();
                let here = "first".parse().unwrap();
                let request = RemoveRequest { name, force: true, is_reachable: true, here };
                let decided = decide_remove(&self.record(), &request, self.now);
                self.desks[*desk] = decided.ok();
            }
            Step::Expire { desk } => {
                self.desks[*desk] = Some(decide_expire(&self.record(), self.now));
            }
            Step::Revoke { desk } => {
                let id = sample::token(2).id();
                self.desks[*desk] = decide_revoke_token(&self.record(), id).ok();
            }
            Step::Apply { desk, answer } => self.apply(*desk, *answer),
            Step::Crash { desk } => self.desks[*desk] = None,
            Step::Begin { joiner: number } => self.joiners[*number] = joiner(*number),
            Step::Wait { minutes } => self.now += Duration::minutes(*minutes),
        }
    }

    fn decide(&mut self, desk: usize, message: &Message, caller: &Caller) {
        let record = self.record();
        let decided = decide(&record, message, caller, RELEASE, self.now);
        if let Ok(decision) = &decided {
            assert!(decision.is_guarded());
        }
        self.desks[desk] = decided.ok();
    }

    /// The desk forgets whether it has done it when the answer is lost, and decides anew as soon
    /// as it is asked again.
    fn apply(&mut self, desk: usize, answer: bool) {
        let Some(decision) = self.desks[desk].clone() else { return };
        match self.store.apply_now(&decision.changes) {
            Ok(_) => {
                if !decision.orders.is_empty() {
                    self.a_removed_node_never_gets_a_certificate(&decision);
                }
                if answer {
                    self.desks[desk] = None;
                }
            }
            Err(StoreError::Collided { .. }) => self.desks[desk] = None,
            Err(error) => panic!("{error}"),
        }
    }

    fn a_removed_node_never_gets_a_certificate(&self, decision: &Decision) {
        let record = self.record();
        for order in &decision.orders {
            assert!(!self.gone.contains(&order.id), "{} was removed before", order.id);
            assert!(record.member(order.id).is_some(), "{} is no member", order.id);
        }
    }

    fn check(&mut self) {
        let record = self.record();
        record.check().unwrap();
        self.a_former_node_never_comes_back(&record);
        a_name_and_an_address_never_have_two_members(&record);
        self.a_use_is_never_spent_twice_and_given_back_once(&record);
    }

    fn a_former_node_never_comes_back(&mut self, record: &ClusterRecord) {
        for id in &self.gone {
            assert!(record.member(*id).is_none(), "{id} came back");
            assert!(record.removed.contains_key(id), "{id} was forgotten");
        }
        self.gone.extend(record.removed.keys());
    }

    /// Each node that is joining or was confirmed holds one use, and nobody else does.
    fn a_use_is_never_spent_twice_and_given_back_once(&mut self, record: &ClusterRecord) {
        let first = NodeId::of_key(b"first");
        for node in record.living().filter(|node| node.id != first) {
            let before = self.spent.get(&node.id).copied();
            let (token, confirmed) = match (node.joins_with(), before) {
                (Some(token), before) => {
                    assert!(before.is_none_or(|(_, confirmed)| !confirmed), "joins again");
                    (token, false)
                }
                (None, Some((token, _))) => (token, true),
                (None, None) => panic!("{} was confirmed before it had entered", node.name),
            };
            self.spent.insert(node.id, (token, confirmed));
        }
        // A join that ended without being confirmed holds none any more.
        let living = |id: &NodeId| record.member(*id).is_some();
        self.spent.retain(|id, (_, confirmed)| *confirmed || living(id));
        for (id, token) in &record.tokens {
            let spent = self.spent.values().filter(|(token, _)| token == id).count();
            assert_eq!(USES - token.value.uses_left, spent as u32, "{:?}", self.spent);
        }
    }

    /// Everybody who is still on the way finishes or is forgotten.
    fn end(&mut self) {
        self.desks.fill(None);
        self.now += JOIN_TIME_MAX;
        for _ in 0..=JOINERS * 8 {
            let decision = decide_expire(&self.record(), self.now);
            self.store.apply_now(&decision.changes).unwrap();
            self.check();
        }
        let record = self.record();
        let joins = record.living().any(|node| matches!(node.state, MemberState::Joining { .. }));
        assert!(!joins, "a join neither ended nor was forgotten");
    }
}

fn a_name_and_an_address_never_have_two_members(record: &ClusterRecord) {
    assert_eq!(record.shared_addresses(), BTreeSet::new());
    let names: BTreeSet<_> = record.living().map(|node| &node.name).collect();
    assert_eq!(names.len(), record.members.len());
}

fn joiner(number: usize) -> Joiner {
    // The last two want what others want.
    let name = ["alpha", "beta", "gamma", "alpha", "delta"][number];
    let address = [100, 101, 102, 103, 101][number];
    // Two that collide for an address or a name have different tokens, which cannot collide.
    let seed = [1, 1, 1, 2, 2][number];
    let mut joiner = Joiner::new(seed, name);
    joiner.applicant.addresses = vec![[192, 0, 2, address].into()];
    joiner
}

fn message(joiner: &Joiner, what: What) -> Message {
    match what {
        What::Enter => joiner.enter(),
        What::Again => joiner.enter_again(),
        What::Confirm => sample::confirm(),
        What::Undo => joiner.undo(),
        What::UndoOwn => joiner.undo_own(),
        What::Renew => sample::message(Request::Renew(sample::renew(joiner.requests.clone()))),
        What::Leave(step) => sample::leave(step),
    }
}

fn histories() -> u32 {
    let told = std::env::var("SKIFF_TEST_HISTORIES").ok().and_then(|text| text.parse().ok());
    told.unwrap_or(128)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: histories(), ..ProptestConfig::default() })]

    #[test]
    fn every_interleaving_keeps_every_promise(steps in prop::collection::vec(step(), 1..80)) {
        let mut history = History::new();
        for step in &steps {
            history.take(step);
            history.check();
        }
        history.end();
    }
}

/// The promises are worth something: each planted mistake breaks one of them.
#[test]
fn planted_mistakes_are_found() {
    let broken = |plant: fn(&mut Decision)| {
        let found = std::panic::catch_unwind(|| {
            let mut history = History::new();
            for (joiner, what) in [(0, What::Enter), (0, What::Undo), (0, What::Undo)] {
                history.take(&Step::Say { desk: 0, joiner, what });
                if let Some(decision) = &mut history.desks[0] {
                    plant(decision);
                }
                history.take(&Step::Apply { desk: 0, answer: true });
                history.check();
            }
        });
        found.is_err()
    };
    assert!(!broken(|_| {}));
    // A use that is not counted, a node that is undone and stays, a use that is given back early.
    assert!(broken(|decision| {
        decision.changes.retain(|change| !matches!(change, Change::PutToken { .. }));
    }));
    assert!(broken(|decision| {
        decision.changes.retain(|change| !matches!(change, Change::DeleteMember { .. }));
    }));
    assert!(broken(|decision| {
        for change in &mut decision.changes {
            if let Change::PutToken { token, .. } = change {
                token.uses_left = USES;
            }
        }
    }));
}
