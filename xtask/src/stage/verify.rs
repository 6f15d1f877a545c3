//! `verify`: what must hold before a commit. It never writes outside the build folders.

use std::process::Command;

use anyhow::{Result, bail};

use super::build::cargo;
use super::test::{plain_runs, test_targets};
use crate::command::{announce, output_of, run_shown};
use crate::project::Project;

pub fn run(project: &Project) -> Result<()> {
    announce("format", 2);
    run_shown(cargo(project).args(["fmt", "--all", "--check"]))?;
    let unformatted = output_of(Command::new("gofmt").arg("-l").arg(project.components()));
    match unformatted.as_deref() {
        Some("") => {}
        Some(files) => bail!("not formatted, `cargo xtask fix` does it:\n{files}"),
        None => println!("skipped: go is not installed, its files are not looked at"),
    }
    announce("lints", 90);
    run_shown(cargo(project).args([
        "clippy",
        "--workspace",
        "--all-targets",
        "--quiet",
        "--",
        "--deny",
        "warnings",
    ]))?;
    announce("tests that need no node, tidiness among them", 180);
    for arguments in plain_runs(&test_targets(project)?) {
        run_shown(cargo(project).args(["test", "--quiet"]).args(arguments))?;
    }
    announce("documentation", 60);
    let mut doc = cargo(project);
    doc.args(["doc", "--workspace", "--no-deps", "--quiet"]).env("RUSTDOCFLAGS", "--deny warnings");
    run_shown(&mut doc)?;
    println!("everything holds");
    Ok(())
}
