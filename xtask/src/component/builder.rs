//! Builds what the cache lacks, one component after the other.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::cache::CacheShelf;
use super::compiler::Toolchain;
use super::key::{build_key, read_sources};
use crate::command::{announce, duration, run_logged};
use crate::project::{Arch, Project};
use crate::table::{Component, Language, Program};

/// A component whose files are in the cache.
#[derive(Debug)]
pub struct Built<'a> {
    pub component: &'a Component,
    pub key: String,
    pub folder: PathBuf,
}

impl Built<'_> {
    /// Whether the programs are for that architecture, by their own headers.
    pub fn require_machine(&self, arch: Arch) -> Result<()> {
        for program in &self.component.programs {
            let path = self.folder.join(&program.file);
            let mut header = [0; 20];
            fs::File::open(&path)
                .and_then(|mut file| file.read_exact(&mut header))
                .with_context(|| format!("cannot read {}", path.display()))?;
            let machine = u16::from_le_bytes([header[18], header[19]]);
            ensure!(
                header.starts_with(b"\x7fELF") && machine == arch.elf_machine(),
                "{} is not a program for {}",
                path.display(),
                arch.name()
            );
        }
        Ok(())
    }
}

/// Small and static without a C library: nothing is called but system calls.
const C_FLAGS: &[&str] = &[
    "-Os",
    "-std=gnu11",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-static",
    "-nostdlib",
    "-nostartfiles",
    "-ffreestanding",
    "-fno-stack-protector",
    "-fno-asynchronous-unwind-tables",
    "-fno-pie",
    "-no-pie",
    "-Wl,--build-id=none",
    "-Wl,-z,noexecstack",
    "-Wl,-z,norelro",
    "-s",
];

/// What becomes of a component that cannot be built on this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Obstacle {
    /// It is named with the reason and left out.
    Skips,
    Fails,
}

/// Builds the wanted components that the cache lacks.
pub fn build_components<'a>(
    project: &Project,
    toolchain: &Toolchain,
    wanted: &[&'a Component],
    on_obstacle: Obstacle,
) -> Result<Vec<Built<'a>>> {
    let mut built = Vec::new();
    for component in wanted {
        if let Some(reason) = toolchain.obstacle(component) {
            ensure!(on_obstacle == Obstacle::Skips, "{} cannot be built: {reason}", component.name);
            println!("skipped: {} for {}: {reason}", component.name, toolchain.arch.name());
            continue;
        }
        built.push(build_component(project, toolchain, component)?);
    }
    Ok(built)
}

fn build_component<'a>(
    project: &Project,
    toolchain: &Toolchain,
    component: &'a Component,
) -> Result<Built<'a>> {
    let sources = project.components().join(component.folder());
    let arch = toolchain.arch.name();
    let key =
        build_key(component, &read_sources(&sources)?, arch, &toolchain.fingerprint(component));
    let shelf = CacheShelf::open(&project.cache, &component.name)?;
    if let Some(folder) = shelf.find(&key) {
        return Ok(Built { component, key, folder });
    }
    announce(
        &format!("building {} {} for {arch}", component.name, component.version),
        component.usual_seconds,
    );
    let log = project.logs().join(format!("{}-{arch}.log", component.name));
    let started = std::time::Instant::now();
    let folder = shelf
        .make(&key, |folder| {
            for program in &component.programs {
                let out = folder.join(&program.file);
                fs::create_dir_all(out.parent().context("a program lies in no folder")?)?;
                let mut command = match component.language {
                    Language::Go => go_build(toolchain, component, program, &out),
                    Language::C => c_build(toolchain, program, &out),
                };
                run_logged(command.current_dir(&sources), &log)?;
            }
            Ok(())
        })
        .with_context(|| format!("{} {} was not built", component.name, component.version))?;
    eprintln!("    {} is built, {}", component.name, duration(started.elapsed()));
    Ok(Built { component, key, folder })
}

/// The same flags whoever builds: the user's own Go settings stay out of it, except for where
/// modules come from.
fn go_build(
    toolchain: &Toolchain,
    component: &Component,
    program: &Program,
    out: &Path,
) -> Command {
    let mut linker = String::from("-s -w");
    if component.cgo.is_some() {
        linker.push_str(" -linkmode external -extldflags -static");
    }
    for variable in component.linker_variables() {
        linker.push_str(" -X ");
        linker.push_str(&variable);
    }
    let mut command = Command::new("go");
    command
        .args(["build", "-trimpath", "-buildvcs=false", "-mod=readonly"])
        .arg(format!("-tags={}", component.tags.join(",")))
        .arg(format!("-ldflags={linker}"))
        .arg("-o")
        .arg(out)
        .arg(&program.package)
        .env("GOFLAGS", "")
        .env("GOWORK", "off")
        .env("GOTOOLCHAIN", "local")
        .env("GOOS", "linux")
        .env("GOARCH", toolchain.arch.name())
        .env_remove("GOAMD64")
        .env_remove("GOARM64")
        .env_remove("GOEXPERIMENT");
    if component.cgo.is_some() {
        command.env("CGO_ENABLED", "1").env("CC", toolchain.c_compiler());
        toolchain.direct_pkg_config(&mut command);
    } else {
        command.env("CGO_ENABLED", "0");
    }
    command
}

fn c_build(toolchain: &Toolchain, program: &Program, out: &Path) -> Command {
    let mut command = Command::new(toolchain.c_compiler());
    command.args(C_FLAGS).arg("-o").arg(out).arg(&program.package);
    command
}
