//! `bench` and `soak`: builds what they need, then hands over to the program that measures.

use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, Result, anyhow};
use clap::Args;

use super::build::cargo;
use super::{build, components, setup};
use crate::command::{announce, run_shown};
use crate::packages;
use crate::preflight::require_root;
use crate::project::Project;

/// What can be measured: refused here, before anything is built.
const FIGURES: [&str; 6] = ["start", "memory", "cpu", "pods", "commands", "size"];

#[derive(Args, Debug, Default)]
pub struct BenchArguments {
    /// How often both are started, in turns [default: 3]
    #[arg(long)]
    rounds: Option<usize>,
    /// One round and short looks: not for a comparison
    #[arg(long)]
    short: bool,
    /// Only these figures
    #[arg(long, value_name = "FIGURE,…", value_delimiter = ',', value_parser = FIGURES)]
    only: Vec<String>,
    /// Measure Skiff alone
    #[arg(long)]
    skip_peer: bool,
    #[command(flatten)]
    common: Common,
}

#[derive(Args, Debug, Default)]
pub struct SoakArguments {
    /// How long the node lives [default: 60]
    #[arg(long)]
    minutes: Option<u64>,
    /// What everything that Skiff runs may take together [default: 512]
    #[arg(long)]
    memory_mib: Option<u64>,
    #[command(flatten)]
    common: Common,
}

#[derive(Args, Debug, Default)]
struct Common {
    /// Also write everything that was measured to a file in target/bench
    #[arg(long, value_parser = ["json"])]
    output: Option<String>,
    /// Take what is built as it is
    #[arg(long)]
    no_build: bool,
}

pub fn bench(project: &Project, arguments: &BenchArguments) -> Result<()> {
    let BenchArguments { rounds, short, only, skip_peer, common } = arguments;
    let mut words = vec!["figures".to_owned()];
    words.extend(option("rounds", rounds));
    words.extend(short.then(|| "--short".into()));
    words.extend(only.iter().flat_map(|part| option("only", &Some(part))));
    words.extend(skip_peer.then(|| "--skip-peer".into()));
    run(project, words, common)
}

pub fn soak(project: &Project, arguments: &SoakArguments) -> Result<()> {
    let SoakArguments { minutes, memory_mib, common } = arguments;
    let mut words = vec!["soak".to_owned()];
    words.extend(option("minutes", minutes));
    words.extend(option("memory-mib", memory_mib));
    run(project, words, common)
}

fn option(name: &str, value: &Option<impl ToString>) -> Option<String> {
    value.as_ref().map(|value| format!("--{name}={}", value.to_string()))
}

fn run(project: &Project, mut words: Vec<String>, common: &Common) -> Result<()> {
    words.extend(option("output", &common.output));
    require_root("measure nodes")?;
    if !common.no_build {
        setup::run(project, &setup::Arguments::default())?;
        packages::ensure(packages::MEASURE, "measure nodes", &project.logs())?;
        components::run(project, &components::Arguments { test: true, ..Default::default() })?;
        build::run(project)?;
        announce("building the program that measures", 60);
        let program = ["build", "--release", "--workspace", "--example", "measure"];
        run_shown(cargo(project).args(program))?;
    }
    // In place of this process, so that Ctrl-C and the exit code are its own affair.
    let program = project.target.join("release/examples/measure");
    let error = Command::new(&program)
        .args(words)
        .env("SKIFF_BIN", project.program())
        .env("SKIFF_DIST", project.dist())
        .exec();
    Err(anyhow!(error)).with_context(|| format!("cannot start {}", program.display()))
}
