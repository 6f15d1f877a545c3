use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};

use x509_parser::pem::Pem;

use super::*;
use crate::record::{MemberState, NodeRole, Revision};
use crate::sample::{self, Joiner, RELEASE, TestSigner};
use crate::store::MemoryStore;

/// A clock that a test sets, in seconds after the sample's.
#[derive(Clone, Default)]
struct TestClock(Arc<AtomicI64>);

impl Clock for TestClock {
    fn now(&self) -> OffsetDateTime {
        sample::NOW + time::Duration::seconds(self.0.load(Ordering::Relaxed))
    }
}

type TestDesk<S> = Desk<S, TestSigner, TestClock>;

/// A store whose changes fail in ways that real ones do.
#[derive(Clone, Default)]
struct Faulty {
    inner: Arc<MemoryStore>,
    /// Changes that are still to collide.
    collisions: Arc<AtomicUsize>,
    /// Whether the next change is made and its answer lost.
    loses_answer: Arc<AtomicBool>,
    /// What somebody else does while nobody knows the outcome.
    meanwhile: Arc<std::sync::Mutex<Vec<Vec<Change>>>>,
    is_away: Arc<AtomicBool>,
}

impl Store for Faulty {
    fn read(&self) -> impl Future<Output = Result<ClusterRecord, StoreError>> + Send {
        let away = self.is_away.load(Ordering::Relaxed);
        let read = self.inner.read_now();
        async move {
            // Somebody else has the time to change what was read.
            tokio::task::yield_now().await;
            if away { Err(StoreError::Unavailable("no leader".into())) } else { read }
        }
    }

    async fn apply(&self, changes: &[Change]) -> Result<Revision, StoreError> {
        let counts = |left: usize| left.checked_sub(1);
        if self.collisions.fetch_update(Ordering::Relaxed, Ordering::Relaxed, counts).is_ok() {
            return Err(StoreError::Collided { key: changes[0].key() });
        }
        let applied = self.inner.apply_now(changes);
        match self.loses_answer.swap(false, Ordering::Relaxed) {
            true => {
                for changes in self.meanwhile.lock().unwrap().drain(..) {
                    self.inner.apply_now(&changes).unwrap();
                }
                Err(StoreError::Unknown("the leader changed".into()))
            }
            false => applied,
        }
    }

    fn later_than(
        &self,
        seen: Revision,
    ) -> impl Future<Output = Result<Revision, StoreError>> + Send {
        self.inner.later_than(seen)
    }
}

async fn desk_with(store: Faulty, spec: &TokenSpec) -> TestDesk<Faulty> {
    let desk = Desk::new(store, TestSigner::new(), TestClock::default(), RELEASE);
    desk.found(&sample::settings(), &sample::founder()).await.unwrap();
    desk.add_token(spec, &sample::secret(1)).await.unwrap();
    desk
}

async fn say(desk: &TestDesk<Faulty>, message: &Message, caller: &Caller) -> Answer {
    desk.answer(&message.to_bytes(), caller).await
}

fn entered(answer: Answer) -> Entered {
    match answer {
        Answer::Entered(entered) => *entered,
        other => panic!("{other:?}"),
    }
}

/// Who the certificate says the caller is.
fn caller(entered: &Entered) -> Caller {
    let pem = entered.leaves[0].certificate.as_bytes();
    let der = Pem::iter_from_buffer(pem).next().unwrap().unwrap().contents;
    Caller::of(Some(&der)).unwrap()
}

#[tokio::test]
async fn a_machine_joins_with_certificates_that_are_its_own() {
    let desk = desk_with(Faulty::default(), &sample::spec(NodeRole::Worker)).await;
    let joiner = Joiner::new(1, "alpha");
    let asked = say(&desk, &joiner.ask(), &Caller::Stranger).await;
    let Answer::Asked(asked) = asked else { panic!("{asked:?}") };
    assert_eq!(asked.settings, sample::settings());
    let entered = entered(say(&desk, &joiner.enter(), &Caller::Stranger).await);
    assert_eq!((entered.id, entered.role), (joiner.id(), NodeRole::Worker));
    assert_eq!(entered.sealed, None);
    let names: Vec<_> = entered.members.iter().map(|member| member.name.as_str()).collect();
    assert_eq!(names, ["alpha", "first"]);
    let own = caller(&entered);
    let Caller::Node(identity) = &own else { panic!() };
    assert_eq!(identity.fingerprint, entered.leaves[0].fingerprint);
    assert_eq!(say(&desk, &sample::confirm(), &own).await, Answer::Confirmed {});
    let members = say(&desk, &sample::message(crate::message::Request::Members {}), &own).await;
    let Answer::Members { members, .. } = members else { panic!("{members:?}") };
    assert!(members.iter().all(|member| member.state == MemberState::Member));
    assert!(members.iter().any(|member| member.expires.is_some()), "its certificate's end");
}

#[test]
fn a_certificate_for_something_else_makes_nobody_a_node() {
    assert_eq!(Caller::of(None), Ok(Caller::Stranger));
    let signer = TestSigner::new();
    let refusal = Caller::of(Some(signer.authority.der())).unwrap_err();
    assert_eq!(refusal.code, RefusalCode::NotAllowed);
}

#[tokio::test]
async fn a_control_plane_node_gets_the_keys_sealed() {
    let desk = desk_with(Faulty::default(), &sample::spec(NodeRole::ControlPlane)).await;
    let joiner = Joiner::control_plane(1, "beta");
    let entered = entered(say(&desk, &joiner.enter(), &Caller::Stranger).await);
    assert_eq!(entered.sealed, Some(format!("sealed to {}", sample::RECIPIENT)));
}

#[tokio::test]
async fn a_collision_is_decided_again() {
    let store = Faulty::default();
    let desk = desk_with(store.clone(), &sample::spec(NodeRole::Worker)).await;
    store.collisions.store(COLLISIONS_MAX - 1, Ordering::Relaxed);
    entered(say(&desk, &Joiner::new(1, "alpha").enter(), &Caller::Stranger).await);
}

#[tokio::test]
async fn too_many_collisions_are_refused_as_busy() {
    let store = Faulty::default();
    let desk = desk_with(store.clone(), &sample::spec(NodeRole::Worker)).await;
    store.collisions.store(COLLISIONS_MAX, Ordering::Relaxed);
    let answer = say(&desk, &Joiner::new(1, "alpha").enter(), &Caller::Stranger).await;
    let Answer::Refused(refusal) = answer else { panic!("{answer:?}") };
    assert_eq!(refusal.code, RefusalCode::Busy);
    assert!(refusal.is_passing());
    assert_eq!(sample::uses_left(&desk.record().await.unwrap()), 1);
}

#[tokio::test]
async fn an_unknown_outcome_is_looked_at_and_done_once() {
    let store = Faulty::default();
    let spec = TokenSpec { uses: 2, ..sample::spec(NodeRole::Worker) };
    let (desk, joiner) = (desk_with(store.clone(), &spec).await, Joiner::new(1, "alpha"));
    let lose = || store.loses_answer.store(true, Ordering::Relaxed);
    lose();
    entered(say(&desk, &joiner.enter(), &Caller::Stranger).await);
    assert_eq!(sample::uses_left(&desk.record().await.unwrap()), 1);
    lose();
    assert_eq!(say(&desk, &joiner.undo(), &Caller::Stranger).await, Answer::Undone {});
    assert_eq!(sample::uses_left(&desk.record().await.unwrap()), 2);
    lose();
    desk.add_token(&sample::spec(NodeRole::Worker), &sample::secret(2)).await.unwrap();
    lose();
    desk.revoke_token(sample::secret(2).token_id()).await.unwrap();
    let again = Joiner::new(1, "alpha");
    entered(say(&desk, &again.enter(), &Caller::Stranger).await);
    lose();
    let (name, here) = ("alpha".parse().unwrap(), "first".parse().unwrap());
    let request = RemoveRequest { name, force: false, is_reachable: false, here };
    desk.remove(&request).await.unwrap();
    assert_eq!(sample::uses_left(&desk.record().await.unwrap()), 2);
}

#[tokio::test]
async fn a_removal_of_unknown_outcome_takes_nobody_away_who_came_since() {
    let store = Faulty::default();
    let spec = TokenSpec { uses: 2, ..sample::spec(NodeRole::Worker) };
    let desk = desk_with(store.clone(), &spec).await;
    let (old, mut new) = (Joiner::new(1, "alpha"), Joiner::new(1, "alpha"));
    let own = caller(&entered(say(&desk, &old.enter(), &Caller::Stranger).await));
    say(&desk, &sample::confirm(), &own).await;
    // Another machine under that name, as it is let in once the old one is gone.
    new.applicant.addresses = vec![[192, 0, 2, 200].into()];
    let mut member =
        store.inner.read_now().unwrap().members[&"alpha".parse().unwrap()].value.clone();
    (member.id, member.addresses) = (new.id(), new.applicant.addresses.clone());
    let comes = vec![Change::PutMember { member: Box::new(member), was: None }];
    store.meanwhile.lock().unwrap().push(comes);
    store.loses_answer.store(true, Ordering::Relaxed);
    let (name, here) = ("alpha".parse().unwrap(), "first".parse().unwrap());
    let request = RemoveRequest { name, force: true, is_reachable: false, here };
    let removed = desk.remove(&request).await.unwrap();
    assert!(matches!(removed, Outcome::Removed { id, .. } if id == old.id()), "{removed:?}");
    let record = store.inner.read_now().unwrap();
    assert!(record.member(new.id()).is_some() && record.member(old.id()).is_none());
}

#[tokio::test]
async fn a_record_that_cannot_be_reached_is_said() {
    let store = Faulty::default();
    let desk = desk_with(store.clone(), &sample::spec(NodeRole::Worker)).await;
    store.is_away.store(true, Ordering::Relaxed);
    let answer = say(&desk, &Joiner::new(1, "alpha").ask(), &Caller::Stranger).await;
    let Answer::Refused(refusal) = answer else { panic!("{answer:?}") };
    assert_eq!(refusal.code, RefusalCode::Unavailable);
    assert!(refusal.message.contains("no leader"), "{refusal}");
}

#[tokio::test]
async fn garbage_is_answered_with_a_refusal() {
    let desk = desk_with(Faulty::default(), &sample::spec(NodeRole::Worker)).await;
    for bytes in [&b""[..], b"GET / HTTP/1.1\r\n\r\n", b"{}", b"\xff\x00"] {
        let answer = desk.answer(bytes, &Caller::Stranger).await;
        let Answer::Refused(refusal) = answer else { panic!("{answer:?}") };
        assert_eq!(refusal.code, RefusalCode::Malformed);
    }
}

#[tokio::test]
async fn a_cluster_is_founded_once() {
    let desk = desk_with(Faulty::default(), &sample::spec(NodeRole::Worker)).await;
    let again = desk.found(&sample::settings(), &sample::founder()).await.unwrap_err();
    assert_eq!(again.code, RefusalCode::AlreadyFounded);
}

#[tokio::test]
async fn many_joiners_at_two_desks_spend_a_use_each() {
    const JOINERS: u8 = 20;
    const USES: u32 = 12;
    let store = Faulty::default();
    let spec = TokenSpec { uses: USES, ..sample::spec(NodeRole::Worker) };
    let one = Arc::new(desk_with(store.clone(), &spec).await);
    let other = Desk::new(store, TestSigner::new(), TestClock::default(), RELEASE);
    let desks = [one, Arc::new(other)];
    let joins = (0..JOINERS).map(|number| {
        let desk = desks[usize::from(number % 2)].clone();
        tokio::spawn(async move {
            let mut joiner = Joiner::new(1, &format!("node-{number}"));
            joiner.applicant.addresses = vec![[192, 0, 2, 100 + number].into()];
            // Busy is the only answer after which the same is tried again.
            loop {
                match say(&desk, &joiner.enter(), &Caller::Stranger).await {
                    Answer::Entered(_) => return true,
                    Answer::Refused(refusal) if refusal.is_passing() => {}
                    Answer::Refused(refusal) => {
                        assert_eq!(refusal.code, RefusalCode::TokenUsed);
                        return false;
                    }
                    other => panic!("{other:?}"),
                }
            }
        })
    });
    let joins: Vec<_> = joins.collect();
    let mut entered = 0;
    for join in joins {
        entered += u32::from(join.await.unwrap());
    }
    assert_eq!(entered, USES);
    let record = desks[0].record().await.unwrap();
    assert_eq!(sample::uses_left(&record), 0);
    assert_eq!(record.members.len(), 1 + USES as usize);
}

#[tokio::test]
async fn whoever_waits_for_the_record_is_told_of_a_change_and_has_it_at_once_when_it_was_before() {
    let desk = desk_with(Faulty::default(), &sample::spec(NodeRole::Worker)).await;
    let first = desk.record_later_than(Revision(0)).await.unwrap();
    let id = sample::secret(1).token_id();
    let (later, revoked) =
        tokio::join!(desk.record_later_than(first.revision), desk.revoke_token(id));
    revoked.unwrap();
    assert_ne!(later.unwrap().tokens, first.tokens);
}

#[tokio::test]
async fn the_keeper_takes_away_what_is_over() {
    let store = Faulty::default();
    let clock = TestClock::default();
    let desk = Desk::new(store, TestSigner::new(), clock.clone(), RELEASE);
    desk.found(&sample::settings(), &sample::founder()).await.unwrap();
    let spec = TokenSpec { uses: 3, ..sample::spec(NodeRole::Worker) };
    desk.add_token(&spec, &sample::secret(1)).await.unwrap();
    for (number, name) in ["a", "b", "c"].into_iter().enumerate() {
        let mut joiner = Joiner::new(1, name);
        joiner.applicant.addresses = vec![[192, 0, 2, 100 + number as u8].into()];
        entered(say(&desk, &joiner.enter(), &Caller::Stranger).await);
    }
    clock.0.store(crate::protocol::JOIN_TIME_MAX.whole_seconds(), Ordering::Relaxed);
    assert_eq!(desk.expire().await.unwrap(), 3);
    assert_eq!(desk.expire().await.unwrap(), 0);
    let record = desk.record().await.unwrap();
    assert_eq!((record.members.len(), sample::uses_left(&record)), (1, 3));
}

/// What was told, by its level.
#[derive(Clone, Default)]
struct Told(Arc<std::sync::Mutex<Vec<tracing::Level>>>);

impl tracing::Subscriber for Told {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() <= tracing::Level::INFO
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        self.0.lock().unwrap().push(*event.metadata().level());
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

#[tokio::test]
async fn an_outage_of_the_store_is_told_once_and_so_is_its_end() {
    let store = Faulty::default();
    let desk = desk_with(store.clone(), &sample::spec(NodeRole::Worker)).await;
    let told = Told::default();
    let _told = tracing::subscriber::set_default(told.clone());
    for _ in 0..2 {
        store.is_away.store(true, Ordering::Relaxed);
        for _ in 0..3 {
            assert_eq!(desk.record().await.unwrap_err().code, RefusalCode::Unavailable);
            assert!(desk.expire().await.is_err());
        }
        store.is_away.store(false, Ordering::Relaxed);
        for _ in 0..2 {
            desk.record().await.unwrap();
        }
    }
    use tracing::Level;
    let once = [Level::WARN, Level::INFO];
    assert_eq!(*told.0.lock().unwrap(), [once, once].concat());
}
