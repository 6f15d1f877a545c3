//! `components`: from pinned sources to a distribution.

use std::path::{Path, PathBuf};
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
    /// Build what only tests need as well
    #[arg(long)]
    pub test: bool,
    /// Build what only measurements need as well
    #[arg(long)]
    pub measure: bool,
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
    let mut purposes = vec![Purpose::Node];
    purposes.extend(arguments.test.then_some(Purpose::Test));
    purposes.extend(arguments.measure.then_some(Purpose::Measure));
    for purpose in &purposes {
        let wanted: Vec<&Component> =
            table.components.iter().filter(|c| c.purpose == *purpose).collect();
        let images: Vec<&Image> = table.images.iter().filter(|i| i.purpose == *purpose).collect();
        let built = build_components(project, &toolchain, &wanted, on_obstacle)?;
        let folder = match purpose {
            Purpose::Node => project.dist(),
            Purpose::Test => project.dist_test(),
            Purpose::Measure => project.dist_measure(),
        };
        let folder = if arch == host { folder } else { foreign(&folder, arch) };
        assemble(project, &table, &built, &images, arch, &folder)?;
        eprintln!("    {} components are in {}", built.len(), folder.display());
    }
    eprintln!("    components: {}", duration(started.elapsed()));
    Ok(())
}

/// `target/dist-arm64` beside `target/dist`.
fn foreign(folder: &Path, arch: Arch) -> PathBuf {
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    folder.with_file_name(format!("{name}-{}", arch.name()))
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
