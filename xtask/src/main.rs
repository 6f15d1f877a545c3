//! What the Makefile calls: set-up, components, images, up, down, tests.
//!
//! Everything here is safe to repeat, says what it does and how long that usually takes, and is
//! quick when nothing changed.

mod command;
mod component;
mod hash;
mod image;
mod project;
mod stage;
mod table;

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
    /// Build the components and put them together as a distribution
    ///
    /// The result is target/dist, and target/dist-test for what only tests need; for another
    /// architecture target/dist-ARCH. What was built before is taken from the cache.
    Components(stage::components::Arguments),
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
        Verb::Components(arguments) => stage::components::run(&project, &arguments),
    }
}
