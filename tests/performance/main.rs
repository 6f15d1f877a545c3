//! Figures of one node, with a peer's beside them, and the life of a node in little memory.
//!
//! Prints and asserts nothing. `cargo xtask bench` and `cargo xtask soak` build what this needs
//! and run it; docs/how-to/measure.md says what the figures mean.

mod commands;
mod group;
mod idle;
mod namespace;
mod ours;
mod peer;
mod pods;
mod processes;
mod report;
mod size;
mod soak;
mod start;
mod subject;

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::{Parser, ValueEnum};
use harness::{cannot_run_nodes, distribution, skiff_binary, target};
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};

use namespace::is_interrupted;
use report::{Measured, Report};
use subject::{Subject, Wanted};

#[derive(Parser)]
enum Cli {
    /// Measure a node and its peer
    Figures(Arguments),
    /// Watch a node live in little memory
    Soak(soak::Arguments),
}

#[derive(clap::Args, Debug)]
struct Arguments {
    /// How often both are started, in turns
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// One round and short looks
    #[arg(long)]
    short: bool,
    /// Only these figures
    #[arg(long, value_delimiter = ',')]
    only: Vec<Part>,
    /// Measure Skiff alone
    #[arg(long)]
    skip_peer: bool,
    /// Also write everything that was measured to target/bench/figures.json
    #[arg(long)]
    output: Option<Output>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    Start,
    Memory,
    Cpu,
    Pods,
    Commands,
    Size,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    Json,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    if cannot_run_nodes() {
        return ExitCode::FAILURE;
    }
    let outcome = namespace::catch_signals().and_then(|()| match cli {
        Cli::Figures(arguments) => figures(&arguments),
        Cli::Soak(arguments) => soak::run(&arguments),
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn figures(arguments: &Arguments) -> Result<()> {
    let mut report =
        Report { machine: report::machine(), short: arguments.short, ..Report::default() };
    let outcome = measure(arguments, &mut report);
    // What was measured before a failure is shown all the same.
    print!("{}", report.text());
    if arguments.output == Some(Output::Json) {
        let folder = target().join("bench");
        let file = folder.join("figures.json");
        fs::create_dir_all(&folder)
            .and_then(|()| fs::write(&file, serde_json::to_vec_pretty(&report)?))
            .with_context(|| format!("cannot write {}", file.display()))?;
        eprintln!("{} is written", file.display());
    }
    outcome
}

fn measure(arguments: &Arguments, report: &mut Report) -> Result<()> {
    let wants = |part| arguments.only.is_empty() || arguments.only.contains(&part);
    let short = arguments.short;
    let wanted = Wanted {
        memory: wants(Part::Memory),
        activity: wants(Part::Cpu).then_some(Duration::from_secs(if short { 60 } else { 300 })),
        settle: Duration::from_secs(if short { 30 } else { 60 }),
        pods: if wants(Part::Pods) { if short { 10 } else { 50 } } else { 0 },
        commands: if wants(Part::Commands) { if short { 20 } else { 100 } } else { 0 },
    };
    report.settle_s = wanted.settle.as_secs();
    if wants(Part::Size) {
        eprintln!("==> sizes");
        report.sizes = size::measure(!short)?;
    }
    // What comes after a start is measured once, after the last one.
    let rounds = match (wants(Part::Start) && !short, wants(Part::Start) || wanted.anything()) {
        (true, _) => arguments.rounds.max(1),
        (false, needed) => usize::from(needed),
    };
    if rounds > 0 {
        warm();
    }
    for round in 1..=rounds {
        let wanted = if round == rounds { wanted } else { Wanted::default() };
        // In turns, so that what the machine does besides hits both.
        let ours_first = round % 2 == 1;
        for ours in [ours_first, !ours_first] {
            if !ours && (arguments.skip_peer || !(wants(Part::Start) || wanted.concerns_peer())) {
                continue;
            }
            ensure!(!is_interrupted(), "interrupted");
            let who = if ours { "skiff" } else { "peer" };
            eprintln!("==> round {round} of {rounds}: {who}");
            let subject = Subject::new(ours)?;
            let measured = match ours {
                true => &mut report.skiff,
                false => {
                    report.flags_left_out = subject.flags_left_out()?;
                    report.peer.get_or_insert_with(Measured::default)
                }
            };
            if let Err(error) = subject.measure(&wanted, measured) {
                if !is_interrupted() {
                    subject.node().keep_logs();
                }
                return Err(error);
            }
        }
    }
    Ok(())
}

/// Reads every file once, so that the first start is not the one that waits for the disk. What
/// lies in the page cache since it was written goes first, and comes back in small pieces, as after
/// a boot: the kernel (6.18) maps a piece as a whole, and a file that was written at once lies
/// there in pieces of megabytes, of which every process would seem to use all.
fn warm() {
    read_all(&distribution());
    read_all(&skiff_binary());
    read_all(&target().join("dist-test/bin/etcd"));
}

const PIECE_BYTES: usize = 64 << 10;

fn read_all(path: &Path) {
    if path.is_dir() {
        let entries = fs::read_dir(path).into_iter().flatten().flatten();
        entries.for_each(|entry| read_all(&entry.path()));
    } else if let Ok(file) = fs::File::open(path) {
        // A file that cannot be read is missed by whoever needs it, and said there; one that
        // cannot be moved out of the cache stays as it is.
        let _ = file.sync_all();
        let _ = posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
        let _ = posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_RANDOM);
        let mut piece = vec![0; PIECE_BYTES];
        let mut offset = 0;
        while let Ok(length @ 1..) = file.read_at(&mut piece, offset) {
            offset += length as u64;
        }
    }
}
