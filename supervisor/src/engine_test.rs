//! Whole lists of commands, and what holds whatever happens.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;
use time::OffsetDateTime;

use crate::daemon::KILL_WAIT;
use crate::spec::{Backoff, DaemonName, DaemonSpec, DaemonSpecBuilder, StopSignal};
use crate::status::{Exit, State};
use crate::{Command, EVENTS_MAX, Engine, Event, Found, Moment, Probe, ProbeTiming, Run};

const STOP_TIMEOUT: Duration = Duration::from_secs(10);

fn spec(name: &str, needs: &[&str]) -> DaemonSpecBuilder {
    let builder = DaemonSpec::builder(name, "/bin/x", "/log")
        .readiness(Probe::UnixConnect("/socket".into()))
        .probe_timing(ProbeTiming {
            start_interval: Duration::from_millis(100),
            ..ProbeTiming::default()
        })
        .stop_timeout(STOP_TIMEOUT);
    needs.iter().fold(builder, |builder, need| builder.needs(*need))
}

/// `b` needs `a`.
fn two() -> Vec<DaemonSpec> {
    vec![spec("a", &[]).build(), spec("b", &["a"]).build()]
}

/// An engine with a clock that the test moves.
struct Node {
    engine: Engine,
    elapsed: Duration,
}

impl Node {
    /// Nothing was left by anybody, nothing is started.
    fn new(specs: Vec<DaemonSpec>) -> Self {
        let mut node = Self { engine: Engine::new(), elapsed: Duration::ZERO };
        let commands = node.say(Event::Reconfigured(specs));
        for command in commands {
            let Command::Clear { name, run } = command else { panic!("{command:?}") };
            assert_eq!(node.say(Event::Cleared { name, run }), []);
        }
        node
    }

    fn moment(&self) -> Moment {
        let wall = OffsetDateTime::UNIX_EPOCH + self.elapsed;
        Moment { elapsed: self.elapsed, wall, jitter: 0.0 }
    }

    fn say(&mut self, event: Event) -> Vec<Command> {
        self.engine.handle(event, &self.moment())
    }

    fn pass(&mut self, time: Duration) -> Vec<Command> {
        self.elapsed += time;
        self.say(Event::Tick)
    }

    fn run(&self, name: &str) -> Run {
        self.engine.run_of(&name.into()).expect("it runs")
    }

    fn spawned(&mut self, name: &str, pid: u32) -> Vec<Command> {
        let run = self.run(name);
        self.say(Event::Spawned { name: name.into(), run, pid })
    }

    fn answers(&mut self, name: &str, answer: Result<(), &str>) -> Vec<Command> {
        let run = self.run(name);
        let answer = answer.map_err(str::to_owned);
        self.say(Event::Probed { name: name.into(), run, answer })
    }

    fn exits(&mut self, name: &str, exit: Exit) -> Vec<Command> {
        let run = self.run(name);
        self.say(Event::Exited { name: name.into(), run, exit, last_log: vec!["last".into()] })
    }

    fn cleared(&mut self, name: &str) -> Vec<Command> {
        let run = self.run(name);
        self.say(Event::Cleared { name: name.into(), run })
    }

    fn become_ready(&mut self, name: &str, pid: u32) -> Vec<Command> {
        self.spawned(name, pid);
        self.pass(Duration::from_millis(100));
        self.answers(name, Ok(()))
    }

    fn states(&self) -> Vec<State> {
        self.engine.snapshot().daemons.iter().map(|daemon| daemon.state).collect()
    }

    fn message(&self, name: &str) -> String {
        self.engine.snapshot().get(name).expect("there").message.clone()
    }
}

/// Both of [`two`] run and are ready.
fn ready() -> Node {
    let mut node = Node::new(two());
    node.say(Event::StartAll);
    node.become_ready("a", 10);
    node.become_ready("b", 20);
    assert_eq!(node.states(), [State::Ready, State::Ready]);
    node
}

fn spawn(name: &str, run: u64) -> Command {
    Command::Spawn { name: name.into(), run: Run(run) }
}

fn signal(name: &str, run: u64) -> Command {
    Command::Signal { name: name.into(), run: Run(run), signal: StopSignal::Term }
}

fn clear(name: &str, run: u64) -> Command {
    Command::Clear { name: name.into(), run: Run(run) }
}

fn probe(name: &str, run: u64) -> Command {
    Command::Probe { name: name.into(), run: Run(run) }
}

#[test]
fn nothing_starts_before_what_was_left_is_cleared() {
    let mut node = Node { engine: Engine::new(), elapsed: Duration::ZERO };
    assert_eq!(node.say(Event::Reconfigured(two())), [clear("a", 1), clear("b", 2)]);
    assert_eq!(node.say(Event::StartAll), []);
    assert_eq!(node.cleared("b"), [], "it needs a");
    assert_eq!(node.cleared("a"), [spawn("a", 3)]);
}

#[test]
fn daemons_start_in_order_of_needs_each_when_the_former_is_ready() {
    let mut node = Node::new(two());
    assert_eq!(node.say(Event::StartAll), [spawn("a", 3)]);
    assert_eq!(node.spawned("a", 10), []);
    assert_eq!(node.states(), [State::Starting, State::Waiting]);
    assert_eq!(node.pass(Duration::from_millis(100)), [probe("a", 3)]);
    assert_eq!(node.answers("a", Err("connection refused")), []);
    assert_eq!(node.message("a"), "waiting for the socket /socket (connection refused)");
    assert_eq!(node.message("b"), "waiting for a (starting)");
    assert_eq!(node.pass(Duration::from_millis(100)), [probe("a", 3)]);
    assert_eq!(node.answers("a", Ok(())), [spawn("b", 4)]);
    assert_eq!(node.states(), [State::Ready, State::Starting]);
}

#[test]
fn all_stop_in_reverse_order() {
    let mut node = ready();
    assert_eq!(node.say(Event::StopAll), [signal("b", 4)]);
    assert_eq!(node.exits("b", Exit::Code(0)), [clear("b", 4)]);
    assert_eq!(node.cleared("b"), [signal("a", 3)]);
    assert_eq!(node.exits("a", Exit::Signal(15)), [clear("a", 3)]);
    assert_eq!(node.cleared("a"), []);
    assert_eq!(node.states(), [State::Stopped, State::Stopped]);
    let failures: Vec<_> = node.engine.snapshot().daemons.into_iter().map(|d| d.failure).collect();
    assert_eq!(failures, [None, None], "a stop that was asked for is no failure");
}

#[test]
fn a_stop_that_takes_too_long_ends_in_a_kill_and_never_holds_up_the_others() {
    let mut node = ready();
    node.say(Event::StopAll);
    assert_eq!(node.pass(STOP_TIMEOUT - Duration::from_millis(1)), [probe("a", 3)]);
    let kill = Command::Kill { name: "b".into(), run: Run(4) };
    assert_eq!(node.pass(Duration::from_millis(1)), [kill]);
    // The kernel holds it: the others stop without it.
    assert_eq!(node.pass(KILL_WAIT), [signal("a", 3)]);
    assert_eq!(node.engine.stuck(&node.moment()), ["b".into()]);
    node.exits("a", Exit::Code(0));
    node.cleared("a");
    assert!(node.engine.all_gone(&node.moment()));
    assert_eq!(node.engine.deadline(&node.moment()), None, "nothing is left to wait for");
}

#[test]
fn one_that_fails_is_started_again_alone_and_later_each_time() {
    let mut node = ready();
    for (failure, delay) in [500, 1000, 2000].into_iter().enumerate() {
        let run = node.run("a");
        assert_eq!(node.exits("a", Exit::Code(1)), [clear("a", run.0)]);
        assert_eq!(node.cleared("a"), []);
        assert_eq!(node.states(), [State::Backoff, State::Ready]);
        node.pass(Duration::from_millis(delay - 1));
        assert_eq!(node.states()[0], State::Backoff, "failure {failure}");
        let commands = node.pass(Duration::from_millis(1));
        assert!(matches!(commands.last(), Some(Command::Spawn { .. })), "{commands:?}");
        node.spawned("a", 11);
    }
    assert_eq!(node.engine.snapshot().get("a").expect("there").restarts, 3);
}

#[test]
fn a_crash_loop_names_its_reason_and_health_forgives_it() {
    let mut node = Node::new(vec![spec("a", &[]).build()]);
    node.say(Event::StartAll);
    for _ in 0..5 {
        node.spawned("a", 10);
        node.pass(Duration::from_millis(300));
        node.exits("a", Exit::Code(7));
        node.cleared("a");
        node.pass(Duration::from_secs(30));
    }
    assert_eq!(node.states(), [State::CrashLoop], "also while it is tried again");
    assert_eq!(node.message("a"), "failed 5 times, last: exit code 7 after 0.3 s");
    let failure = node.engine.snapshot().daemons[0].failure.clone().expect("it failed");
    assert_eq!((failure.count, failure.last_log), (5, vec!["last".to_owned()]));
    node.become_ready("a", 11);
    assert_eq!(node.states(), [State::Ready]);
    node.pass(Backoff::default().reset_after);
    assert_eq!(node.engine.snapshot().daemons[0].failure, None);
    node.exits("a", Exit::Code(7));
    node.cleared("a");
    assert_eq!(node.states(), [State::Backoff], "counted from one again");
}

#[test]
fn one_that_never_becomes_ready_is_ended_and_says_why() {
    let late = spec("a", &[]).start_timeout(Duration::from_secs(5)).build();
    let mut node = Node::new(vec![late]);
    node.say(Event::StartAll);
    node.spawned("a", 10);
    node.pass(Duration::from_millis(100));
    node.answers("a", Err("connection refused"));
    assert_eq!(node.pass(Duration::from_secs(5)), [signal("a", 2)]);
    node.exits("a", Exit::Signal(15));
    node.cleared("a");
    assert_eq!(node.states(), [State::Backoff]);
    assert_eq!(node.message("a"), "not ready for 5 s: the socket /socket: connection refused");
}

#[test]
fn bad_answers_in_a_row_make_it_unready_and_restart_it_only_when_that_is_wished() {
    for unready_timeout in [None, Some(Duration::from_secs(5))] {
        let mut node = Node::new(vec![spec("a", &[]).unready_timeout(unready_timeout).build()]);
        node.say(Event::StartAll);
        node.become_ready("a", 10);
        node.pass(Duration::from_secs(10));
        for state in [State::Ready, State::Ready, State::Unready] {
            node.answers("a", Err("no answer within 2s"));
            assert_eq!(node.states(), [state]);
            assert_eq!(node.pass(Duration::from_secs(1)), [probe("a", 2)]);
        }
        let commands = node.pass(Duration::from_secs(60));
        match unready_timeout {
            None => assert_eq!(commands, []),
            Some(_) => assert_eq!(commands, [signal("a", 2)]),
        }
    }
}

#[test]
fn a_restart_replaces_one_at_once_and_leaves_those_that_need_it() {
    let mut node = ready();
    assert_eq!(node.say(Event::Restart("a".into())), [signal("a", 3)]);
    assert_eq!(node.exits("a", Exit::Code(0)), [clear("a", 3)]);
    assert_eq!(node.cleared("a"), [spawn("a", 5)]);
    assert_eq!(node.states(), [State::Starting, State::Ready]);
    assert_eq!(node.engine.snapshot().daemons[0].restarts, 0);
}

#[test]
fn restarting_all_goes_from_one_to_the_next() {
    let mut node = ready();
    assert_eq!(node.say(Event::RestartAll), [signal("a", 3)]);
    node.exits("a", Exit::Code(0));
    assert_eq!(node.cleared("a"), [spawn("a", 5)]);
    assert_eq!(node.become_ready("a", 11), [signal("b", 4)]);
    node.exits("b", Exit::Code(0));
    assert_eq!(node.cleared("b"), [spawn("b", 6)]);
    assert_eq!(node.become_ready("b", 21), []);
    assert!(node.engine.snapshot().all_ready());
}

#[test]
fn a_stop_of_one_leaves_those_that_need_it() {
    let mut node = ready();
    assert_eq!(node.say(Event::Stop("a".into())), [signal("a", 3)]);
    node.exits("a", Exit::Code(0));
    node.cleared("a");
    assert_eq!(node.states(), [State::Stopped, State::Ready]);
    assert_eq!(node.say(Event::Start("a".into())), [spawn("a", 5)]);
}

#[test]
fn new_specifications_replace_change_add_and_forget() {
    let mut node = ready();
    let specs = vec![
        spec("a", &[]).stop_timeout(Duration::from_secs(1)).build(),
        spec("c", &["a"]).build(),
    ];
    let commands = node.say(Event::Reconfigured(specs));
    assert_eq!(commands, [clear("c", 5), signal("b", 4)], "a is made as before and goes on");
    node.exits("b", Exit::Code(0));
    assert_eq!(node.cleared("b"), [Command::Forget { name: "b".into() }]);
    assert_eq!(node.cleared("c"), [spawn("c", 6)]);
    assert!(!node.engine.contains(&"b".into()));
    let changed = vec![spec("a", &[]).arg("--new").build(), spec("c", &["a"]).build()];
    assert_eq!(node.say(Event::Reconfigured(changed)), [signal("a", 3)]);
}

#[test]
fn what_was_found_goes_on_or_is_replaced_in_order() {
    for same in [true, false] {
        let mut node = Node { engine: Engine::new(), elapsed: Duration::ZERO };
        node.say(Event::Reconfigured(two()));
        let digest = if same { two()[0].digest() } else { "older".into() };
        let run = node.engine.new_run();
        let found = Found { pid: 10, digest, restarts: 4 };
        let commands = node.say(Event::Found { name: "a".into(), run, found });
        let replaced = (!same).then(|| signal("a", 3));
        let expected: Vec<Command> = [probe("a", 3)].into_iter().chain(replaced).collect();
        assert_eq!(commands, expected);
        let status = node.engine.snapshot().daemons[0].clone();
        assert_eq!((status.restarts, status.adopted, status.pid), (4, true, Some(10)));
    }
}

#[test]
fn late_news_of_a_former_process_changes_nothing() {
    let mut node = ready();
    node.say(Event::Restart("a".into()));
    node.exits("a", Exit::Code(0));
    node.cleared("a");
    node.spawned("a", 11);
    let name = DaemonName::from("a");
    let exit = Exit::Code(0);
    let former = Run(3);
    let late = [
        Event::Exited { name: name.clone(), run: former, exit, last_log: vec![] },
        Event::Cleared { name: name.clone(), run: former },
        Event::Probed { name: name.clone(), run: former, answer: Ok(()) },
        Event::Spawned { name, run: former, pid: 99 },
    ];
    let before = node.engine.snapshot();
    for event in late {
        assert_eq!(node.say(event), []);
    }
    assert_eq!(node.engine.snapshot(), before);
}

#[test]
fn the_events_that_are_kept_are_bounded() {
    let mut node = ready();
    for _ in 0..EVENTS_MAX {
        node.exits("a", Exit::Code(1));
        node.cleared("a");
        node.pass(Duration::from_secs(60));
        node.spawned("a", 11);
    }
    assert_eq!(node.engine.snapshot().daemons[0].events.len(), EVENTS_MAX);
}

// --- whatever happens -----------------------------------------------------------------------

/// What a user does and what the world does to daemon number `usize`.
#[derive(Clone, Debug)]
enum Step {
    StartAll,
    StopAll,
    RestartAll,
    Start(usize),
    Stop(usize),
    Restart(usize),
    /// With another argument for each daemon whose bit is set, and without the last daemon when
    /// the second is true.
    Reconfigure(u8, bool),
    Spawned(usize, bool),
    Exit(usize),
    Cleared(usize),
    Probed(usize, bool),
    Pass(u16),
}

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let one = || 0..NAMES.len();
    let step = prop_oneof![
        1 => Just(Step::StartAll),
        1 => Just(Step::StopAll),
        1 => Just(Step::RestartAll),
        1 => one().prop_map(Step::Start),
        1 => one().prop_map(Step::Stop),
        1 => one().prop_map(Step::Restart),
        1 => (0..16_u8, any::<bool>()).prop_map(|(mask, less)| Step::Reconfigure(mask, less)),
        8 => (one(), prop::bool::weighted(0.9)).prop_map(|(d, ok)| Step::Spawned(d, ok)),
        4 => one().prop_map(Step::Exit),
        6 => one().prop_map(Step::Cleared),
        8 => (one(), prop::bool::weighted(0.7)).prop_map(|(d, ok)| Step::Probed(d, ok)),
        6 => (0..20_000_u16).prop_map(Step::Pass),
    ];
    prop::collection::vec(step, 1..120)
}

/// a <- b <- d, a <- c <- d
fn four(mask: u8, less: bool) -> Vec<DaemonSpec> {
    let needs: [&[&str]; 4] = [&[], &["a"], &["a"], &["b", "c"]];
    let count = if less { 3 } else { 4 };
    (0..count)
        .map(|d| spec(NAMES[d], needs[d]).arg(format!("--{}", mask >> d & 1)).build())
        .collect()
}

/// The world as the runtime would see it.
#[derive(Default)]
struct World {
    /// Daemons whose process (or what it left) is there, by run.
    there: BTreeMap<DaemonName, Run>,
    probing: BTreeMap<DaemonName, Run>,
    signalled: usize,
}

impl World {
    fn take(&mut self, node: &Node, commands: &[Command]) {
        for command in commands {
            let name = command.daemon().clone();
            match command {
                Command::Forget { .. } => {
                    assert!(!self.there.contains_key(&name), "forgot {name}, which is there");
                    continue;
                }
                _ => assert!(node.engine.contains(&name), "{command:?} is about nobody"),
            }
            match *command {
                Command::Spawn { run, .. } => {
                    let former = self.there.insert(name.clone(), run);
                    assert_eq!(former, None, "two processes of {name}");
                }
                Command::Clear { run, .. } => {
                    let former = self.there.insert(name.clone(), run);
                    assert!(former.is_none_or(|former| former == run), "cleared another run");
                }
                Command::Signal { run, .. } | Command::Kill { run, .. } => {
                    assert_eq!(self.there.get(&name), Some(&run), "{command:?} reaches nobody");
                    self.signalled += 1;
                }
                Command::Probe { run, .. } => {
                    let former = self.probing.insert(name.clone(), run);
                    assert_ne!(former, Some(run), "asks {name} twice at once");
                }
                Command::Forget { .. } => {}
            }
        }
    }
}

fn perform(node: &mut Node, world: &mut World, step: &Step) {
    let at = |index: &usize| DaemonName::from(NAMES[*index]);
    let event = match step {
        Step::StartAll => Event::StartAll,
        Step::StopAll => Event::StopAll,
        Step::RestartAll => Event::RestartAll,
        Step::Start(d) => Event::Start(at(d)),
        Step::Stop(d) => Event::Stop(at(d)),
        Step::Restart(d) => Event::Restart(at(d)),
        Step::Reconfigure(mask, less) => Event::Reconfigured(four(*mask, *less)),
        Step::Pass(milliseconds) => {
            node.elapsed += Duration::from_millis(u64::from(*milliseconds));
            Event::Tick
        }
        Step::Spawned(d, ok) => {
            let (name, Some(run)) = (at(d), world.there.get(&at(d)).copied()) else { return };
            match ok {
                true => Event::Spawned { name, run, pid: 100 + *d as u32 },
                false => Event::SpawnFailed { name, run, reason: "no room".into() },
            }
        }
        Step::Exit(d) => {
            let (name, Some(run)) = (at(d), world.there.get(&at(d)).copied()) else { return };
            Event::Exited { name, run, exit: Exit::Code(1), last_log: vec![] }
        }
        Step::Cleared(d) => {
            let name = at(d);
            let Some(run) = world.there.get(&name).copied() else { return };
            // The runtime says so only after it was asked to clear.
            if !node.engine.is_clearing(&name) {
                return;
            }
            world.there.remove(&name);
            Event::Cleared { name, run }
        }
        Step::Probed(d, ok) => {
            let (name, Some(run)) = (at(d), world.probing.remove(&at(d))) else { return };
            let answer = if *ok { Ok(()) } else { Err("refused".to_owned()) };
            Event::Probed { name, run, answer }
        }
    };
    let commands = node.say(event);
    world.take(node, &commands);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..Default::default() })]

    #[test]
    fn no_daemon_ever_has_two_processes_and_every_stop_is_bounded(steps in steps()) {
        let mut node = Node { engine: Engine::new(), elapsed: Duration::ZERO };
        let mut world = World::default();
        let commands = node.say(Event::Reconfigured(four(0, false)));
        world.take(&node, &commands);
        for step in &steps {
            perform(&mut node, &mut world, step);
        }
        // From wherever they are: all are gone within the bound, though nobody obeys a signal.
        perform(&mut node, &mut world, &Step::StopAll);
        let levels = 3;
        for _ in 0..levels {
            node.elapsed += STOP_TIMEOUT;
            let commands = node.say(Event::Tick);
            world.take(&node, &commands);
            node.elapsed += KILL_WAIT;
            let commands = node.say(Event::Tick);
            world.take(&node, &commands);
        }
        prop_assert!(node.engine.all_gone(&node.moment()), "{:#?}", node.engine.snapshot());
    }

    #[test]
    fn once_the_world_behaves_all_become_ready(steps in steps()) {
        let mut node = Node { engine: Engine::new(), elapsed: Duration::ZERO };
        let mut world = World::default();
        let commands = node.say(Event::Reconfigured(four(0, false)));
        world.take(&node, &commands);
        for step in &steps {
            perform(&mut node, &mut world, step);
        }
        perform(&mut node, &mut world, &Step::Reconfigure(0, false));
        perform(&mut node, &mut world, &Step::StartAll);
        for _ in 0..60 {
            for (d, text) in NAMES.into_iter().enumerate() {
                let name = DaemonName::from(text);
                let stopping = node.engine.snapshot().get(text).map(|d| d.state)
                    == Some(State::Stopping);
                if stopping && !node.engine.is_clearing(&name) {
                    perform(&mut node, &mut world, &Step::Exit(d));
                }
                perform(&mut node, &mut world, &Step::Cleared(d));
                if node.engine.snapshot().get(text).is_some_and(|d| d.pid.is_none()) {
                    perform(&mut node, &mut world, &Step::Spawned(d, true));
                }
                perform(&mut node, &mut world, &Step::Probed(d, true));
            }
            perform(&mut node, &mut world, &Step::Pass(2_000));
        }
        prop_assert!(node.engine.snapshot().all_ready(), "{:#?}", node.engine.snapshot());
    }
}
