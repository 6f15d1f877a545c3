//! `test --stage arm64`: nothing may depend on the architecture of the machine that builds.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::command::{output_of, run_logged};
use crate::component::{BuildLock, Obstacle, Toolchain, build_components};
use crate::dqlite;
use crate::project::{Arch, Project};
use crate::sysroot::Sysroot;
use crate::table::Table;
use crate::test_counts::TestReport;

/// What a node runs; what is only for tests is left out.
const CROSS_BUILT: &[&str] = &["pause", "runc", "cni", "coredns", "containerd", "kube"];

/// Every component and `skiff` itself must come out for the other architecture, and `skiff` must
/// run, on an emulated processor.
pub fn cross_build(project: &Project, log: &Path) -> Result<TestReport> {
    let host = Arch::host()?;
    let other = if host == Arch::Arm64 { Arch::Amd64 } else { Arch::Arm64 };
    let table = Table::read(&project.components().join("components.toml"))?;
    let toolchain = Toolchain::find(project, &table.go, other)?;
    toolchain.prepare(project)?;
    let _lock = BuildLock::take(&project.cache.join("components"))?;
    let mut report = TestReport::default();
    for name in CROSS_BUILT {
        let component = table.component(name).context("the table lacks a component")?;
        report.add(match toolchain.obstacle(component) {
            Some(reason) => TestReport::of_skip(format!("{name} for {}: {reason}", other.name())),
            None => TestReport::of_check(
                build_components(project, &toolchain, &[component], Obstacle::Fails)
                    .and_then(|built| built.iter().try_for_each(|one| one.require_machine(other)))
                    .map_err(|error| format!("{name} for {}: {error:#}", other.name())),
            ),
        });
    }
    report.add(match standard_library(other) {
        Err(reason) => TestReport::of_skip(format!("skiff for {}: {reason:#}", other.name())),
        Ok(()) => TestReport::of_check(
            skiff(project, other, host, log)
                .map_err(|error| format!("skiff for {}: {error:#}", other.name())),
        ),
    });
    Ok(report)
}

fn standard_library(arch: Arch) -> Result<()> {
    let target = arch.rust_target();
    let sysroot = output_of(Command::new("rustc").args(["--print", "sysroot"]))
        .context("rustc does not say where its libraries are")?;
    if PathBuf::from(sysroot.trim()).join("lib/rustlib").join(target).join("lib").is_dir() {
        return Ok(());
    }
    output_of(Command::new("rustup").args(["target", "add", target]))
        .map(|_| ())
        .with_context(|| format!("no standard library for it (rustup target add {target})"))
}

fn skiff(project: &Project, arch: Arch, host: Arch, log: &Path) -> Result<()> {
    let sysroot = Sysroot::at(project, arch);
    dqlite::ensure_library(project, Some(&sysroot))?;
    let target = arch.rust_target();
    let compiler = arch.c_compiler(host);
    let variable = target.to_uppercase().replace('-', "_");
    let mut build = Command::new("cargo");
    build
        .args(["build", "--locked", "--bin", "skiff", "--target", target])
        .env(format!("CARGO_TARGET_{variable}_LINKER"), compiler)
        .env(format!("CC_{}", target.replace('-', "_")), compiler)
        .env("DQLITE_DEPS", sysroot.libraries())
        .current_dir(&project.root);
    run_logged(&mut build, log)?;

    let program = project.target.join(target).join("debug/skiff");
    let emulator = format!("qemu-{}-static", target.split('-').next().unwrap_or_default());
    let mut run = Command::new(&emulator);
    run.arg("-L").arg(format!("/usr/{}", arch.triplet())).arg(&program);
    let help = output_of(run.arg("--help")).with_context(|| format!("{emulator} cannot run it"))?;
    ensure!(help.contains("Usage: skiff"), "its help is {help:?}");
    Ok(())
}
