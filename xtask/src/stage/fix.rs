//! `fix`: writes what `verify` would only complain about, as far as a program can.

use std::process::Command;

use anyhow::Result;

use super::build::cargo;
use crate::command::{announce, run_shown};
use crate::project::Project;

pub fn run(project: &Project) -> Result<()> {
    announce("lints that can be fixed", 90);
    run_shown(cargo(project).args([
        "clippy",
        "--fix",
        "--workspace",
        "--all-targets",
        "--allow-dirty",
        "--allow-staged",
        "--quiet",
    ]))?;
    announce("format", 2);
    run_shown(cargo(project).args(["fmt", "--all"]))?;
    run_shown(Command::new("gofmt").arg("-w").arg(project.components()))
}
