//! Skiff itself, and its place in the distribution.

use std::process::Command;
use std::time::Instant;

use anyhow::Result;

use crate::command::{announce, duration, run_shown};
use crate::component::{place_program, place_tree};
use crate::project::Project;

const USUAL_SECONDS: u64 = 720;

/// Builds `skiff` and puts it beside the components, with the add-ons' data.
pub fn run(project: &Project) -> Result<()> {
    let started = Instant::now();
    announce("building skiff", if project.program().exists() { 0 } else { USUAL_SECONDS });
    // The features of the whole workspace, as benchmarks select it, so that nothing is built twice.
    let program = ["build", "--release", "--bin", "skiff"];
    run_shown(cargo(project).args(program).args(EVERYTHING))?;
    place_program(&project.program(), &project.dist().join("bin/skiff"))?;
    place_tree(&project.root.join("addons"), &project.dist().join("addons"))?;
    eprintln!("    skiff is built, {}", duration(started.elapsed()));
    Ok(())
}

/// The package that is built by itself: it needs a modelled node and a clock that stands still in
/// everything it is made of.
pub const SIMULATION: &str = "datastore-simulation";
/// All others, which share what they are made of.
pub const EVERYTHING: [&str; 3] = ["--workspace", "--exclude", SIMULATION];

/// The simulation's tests, with the options of cargo that a long run adds.
pub fn simulation(project: &Project, options: &[&str]) -> Command {
    let mut command = cargo(project);
    command.arg("test").args(options).args(["--no-fail-fast", "--package", SIMULATION]);
    command.args(["--test", "simulation"]);
    command
}

/// Cargo in the clone, the same one that runs this program.
pub fn cargo(project: &Project) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(&project.root);
    command
}
