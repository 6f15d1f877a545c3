//! What the Makefile calls: set-up, components, images, up, down, tests.
//!
//! Everything here is safe to repeat, says what it does and how long that usually takes, and is
//! quick when nothing changed.

mod apt;
mod command;
mod component;
mod dqlite;
mod hash;
mod image;
mod packages;
mod preflight;
mod project;
mod stage;
mod sysroot;
mod table;
mod test_counts;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use project::Project;

#[derive(Parser)]
#[command(name = "cargo xtask", about, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Install the packages that building needs, and build libdqlite
    Setup(stage::setup::Arguments),
    /// Build the components and put them together as a distribution
    ///
    /// The result is target/dist, and target/dist-test for what only tests need; for another
    /// architecture target/dist-ARCH. What was built before is taken from the cache.
    Components(stage::components::Arguments),
    /// Build, start a node on this machine, wait until it is ready, enable DNS
    Up,
    /// End the node and remove everything but what was built
    ///
    /// Removes its state, users, groups and the linked command.
    Down,
    /// Build everything and run every test
    Test(stage::test::Arguments),
    /// Measure a node, and a peer of upstream's processes with etcd beside it
    ///
    /// Prints figures and asserts nothing; docs/how-to/measure.md says what they mean. Ctrl-C ends
    /// everything that was started.
    Bench(stage::bench::BenchArguments),
    /// Run the long forms: an hour in 512 MiB, ten-minute leaves, the virtual machine's journey
    Soak(stage::bench::SoakArguments),
    /// Check format, lints, tests and documentation without writing
    Verify,
    /// Write what verify would complain about, as far as a program can
    Fix,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> Result<()> {
    let project = Project::find()?;
    match cli.verb {
        Verb::Setup(arguments) => stage::setup::run(&project, &arguments),
        Verb::Up => stage::up::run(&project),
        Verb::Down => stage::down::run(&project),
        Verb::Test(arguments) => stage::test::run(&project, &arguments),
        Verb::Bench(arguments) => stage::bench::bench(&project, &arguments),
        Verb::Soak(arguments) => stage::bench::soak(&project, &arguments),
        Verb::Verify => stage::verify::run(&project),
        Verb::Fix => stage::fix::run(&project),
        Verb::Components(arguments) => stage::components::run(&project, &arguments),
    }
}
