//! Measures a node with a peer beside it, in one run: the same kube binary as upstream's five
//! separate programs, with etcd and containerd, started by readiness.
//!
//! Comes in: what a build leaves in `target`. Goes out: a table with both figures and their ratio,
//! and the same as JSON in `target/bench`. Nothing is asserted here: machines are noisy, and a
//! ratio is for a person to judge.

mod client;
mod command_latency;
mod dns;
mod figure;
mod peer;
mod pod_start;
mod process;
mod size;
mod soak;
mod subject;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use clap::{Args, Parser, Subcommand};
use harness::{Network, NodeOptions, TestNode, cannot_run_nodes};

use figure::{Report, Side};
use peer::Peer;
use subject::Subject;

#[derive(Parser)]
#[command(about = "Measure a node and, beside it, its peer")]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Start, memory, processor, disk, pod start, command latency, size
    Node(NodeArguments),
    /// A node inside a memory control group, under use
    Soak(soak::Arguments),
}

#[derive(Args, Clone, Debug)]
struct NodeArguments {
    /// Starts of each side, one after the other
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Seconds of idling after DNS answers, before memory is read
    #[arg(long, default_value_t = 60)]
    settle: u64,
    /// Seconds of idling over which processor time and writes are counted
    #[arg(long, default_value_t = 300)]
    idle: u64,
    /// Pods that are started one after the other
    #[arg(long, default_value_t = 50)]
    pods: usize,
    /// Runs of each command
    #[arg(long, default_value_t = 100)]
    commands: usize,
    /// One round and short times: shows that it works, not how fast it is
    #[arg(long)]
    short: bool,
    /// Measure the node alone
    #[arg(long)]
    skip_peer: bool,
}

fn main() -> ExitCode {
    if cannot_run_nodes() {
        return ExitCode::FAILURE;
    }
    let outcome = match Arguments::parse().verb {
        Verb::Node(arguments) => measure(&arguments),
        Verb::Soak(arguments) => soak::run(&arguments),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn measure(arguments: &NodeArguments) -> Result<()> {
    let mut arguments = arguments.clone();
    if arguments.short {
        let short = NodeArguments { rounds: 1, settle: 20, idle: 30, pods: 10, ..arguments };
        arguments = NodeArguments { commands: 20, ..short };
    }
    ensure!(arguments.rounds > 0, "at least one round");
    let network = Network::new();
    let mut report = Report::default();
    let peer = if arguments.skip_peer { None } else { Some(Peer::prepare(&network)?) };
    for round in 1..=arguments.rounds {
        let last = round == arguments.rounds;
        step(&format!("round {round}: skiff"));
        let node = TestNode::new(&network, "alpha", &NodeOptions::default());
        one_side(Side::Skiff, &node, last, &arguments, &mut report)?;
        if last {
            command_latency::measure(&node, arguments.commands, &mut report);
        }
        drop(node);
        if let Some(peer) = &peer {
            step(&format!("round {round}: peer"));
            let outcome = one_side(Side::Peer, peer, last, &arguments, &mut report);
            if outcome.is_err() {
                peer.keep_logs();
            }
            peer.stop();
            outcome?;
        }
    }
    drop(peer);
    size::measure(&mut report);
    report.print();
    report.save()
}

/// Starts one side; in the last round everything else is measured, too.
fn one_side(
    side: Side,
    subject: &dyn Subject,
    everything: bool,
    arguments: &NodeArguments,
    report: &mut Report,
) -> Result<()> {
    let begun = Instant::now();
    subject.begin()?;
    client::wait_node_ready(subject)?;
    report.add("start to node Ready, s", side, begun.elapsed().as_secs_f64());
    subject.enable_dns()?;
    dns::wait_answer(subject)?;
    report.add("start to DNS answering, s", side, begun.elapsed().as_secs_f64());
    if !everything {
        return Ok(());
    }
    step("settling");
    std::thread::sleep(Duration::from_secs(arguments.settle));
    let all = process::beneath(subject.root());
    process::report_memory(side, &all, report);
    step("idling");
    process::report_idle(side, subject.root(), Duration::from_secs(arguments.idle), report);
    step("starting pods");
    pod_start::measure(side, subject, arguments.pods, report)
}

fn step(what: &str) {
    eprintln!("==> {what}");
}
