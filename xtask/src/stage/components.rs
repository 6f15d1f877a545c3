//! `components`: from pinned sources to a distribution.

use std::time::Instant;

use anyhow::Result;
use clap::Args;

use crate::command::duration;
use crate::component::{BuildLock, Obstacle, Toolchain, assemble, build_components};
use crate::project::{Arch, Project};
use crate::table::{Component, Image, Purpose, Table};

#[derive(Args, Debug, Default)]
pub struct Arguments {
    /// Build for this architecture instead of the machine's own: amd64 or arm64
    #[arg(long, value_parser = Arch::parse)]
    pub arch: Option<Arch>,
    /// Build only these components and put nothing together
    #[arg(long = "only", value_name = "NAME")]
    pub only: Vec<String>,
    /// Build what only tests and measurements need as well
    #[arg(long)]
    pub test: bool,
}

/// Builds and assembles. Another architecture may lack a C library here: what cannot be built
/// is then named with its reason and left out.
pub fn run(project: &Project, arguments: &Arguments) -> Result<()> {
    let started = Instant::now();
    let table = Table::read(&project.components().join("components.toml"))?;
    let host = Arch::host()?;
    let arch = arguments.arch.unwrap_or(host);
    let toolchain = Toolchain::find(project, &table.go, arch)?;
    toolchain.prepare(project)?;
    let _lock = BuildLock::take(&project.cache.join("components"))?;

    let on_obstacle = if arch == host { Obstacle::Fails } else { Obstacle::Skips };
    if !arguments.only.is_empty() {
        let wanted = named(&table, &arguments.only)?;
        build_components(project, &toolchain, &wanted, on_obstacle)?;
        return Ok(());
    }
    let purposes: &[Purpose] =
        if arguments.test { &[Purpose::Node, Purpose::Test] } else { &[Purpose::Node] };
    for purpose in purposes {
        let wanted: Vec<&Component> =
            table.components.iter().filter(|c| c.purpose == *purpose).collect();
        let images: Vec<&Image> = table.images.iter().filter(|i| i.purpose == *purpose).collect();
        let built = build_components(project, &toolchain, &wanted, on_obstacle)?;
        let folder = match (purpose, arch == host) {
            (Purpose::Node, true) => project.dist(),
            (Purpose::Test, true) => project.dist_test(),
            (Purpose::Node, false) => project.target.join(format!("dist-{}", arch.name())),
            (Purpose::Test, false) => project.target.join(format!("dist-test-{}", arch.name())),
        };
        assemble(project, &table, &built, &images, arch, &folder)?;
        eprintln!("    {} components are in {}", built.len(), folder.display());
    }
    eprintln!("    components: {}", duration(started.elapsed()));
    Ok(())
}

fn named<'a>(table: &'a Table, names: &[String]) -> Result<Vec<&'a Component>> {
    names
        .iter()
        .map(|name| {
            table.component(name).ok_or_else(|| {
                let known: Vec<_> = table.components.iter().map(|c| c.name.as_str()).collect();
                anyhow::anyhow!("no component is called {name}; there are {}", known.join(", "))
            })
        })
        .collect()
}
