//! `bench` and `soak`: the long forms of what tests cannot assert or have no time for.

use anyhow::Result;
use clap::Args;

use super::build::cargo;
use super::{build, components, setup};
use crate::command::{announce, run_shown};
use crate::project::Project;

#[derive(Args, Debug)]
pub struct Arguments {
    /// Take what is built as it is
    #[arg(long)]
    no_build: bool,
    /// Passed to the program that measures; `-- --help` lists what it knows
    #[arg(last = true)]
    rest: Vec<String>,
}

/// Measures a node, and its peer beside it.
pub fn bench(project: &Project, arguments: &Arguments) -> Result<()> {
    prepare(project, arguments)?;
    announce("measuring a node and its peer", 1500);
    performance(project, "node", &arguments.rest)
}

/// An hour in 512 MiB, the virtual machine's whole journey, long renewals.
pub fn soak(project: &Project, arguments: &Arguments) -> Result<()> {
    prepare(project, arguments)?;
    announce("a node within a limit of memory", 3700);
    performance(project, "soak", &arguments.rest)?;
    announce("ten-minute leaves through three renewals", 1300);
    run_shown(
        cargo(project)
            .args(["test", "--release", "--workspace", "--test", "node", "--"])
            .args(["--test-threads=1", "--nocapture", "leaves_are_renewed"])
            .env("SKIFF_TEST_LEAF_MINUTES", "10"),
    )?;
    announce("a virtual machine: reboot, clock, power cut", 2400);
    run_shown(
        cargo(project)
            .args(["test", "--release", "--workspace", "--test", "vm", "--"])
            .args(["--test-threads=1", "--nocapture", "full_form"])
            .env("SKIFF_TEST_VM", "full"),
    )
}

fn prepare(project: &Project, arguments: &Arguments) -> Result<()> {
    if arguments.no_build {
        return Ok(());
    }
    setup::run(project, &setup::Arguments { test: true })?;
    components::run(project, &components::Arguments { test: true, ..Default::default() })?;
    build::run(project)
}

fn performance(project: &Project, verb: &str, rest: &[String]) -> Result<()> {
    run_shown(
        cargo(project)
            .args(["run", "--release", "--quiet", "--package", "performance", "--", verb])
            .args(rest),
    )
}
