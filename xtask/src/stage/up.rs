//! `up`: from a clone to a node that works.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use super::{build, components, setup};
use crate::command::{announce, duration, run_shown};
use crate::preflight::{require_free_port, require_kernel, require_root};
use crate::project::Project;

/// Where the shell finds the command.
pub const LINK: &str = "/usr/local/bin/skiff";
const DEFAULT_ROOT: &str = "/var/lib/skiff";
const API_PORT: u16 = 6443;

pub fn run(project: &Project) -> Result<()> {
    let started = Instant::now();
    require_root("run a node")?;
    require_kernel()?;
    if !state_root().join("run/skiffd.sock").exists() {
        require_free_port(API_PORT)?;
    }
    setup::run(project, &setup::Arguments::default())?;
    components::run(project, &components::Arguments::default())?;
    build::run(project)?;
    link(&project.program())?;

    announce("starting the node", 15);
    skiff(project, &["start"])?;
    announce("waiting until the node is ready", 20);
    skiff(project, &["status", "--wait-ready"])?;
    announce("enabling cluster DNS", 15);
    skiff(project, &["enable", "dns", "--wait"])?;
    println!(
        "\nThe node is up, {}. Next:\n\
         \n  skiff status\
         \n  skiff kubectl get pods --all-namespaces\
         \n  skiff kubectl create deployment web --image=IMAGE\n\
         \nThe tutorial is in docs/tutorial; `make down` removes everything again.",
        duration(started.elapsed())
    );
    Ok(())
}

/// Where a node of this machine keeps its state.
pub fn state_root() -> PathBuf {
    std::env::var_os("SKIFF_ROOT")
        .filter(|root| !root.is_empty())
        .map_or_else(|| PathBuf::from(DEFAULT_ROOT), PathBuf::from)
}

fn skiff(project: &Project, arguments: &[&str]) -> Result<()> {
    run_shown(Command::new(project.program()).args(arguments))
}

/// Links the command where the shell looks; a file that is not ours stays.
fn link(program: &Path) -> Result<()> {
    let link = Path::new(LINK);
    match fs::read_link(link) {
        Ok(target) if target == program => return Ok(()),
        Ok(_) => fs::remove_file(link).with_context(|| format!("cannot replace {LINK}"))?,
        Err(_) if link.exists() => {
            bail!("{LINK} is a program from elsewhere; move it away, then repeat")
        }
        Err(_) => {}
    }
    if let Some(folder) = link.parent() {
        fs::create_dir_all(folder)?;
    }
    symlink(program, link).with_context(|| format!("cannot link {LINK}"))?;
    eprintln!("==> {LINK} is linked to {}", program.display());
    Ok(())
}
