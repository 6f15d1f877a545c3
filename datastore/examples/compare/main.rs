//! Our datastore beside etcd and kine: the same load on each, in turns, in one run.
//!
//! `cargo xtask bench --only datastore` builds what this needs and runs it. It prints and asserts
//! nothing. docs/how-to/measure.md says what the figures mean.

mod bulk;
mod failover;
mod idle;
mod load;
mod object;
mod report;
mod simple;
mod store;
mod watch;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::{Parser, ValueEnum};

use report::Report;
use store::{Kind, Programs, Store};

#[derive(Parser)]
enum Cli {
    /// Measure all of them and print a table
    Figures(Arguments),
    /// Load a datastore that runs
    Load(load::Arguments),
}

#[derive(clap::Args, Debug)]
struct Arguments {
    /// Skiff's program
    #[arg(long)]
    skiff: PathBuf,
    /// etcd's program
    #[arg(long)]
    etcd: PathBuf,
    /// kine's program
    #[arg(long)]
    kine: Option<PathBuf>,
    /// Only these figures
    #[arg(long, value_delimiter = ',')]
    only: Vec<Part>,
    /// Only these datastores
    #[arg(long, value_delimiter = ',')]
    stores: Vec<Kind>,
    /// How often each is measured, in turns
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// One round and short looks: not for a comparison
    #[arg(long)]
    short: bool,
    /// Keep their files below this directory
    #[arg(long, default_value = "/var/tmp")]
    scratch: PathBuf,
    /// Also print everything as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Writes and reads of one member
    One,
    /// Writes of three members, and how long a killed leader is missed
    Three,
    /// From a write to the last of a thousand watchers
    Watch,
    /// Memory and disk over many updates, and the start thereafter
    Bulk,
    /// The processor time of a quiet cluster
    Idle,
}

/// How much is done of each.
pub struct Scale {
    /// How long each kind of request is made.
    pub span: Duration,
    /// Keys that are there when it is read.
    pub keys: usize,
    pub kills: usize,
    pub watchers: usize,
    pub bulk_keys: usize,
    pub bulk_updates: usize,
    pub idle: Duration,
}

const FULL: Scale = Scale {
    span: Duration::from_secs(10),
    keys: 20_000,
    kills: 20,
    watchers: 1000,
    bulk_keys: 100_000,
    bulk_updates: 1_000_000,
    idle: Duration::from_secs(60),
};

const SHORT: Scale = Scale {
    span: Duration::from_secs(2),
    keys: 5_000,
    kills: 3,
    watchers: 200,
    bulk_keys: 5_000,
    bulk_updates: 30_000,
    idle: Duration::from_secs(10),
};

fn main() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime needs only file descriptors");
    let outcome = runtime.block_on(async {
        tokio::select! {
            outcome = run(Cli::parse()) => outcome,
            _ = tokio::signal::ctrl_c() => bail!("interrupted; what was started is ended"),
        }
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(cli: Cli) -> Result<()> {
    let arguments = match cli {
        Cli::Figures(arguments) => arguments,
        Cli::Load(arguments) => return load::alone(&arguments).await,
    };
    let mut report = Report::default();
    let outcome = measure(&arguments, &mut report).await;
    // What was measured before a failure is shown all the same.
    if arguments.short {
        println!("short form: for a look, not for a comparison");
    }
    print!("{}", report.text());
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    }
    outcome
}

async fn measure(arguments: &Arguments, report: &mut Report) -> Result<()> {
    let scale = if arguments.short { SHORT } else { FULL };
    let rounds = if arguments.short { 1 } else { arguments.rounds };
    let wants = |part| arguments.only.is_empty() || arguments.only.contains(&part);
    let programs = Programs {
        skiff: arguments.skiff.clone(),
        etcd: arguments.etcd.clone(),
        kine: arguments.kine.clone(),
        scratch: arguments.scratch.clone(),
    };
    let kinds: Vec<_> = [Kind::Skiff, Kind::Etcd, Kind::Kine]
        .into_iter()
        .filter(|kind| arguments.stores.is_empty() || arguments.stores.contains(kind))
        .filter(|kind| *kind != Kind::Kine || programs.kine.is_some())
        .collect();
    for round in 1..=rounds {
        for kind in kinds.iter().copied() {
            let note = |what: &str| eprintln!("round {round} of {rounds}: {kind:?}, {what}");
            if wants(Part::One) {
                note("writes and reads of one member");
                simple::one(&mut Store::start(kind, &programs, 1).await?, &scale, report).await?;
            }
            if wants(Part::Watch) {
                note("watchers");
                watch::fan(&mut Store::start(kind, &programs, 1).await?, &scale, report).await?;
            }
            if wants(Part::Idle) {
                note("a quiet cluster");
                idle::quiet(&mut Store::start(kind, &programs, 1).await?, &scale, report).await?;
            }
            // kine alone has no members; its database would have.
            if wants(Part::Three) && kind != Kind::Kine {
                note("three members");
                let mut store = Store::start(kind, &programs, 3).await?;
                simple::three(&mut store, &scale, report).await?;
                if round == 1 {
                    note("a leader that is killed");
                    failover::kill_leaders(&mut store, &scale, report).await?;
                }
            }
            if wants(Part::Bulk) && round == 1 {
                note("many updates");
                bulk::churn(&mut Store::start(kind, &programs, 1).await?, &scale, report).await?;
            }
        }
    }
    Ok(())
}
