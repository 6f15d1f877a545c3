//! `setup`: what the machine needs before anything can be built.

use anyhow::Result;
use clap::Args;

use crate::component::Toolchain;
use crate::packages;
use crate::preflight::{FIRST_BUILD_BYTES, NEXT_BUILD_BYTES, require_space};
use crate::project::{Arch, Project};
use crate::table::Table;

#[derive(Args, Debug, Default)]
pub struct Arguments {
    /// Install what only tests need as well
    #[arg(long)]
    pub test: bool,
}

pub fn run(project: &Project, arguments: &Arguments) -> Result<()> {
    // What cannot be helped comes before what takes long.
    let table = Table::read(&project.components().join("components.toml"))?;
    Toolchain::find(project, &table.go, Arch::host()?)?;
    let built_before = project.cache.join("components/kube").exists();
    let bytes = if built_before { NEXT_BUILD_BYTES } else { FIRST_BUILD_BYTES };
    require_space(&project.cache, bytes)?;
    require_space(&project.target, NEXT_BUILD_BYTES)?;

    packages::ensure(packages::BUILD, "build Skiff", &project.logs())?;
    packages::ensure(packages::RUN, "run a node", &project.logs())?;
    if arguments.test {
        packages::ensure(packages::TEST, "test Skiff", &project.logs())?;
    }
    crate::dqlite::ensure_library(project, None)?;
    Ok(())
}
