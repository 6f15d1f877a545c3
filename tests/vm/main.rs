//! A node in a virtual machine: systemd, control groups v2, reboots, clock jumps, power cuts.
//!
//! Emulation is slow, so that this runs when asked only: `SKIFF_TEST_VM=short` (15 minutes or so)
//! or `SKIFF_TEST_VM=full`. What it needs is in README.md beside this file.

mod build;
mod channel;
mod image;
mod journey;
mod machine;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use harness::{distribution, skiff_binary};
use image::Image;
use journey::Journey;
use machine::{Machine, PROGRAMS};

#[test]
fn short_form_an_installed_build_survives_a_power_cut() {
    let Some(mut journey) = begin("short") else { return };
    install(&mut journey);
    journey.step("an object", |node| node.create("before-power-cut"));
    survive_power_cut(&mut journey);
}

#[test]
fn full_form_an_installed_build_survives_a_reboot_a_clock_jump_and_a_power_cut() {
    let Some(mut journey) = begin("full") else { return };
    install(&mut journey);
    journey.step("an object", |node| node.create("before-reboot"));

    journey.step("reboot", Journey::reboot);
    journey.step("ready by itself", Journey::wait_ready);
    journey.step("objects", Journey::check_objects);

    journey.step("clock two years ahead", |node| node.set_clock("+2 years"));
    journey.step("ready", Journey::wait_ready);
    journey.step("an object two years ahead", |node| node.create("in-two-years"));
    journey.step("clock back", |node| node.set_clock("-2 years"));
    journey.step("ready", Journey::wait_ready);
    journey.step("an object in the old time", |node| node.create("back-in-time"));
    journey.step("objects", Journey::check_objects);

    survive_power_cut(&mut journey);
}

fn install(journey: &mut Journey) {
    journey.step("power on", Journey::boot);
    journey.step("systemd and control groups v2", Journey::check_system);
    journey.step("install the build", Journey::install);
    journey.step("what is not synced stays in memory", Journey::write_back_nothing);
    journey.step("start to ready", Journey::start_node);
}

fn survive_power_cut(journey: &mut Journey) {
    journey.step("power cut while writing", Journey::cut_power_while_writing);
    journey.step("power on", Journey::boot);
    journey.step("ready by itself", Journey::wait_ready);
    journey.step("objects", Journey::check_objects);
}

/// A machine that is off, or nothing with the reason said.
fn begin(form: &str) -> Option<Journey> {
    if let Some(reason) = why_not(form) {
        println!("skipped: {reason}");
        return None;
    }
    let logs = logs(form);
    let begun = Instant::now();
    let image = Image::ensure().expect("the machine's disk is made");
    println!("vm: {:52} {:7.1} s", "the image", begun.elapsed().as_secs_f64());
    let begun = Instant::now();
    let machine = Machine::new(image, logs.clone()).expect("a machine is made");
    println!(
        "vm: {:52} {:7.1} s",
        "a disk for it, one with the build",
        begun.elapsed().as_secs_f64()
    );
    Some(Journey::new(machine, logs))
}

fn why_not(form: &str) -> Option<String> {
    if std::env::var_os("SKIFF_TEST_VM").is_none_or(|asked| asked != form) {
        return Some(format!("emulation is slow: asked for with SKIFF_TEST_VM={form}"));
    }
    if !nix::unistd::Uid::effective().is_root() {
        return Some("needs root to make the machine's disk".to_owned());
    }
    if !skiff_binary().is_file() || !distribution().join("components.toml").is_file() {
        return Some("needs the components: run `make test`".to_owned());
    }
    let missing: Vec<&str> = PROGRAMS.iter().filter(|name| !is_there(name)).copied().collect();
    (!missing.is_empty()).then(|| format!("needs {}: see tests/vm/README.md", missing.join(", ")))
}

fn is_there(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

/// An empty folder beside those of the other tests.
fn logs(form: &str) -> PathBuf {
    let place = target().join("test-logs").join(format!("vm-{form}"));
    let _ = fs::remove_dir_all(&place);
    fs::create_dir_all(&place).expect("a folder for logs");
    place
}

fn target() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target")
}
