//! Joining, leaving and removal are walked step by step, and at each step somebody is killed: the
//! command, everything of the node that comes or goes, or whoever decides. What comes of it is done or
//! undone, and never half. Long form: `make soak --only walks`.

use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};
use std::{fs, thread};

use harness::{Network, NodeOptions, TestNode, cannot_run_nodes, eventually, skiff_binary};

use crate::control_plane::{settle, write};
use crate::leave::{begin as begin_leave, is_empty, stays};
use crate::place::{
    READY_TIMEOUT, add_control_plane, add_node, begin_join, control_plane, join, kill, member,
    nodes, skiffd, wait_ready,
};

const BOUND: Duration = Duration::from_secs(120);
/// Between two looks at how far somebody is.
const LOOK_PAUSE: Duration = Duration::from_micros(500);
/// How long after it began a removal is cut off, in milliseconds: it leaves no mark on every step.
const REMOVAL_MS: [u64; 6] = [0, 5, 20, 60, 150, 400];

/// Who is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victim {
    Command,
    /// Everything of the node that comes or goes: its machine has lost power for a moment.
    Node,
    /// skiffd where it is decided.
    Decider,
    /// Everything there.
    DecidersMachine,
}

const EVERYBODY: [Victim; 4] =
    [Victim::Command, Victim::Node, Victim::Decider, Victim::DecidersMachine];

/// How far somebody is, by what lies on the node's disk or who listens there.
type Mark = (&'static str, fn(&TestNode, u32) -> bool);

const JOINING: [Mark; 5] = [
    ("it asks", |_, command| listens(command, 10250)),
    ("before it enters", |node, _| node.root().join("node/join.json").exists()),
    ("it has entered", |node, _| node.root().join("node/membership.json").exists()),
    ("its daemons start", |node, _| node.root().join("run/skiffd.sock").exists()),
    ("it is a member", |node, _| says(node, "node/membership.json", "\"stage\": \"member\"")),
];
/// Of a control-plane node besides.
const JOINING_THE_DATASTORE: Mark =
    ("its datastore serves", |node, _| node.root().join("run/datastore/datastore.sock").exists());
const LEAVING: [Mark; 5] = [
    ("it says that it leaves", |node, _| says(node, "node/leave.json", "\"moving\"")),
    ("it is out of service", |node, _| says(node, "node/leave.json", "\"cordoned\": true")),
    ("there is no way back", |node, _| says(node, "node/leave.json", "\"going\"")),
    ("the cluster has let it go", |node, _| says(node, "node/leave.json", "\"gone\"")),
    ("its state goes", |node, _| !node.root().join("node/membership.json").exists()),
];

#[test]
fn a_worker_that_comes_goes_or_is_removed_is_done_or_undone_whoever_dies() {
    if cannot_run_nodes() {
        return;
    }
    let network = Network::new();
    let alpha = control_plane(&network, "alpha");
    let beta = TestNode::new(&network, "beta", &NodeOptions::default());
    let walk = Walk { alpha: &alpha, others: &[], node: &beta, is_worker: true };
    walk.joins(JOINING[1], Victim::Decider);
    walk.joins(JOINING[3], Victim::Node);
    walk.leaves(LEAVING[2], Victim::DecidersMachine);
    walk.is_removed(Duration::from_millis(5), Victim::Decider);
}

#[test]
fn every_step_of_a_worker_is_done_or_undone_whoever_dies() {
    if is_short("workers") {
        return;
    }
    let network = Network::new();
    let alpha = control_plane(&network, "alpha");
    let beta = TestNode::new(&network, "beta", &NodeOptions::default());
    Walk { alpha: &alpha, others: &[], node: &beta, is_worker: true }.every_step();
}

#[test]
fn every_step_of_a_control_plane_node_is_done_or_undone_whoever_dies() {
    if is_short("control-plane nodes") {
        return;
    }
    let network = Network::new();
    let alpha = control_plane(&network, "alpha");
    let beta = member(&network, &alpha, "beta");
    let gamma = TestNode::new(&network, "gamma", &NodeOptions::default());
    Walk { alpha: &alpha, others: &[&beta], node: &gamma, is_worker: false }.every_step();
}

fn is_short(who: &str) -> bool {
    let is_short = std::env::var_os("SKIFF_TEST_WALKS").is_none();
    if is_short {
        println!("skipped: every step of {who}; `make soak --only walks` runs it");
    }
    is_short || cannot_run_nodes()
}

/// A node that comes and goes, where alpha decides.
struct Walk<'a> {
    alpha: &'a TestNode,
    /// Control-plane nodes that stay.
    others: &'a [&'a TestNode],
    node: &'a TestNode,
    is_worker: bool,
}

impl Walk<'_> {
    /// All of them, or those of one kind.
    fn every_step(&self) {
        let asked = std::env::var("SKIFF_TEST_WALKS").unwrap_or_default();
        let wanted = |kind: &str| asked == "full" || asked == kind;
        let datastore = (!self.is_worker).then_some(JOINING_THE_DATASTORE);
        for mark in JOINING.into_iter().chain(datastore).filter(|_| wanted("join")) {
            EVERYBODY.into_iter().for_each(|victim| self.joins(mark, victim));
        }
        for mark in LEAVING.into_iter().filter(|_| wanted("leave")) {
            EVERYBODY.into_iter().for_each(|victim| self.leaves(mark, victim));
        }
        for after_ms in REMOVAL_MS.into_iter().filter(|_| wanted("remove")) {
            for victim in [Victim::Decider, Victim::DecidersMachine, Victim::Command] {
                self.is_removed(Duration::from_millis(after_ms), victim);
            }
        }
        if !self.is_worker && wanted("roles") {
            self.changes_roles();
        }
    }

    /// A join that is cut off there comes to a member, or to nothing on either side and a token that
    /// is good.
    fn joins(&self, (step, is_there): Mark, victim: Victim) {
        let begun = Instant::now();
        self.goes();
        let mut line = self.line();
        self.is_gone();
        let mut child = begin_join(self.node, &line);
        let reached = wait_until(&mut child, |command| is_there(self.node, command));
        self.kill(victim, &mut child);
        let ended = end(child);
        // From then on the token is used, whatever becomes of the node.
        let is_member = says(self.node, "node/membership.json", "\"stage\": \"member\"");
        let outcome = match (ended, stands(self.node)) {
            (Some(0), _) => "done at once",
            (_, Stand::Nothing) => "undone at once",
            (_, Stand::Line) => {
                self.node.skiff(&["reset", "--yes"]).must();
                "undone by reset"
            }
            // Whoever has it goes on by a start, or gives it up.
            (_, Stand::Membership) if victim == Victim::Command => {
                self.node.skiff(&["reset", "--yes"]).must();
                "undone by reset"
            }
            (_, Stand::Membership) => {
                self.node.start();
                "done by start"
            }
        };
        if outcome.starts_with("undone") {
            self.is_gone();
            if is_member {
                line = self.line();
            }
            join(self.node, &line).must();
        }
        self.is_member();
        tell("join", step, reached, victim, outcome, begun);
    }

    /// A leave that is cut off there comes to a member in service, or to nothing.
    fn leaves(&self, (step, is_there): Mark, victim: Victim) {
        let begun = Instant::now();
        self.comes();
        let mut child = begin_leave(self.node);
        let reached = wait_until(&mut child, |command| is_there(self.node, command));
        self.kill(victim, &mut child);
        end(child);
        if victim == Victim::Node && self.node.root().join("node/membership.json").exists() {
            let started = self.node.skiff(&["start", "--timeout", READY_TIMEOUT]);
            if !started.ok() {
                assert!(started.stderr.contains("skiff leave"), "{}", started.stderr);
                self.node.skiff(&["leave", "--yes", "--timeout", "0"]).must();
            }
        } else if victim == Victim::Node {
            // What is left of a node that was just removing itself.
            self.node.skiff(&["reset", "--yes"]);
        }
        let outcome = eventually("it is done or undone", BOUND, || {
            match (stays(self.alpha, self.node), is_empty(self.node)) {
                (Ok(()), _) => Ok("undone"),
                (_, Ok(())) => Ok("done"),
                other => Err(format!("{other:?}")),
            }
        });
        if outcome == "undone" {
            self.is_member();
            self.node.skiff(&["leave", "--yes", "--timeout", "0"]).must();
        }
        self.is_gone();
        tell("leave", step, reached, victim, outcome, begun);
    }

    /// A removal that is cut off so much later leaves the member that it was, or nothing of it.
    fn is_removed(&self, after: Duration, victim: Victim) {
        let begun = Instant::now();
        self.comes();
        let mut command = self.alpha.command(skiff_binary());
        command.args(["remove-node", self.node.name(), "--force"]);
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let mut child = child.expect("the command is started");
        thread::sleep(after);
        let reached = child.try_wait().expect("it is ours").is_none();
        self.kill(victim, &mut child);
        end(child);
        let outcome = eventually("it is done or undone", BOUND, || {
            match (self.try_is_member(), self.try_is_forgotten()) {
                (Ok(()), _) => Ok("undone"),
                (_, Ok(())) => Ok("done"),
                other => Err(format!("{other:?}")),
            }
        });
        if outcome == "undone" {
            self.alpha.skiff(&["remove-node", self.node.name(), "--force"]).must();
        }
        self.node.skiff(&["reset", "--yes", "--force"]).must();
        self.is_gone();
        let step = format!("{} ms after it began", after.as_millis());
        tell("remove", &step, reached, victim, outcome, begun);
    }

    /// Two members become voters when the third one comes, and one stops voting when it goes. Who leads
    /// and who is promoted are killed at each role that is seen.
    fn changes_roles(&self) {
        let all: Vec<&TestNode> = [self.alpha]
            .into_iter()
            .chain(self.others.iter().copied())
            .chain([self.node])
            .collect();
        let names: Vec<&str> = all.iter().map(|node| node.name()).collect();
        for role in ["spare", "stand-by", "voter"] {
            for leader in [true, false] {
                let begun = Instant::now();
                self.goes();
                self.is_gone();
                let child = begin_join(self.node, &self.line());
                let reached = self.has_role(role);
                let lead = names.iter().position(|name| {
                    role_of(self.alpha, name).is_some_and(|found| found == "leader")
                });
                let victim = match leader {
                    true => all[lead.unwrap_or(0)],
                    false => self.node,
                };
                kill(victim.pid("datastore"));
                assert_eq!(end(child), Some(0), "the join goes on");
                settle(self.alpha, &names);
                for node in &all {
                    eventually("it is written to", BOUND, || write(node, "walk"));
                }
                let outcome = if leader { "three vote, leader killed" } else { "three vote" };
                tell("promotion", role, reached, Victim::Node, outcome, begun);

                // Downwards, too.
                let mut child = begin_leave(self.node);
                wait_until(&mut child, |_| role_of(self.alpha, self.node.name()).is_none());
                kill(self.others[0].pid("datastore"));
                end(child);
                eventually("it has left", BOUND, || is_empty(self.node));
                eventually("one of two votes", BOUND, || {
                    let found = nodes(self.alpha)?;
                    let of = |role| {
                        found.iter().filter(|n| n.datastore.as_deref() == Some(role)).count()
                    };
                    match (of("leader"), of("voter"), found.len()) {
                        (1, 0, 2) => Ok(()),
                        other => Err(format!("{other:?}")),
                    }
                });
            }
        }
    }

    /// Whether the node is seen in that role before all vote.
    fn has_role(&self, role: &str) -> bool {
        let begun = Instant::now();
        while begun.elapsed() < BOUND {
            match role_of(self.alpha, self.node.name()) {
                Some(found) if found == role => return true,
                Some(found) if found == "voter" || found == "leader" => return false,
                _ => thread::sleep(LOOK_PAUSE),
            }
        }
        panic!("{} does not become a voter", self.node.name());
    }

    fn line(&self) -> Vec<String> {
        match self.is_worker {
            true => add_node(self.alpha, &[]),
            false => add_control_plane(self.alpha),
        }
    }

    /// It is a member, as before each leave and each removal.
    fn comes(&self) {
        if let Stand::Nothing = stands(self.node) {
            join(self.node, &self.line()).must();
        }
        self.is_member();
    }

    /// A member of before takes leave.
    fn goes(&self) {
        if let Stand::Membership = stands(self.node) {
            self.node.skiff(&["reset", "--yes"]).must();
        }
    }

    fn kill(&self, victim: Victim, command: &mut Child) {
        let end = |command: &mut Child| {
            // It may have ended by itself.
            let _ = command.kill();
        };
        match victim {
            Victim::Command => end(command),
            Victim::Node => {
                end(command);
                self.node.power_off();
                self.node.set_link("up");
            }
            Victim::Decider => {
                kill(skiffd(self.alpha));
                self.alpha.start();
            }
            Victim::DecidersMachine => {
                self.alpha.power_off();
                self.alpha.set_link("up");
                self.alpha.start();
            }
        }
    }

    fn is_member(&self) {
        wait_ready(self.alpha, self.node.name(), BOUND);
        eventually("it is whole", BOUND, || self.try_is_member());
    }

    /// By the record, by Kubernetes, and by the datastore.
    fn try_is_member(&self) -> Result<(), String> {
        stays(self.alpha, self.node)?;
        let role = role_of(self.alpha, self.node.name());
        match (self.is_worker, role.as_deref()) {
            (true, None) | (false, Some("leader" | "voter" | "stand-by" | "spare")) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    }

    /// Nobody knows it, by none of these.
    fn try_is_forgotten(&self) -> Result<(), String> {
        let name = self.node.name();
        let found = nodes(self.alpha)?;
        if found.iter().any(|node| node.name == name) {
            return Err(format!("{found:?}"));
        }
        let names = self.alpha.kubectl(&["get", "nodes", "--output", "name"]);
        if !names.ok() || names.stdout.contains(name) {
            return Err(format!("{names:?}"));
        }
        let socket = self.alpha.root().join("run/datastore/datastore.sock");
        let socket = format!("unix:{}", socket.display());
        let asked = ["datastore", "status", "--endpoints", &socket, "--output", "json"];
        let said = self.alpha.skiff(&asked).stdout;
        let report: serde_json::Value =
            serde_json::from_str(&said).map_err(|error| error.to_string())?;
        match report["members"].as_array().map(Vec::len) {
            Some(count) if count == 1 + self.others.len() => Ok(()),
            other => Err(format!("{other:?} members of the datastore")),
        }
    }

    /// There is nothing of it, on either side.
    fn is_gone(&self) {
        let _ = fs::remove_dir_all(self.node.root().join("failed-join"));
        eventually("nothing of it is left", BOUND, || is_empty(self.node));
        eventually("nobody knows it", BOUND, || self.try_is_forgotten());
    }
}

/// What lies on the disk of a join.
enum Stand {
    Nothing,
    Line,
    Membership,
}

fn stands(node: &TestNode) -> Stand {
    let is_there = |name: &str| node.root().join("node").join(name).exists();
    match (is_there("membership.json"), is_there("join.json")) {
        (true, _) => Stand::Membership,
        (false, true) => Stand::Line,
        (false, false) => Stand::Nothing,
    }
}

fn role_of(on: &TestNode, name: &str) -> Option<String> {
    nodes(on).ok()?.into_iter().find(|node| node.name == name)?.datastore
}

fn says(node: &TestNode, file: &str, words: &str) -> bool {
    fs::read_to_string(node.root().join(file)).is_ok_and(|text| text.contains(words))
}

/// Whether somebody listens on that port in the network of a process.
fn listens(pid: u32, port: u16) -> bool {
    let wanted = format!(":{port:04X} ");
    ["tcp", "tcp6"].iter().any(|table| {
        let path = Path::new("/proc").join(pid.to_string()).join("net").join(table);
        let text = fs::read_to_string(path).unwrap_or_default();
        let listening = |line: &&str| line.split_whitespace().nth(3) == Some("0A");
        text.lines().filter(listening).any(|line| line.contains(&wanted))
    })
}

/// Waits until it is so; false when the command ended before.
fn wait_until(child: &mut Child, is_so: impl Fn(u32) -> bool) -> bool {
    let begun = Instant::now();
    while begun.elapsed() < BOUND {
        if is_so(child.id()) {
            return true;
        }
        if child.try_wait().expect("it is ours").is_some() {
            return false;
        }
        thread::sleep(LOOK_PAUSE);
    }
    panic!("the step is not reached and the command does not end");
}

/// The code with which a command ended; none when it was killed.
fn end(mut child: Child) -> Option<i32> {
    eventually("the command ends", BOUND, || match child.try_wait() {
        Ok(Some(status)) => Ok(status.code()),
        other => Err(format!("{other:?}")),
    })
}

fn tell(what: &str, step: &str, reached: bool, victim: Victim, outcome: &str, begun: Instant) {
    let reached = if reached { "" } else { " (it was over before)" };
    let seconds = begun.elapsed().as_secs_f64();
    println!("{what}, {step}{reached}, {victim:?} killed: {outcome}; {seconds:.1} s");
}
