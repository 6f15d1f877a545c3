//! `bench` and `soak`: builds what they need, then hands over to the programs that measure.

use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, Result, anyhow};
use clap::Args;

use super::build::{EVERYTHING, cargo, simulation};
use super::{build, components, setup};
use crate::command::{announce, run_shown};
use crate::packages;
use crate::preflight::require_root;
use crate::project::Project;

/// What can be measured: refused here, before anything is built.
const FIGURES: [&str; 7] = ["start", "memory", "cpu", "pods", "commands", "size", DATASTORE];

/// Measured by a program of its own.
const DATASTORE: &str = "datastore";

/// The long forms of tests that `soak` runs.
const FORMS: [&str; 17] = [
    "datastore",
    "simulation",
    "protocol",
    "members",
    "faults",
    "power-cuts",
    "leaves",
    "machine",
    "grow",
    "rounds",
    "settings",
    "recover",
    "restore",
    "addresses",
    "walks",
    "authorities",
    "memory",
];

#[derive(Args, Debug, Default)]
pub struct BenchArguments {
    /// How often both are started, in turns [default: 3]
    #[arg(long)]
    rounds: Option<usize>,
    /// One round and short looks: not for a comparison
    #[arg(long)]
    short: bool,
    /// Only these figures
    #[arg(long, value_name = "FIGURE,…", value_delimiter = ',', value_parser = FIGURES)]
    only: Vec<String>,
    /// Measure Skiff alone
    #[arg(long)]
    skip_peer: bool,
    #[command(flatten)]
    common: Common,
}

#[derive(Args, Debug, Default)]
pub struct SoakArguments {
    /// How long the node lives [default: 60]
    #[arg(long)]
    minutes: Option<u64>,
    /// What everything that Skiff runs may take together [default: 512]
    #[arg(long)]
    memory_mib: Option<u64>,
    /// Only these forms
    #[arg(long, value_name = "FORM,…", value_delimiter = ',', value_parser = FORMS)]
    only: Vec<String>,
    #[command(flatten)]
    common: Common,
}

#[derive(Args, Debug, Default)]
struct Common {
    /// Also write everything that was measured to a file in target/bench
    #[arg(long, value_parser = ["json"])]
    output: Option<String>,
    /// Take what is built as it is
    #[arg(long)]
    no_build: bool,
}

pub fn bench(project: &Project, arguments: &BenchArguments) -> Result<()> {
    let BenchArguments { rounds, short, only, skip_peer, common } = arguments;
    let mut words = vec!["figures".to_owned()];
    words.extend(option("rounds", rounds));
    words.extend(short.then(|| "--short".into()));
    let of_node: Vec<_> = only.iter().filter(|part| *part != DATASTORE).collect();
    words.extend(of_node.iter().flat_map(|part| option("only", &Some(part))));
    words.extend(skip_peer.then(|| "--skip-peer".into()));
    prepare(project, common)?;
    if only.is_empty() || of_node.len() < only.len() {
        compare_datastores(project, arguments)?;
    }
    if !only.is_empty() && of_node.is_empty() {
        return Ok(());
    }
    become_measure(project, words, common)
}

/// The node in little memory comes last: it takes the place of this process.
pub fn soak(project: &Project, arguments: &SoakArguments) -> Result<()> {
    let SoakArguments { minutes, memory_mib, only, common } = arguments;
    let wanted = |form: &str| only.is_empty() || only.iter().any(|word| word == form);
    prepare(project, common)?;
    if wanted("datastore") {
        announce("ten thousand random histories beside etcd, and mad messages", 7200);
        let full = ("SKIFF_TEST_DIFFERENTIAL", "full");
        long_form(project, "differential", "", full)?;
        long_form(project, "fuzz", "", ("SKIFF_TEST_FUZZ_CASES", "200000"))?;
        long_form(project, "wire", "", ("PROPTEST_CASES", "200000"))?;
    }
    if wanted("simulation") {
        announce("ten thousand simulated histories of several members", 3600);
        let mut command = simulation(project, &["--release"]);
        command.args(["--", "--nocapture", "every_history"]).env("SKIFF_TEST_HISTORIES", "10000");
        run_shown(&mut command)?;
    }
    if wanted("protocol") {
        announce("ten thousand simulated histories of a cluster, and mad messages", 1800);
        long_form(project, "protocol", "every_history", ("SKIFF_TEST_HISTORIES", "10000"))?;
        let mut parsers = cargo(project);
        parsers.args(["test", "--release", "--package", "microcluster", "--lib"]);
        parsers.args(["--", "panic", "interleaving"]);
        parsers.env("PROPTEST_CASES", "20000").env("SKIFF_TEST_HISTORIES", "20000");
        run_shown(&mut parsers)?;
        long_form(project, "network", "fuzz", ("PROPTEST_CASES", "2000"))?;
    }
    if ["members", "faults", "power-cuts"].into_iter().any(wanted) {
        // The daemon that they kill is an example.
        run_shown(cargo(project).args(["build", "--release", "--examples"]).args(EVERYTHING))?;
    }
    if wanted("members") {
        announce("several members: kills and cuts of the leader, twenty in a row", 600);
        for target in ["members", "members_change", "members_network", "healing"] {
            long_form(project, target, "", ("SKIFF_TEST_MEMBERS", "full"))?;
        }
    }
    if wanted("faults") {
        announce("thirty histories of members under faults, checked", 2400);
        long_form(project, "faults", "", ("SKIFF_TEST_FAULTS", "full"))?;
    }
    if wanted("power-cuts") {
        announce("power cuts on disks that lose what was not synced, forty in a row", 600);
        long_form(project, "power_cut", "", ("SKIFF_TEST_POWER_CUTS", "full"))?;
    }
    if wanted("leaves") {
        announce("ten-minute leaves through three renewals", 1300);
        let filter = "leaves_are_renewed";
        long_form(project, "node", filter, ("SKIFF_TEST_LEAF_MINUTES", "10"))?;
    }
    if wanted("machine") {
        announce("a virtual machine: reboot, clock, power cut", 1500);
        long_form(project, "vm", "full_form", ("SKIFF_TEST_VM", "full"))?;
    }
    if wanted("grow") {
        announce("one node, five and two workers, and one again", 600);
        long_form(project, "cluster", "grow", ("SKIFF_TEST_GROW", "full"))?;
    }
    if wanted("rounds") {
        announce("twenty rounds of nodes that are lost under load", 4800);
        long_form(project, "cluster", "rounds", ("SKIFF_TEST_ROUNDS", "20"))?;
    }
    if wanted("settings") {
        announce("settings that do no good on one node", 300);
        long_form(project, "cluster", "settings_reach", ("SKIFF_TEST_SETTINGS", "full"))?;
    }
    if wanted("recover") {
        announce("a cluster of two whose voter is lost for ever", 120);
        long_form(project, "cluster", "with_two_members", ("SKIFF_TEST_RECOVER", "full"))?;
    }
    if wanted("restore") {
        announce("three nodes, lost, and back on three new machines", 150);
        long_form(project, "cluster", "three_new_machines", ("SKIFF_TEST_RESTORE", "full"))?;
    }
    if wanted("addresses") {
        announce("four nodes with other addresses, one by one and all at once", 120);
        long_form(project, "cluster", "told_by_identity", ("SKIFF_TEST_ADDRESSES", "full"))?;
    }
    if wanted("walks") {
        announce("kills at every step of joining, leaving, removal and a change of roles", 3600);
        long_form(project, "cluster", "every_step", ("SKIFF_TEST_WALKS", "full"))?;
    }
    if wanted("authorities") {
        announce("new authorities for four nodes, there, back, over deaths and absences", 1500);
        long_form(project, "cluster", "new_authorities", ("SKIFF_TEST_AUTHORITIES", "full"))?;
    }
    if !wanted("memory") {
        return Ok(());
    }
    let mut words = vec!["soak".to_owned()];
    words.extend(option("minutes", minutes));
    words.extend(option("memory-mib", memory_mib));
    become_measure(project, words, common)
}

fn compare_datastores(project: &Project, arguments: &BenchArguments) -> Result<()> {
    let BenchArguments { rounds, short, skip_peer, common, .. } = arguments;
    let usual = if *short { 180 } else { 2700 };
    announce("our datastore, etcd and kine, in turns", usual);
    let mut command = Command::new(project.target.join("release/examples/compare"));
    command.arg("figures").arg("--skiff").arg(project.program());
    command.arg("--etcd").arg(project.dist_test().join("bin/etcd"));
    command.arg("--kine").arg(project.dist_measure().join("bin/kine-sqlite"));
    command.args(option("rounds", rounds));
    command.args(short.then_some("--short"));
    command.args(skip_peer.then_some("--stores=skiff"));
    command.args(common.output.is_some().then_some("--json"));
    run_shown(&mut command)
}

fn long_form(project: &Project, target: &str, filter: &str, form: (&str, &str)) -> Result<()> {
    let mut command = cargo(project);
    command.args(["test", "--release", "--test", target]).args(EVERYTHING);
    command.args(["--", "--test-threads=1", "--nocapture", filter]).env(form.0, form.1);
    run_shown(&mut command)
}

fn option(name: &str, value: &Option<impl ToString>) -> Option<String> {
    value.as_ref().map(|value| format!("--{name}={}", value.to_string()))
}

fn prepare(project: &Project, common: &Common) -> Result<()> {
    require_root("measure nodes")?;
    if common.no_build {
        return Ok(());
    }
    setup::run(project, &setup::Arguments { test: true })?;
    packages::ensure(packages::MEASURE, "measure nodes", &project.logs())?;
    let wanted = components::Arguments { test: true, measure: true, ..Default::default() };
    components::run(project, &wanted)?;
    build::run(project)?;
    announce("building the programs that measure", 120);
    let programs = ["--example", "measure", "--example", "compare"];
    run_shown(cargo(project).args(["build", "--release"]).args(EVERYTHING).args(programs))
}

/// In place of this process, so that Ctrl-C and the exit code are the program's own affair.
fn become_measure(project: &Project, mut words: Vec<String>, common: &Common) -> Result<()> {
    words.extend(option("output", &common.output));
    let program = project.target.join("release/examples/measure");
    let error = Command::new(&program)
        .args(words)
        .env("SKIFF_BIN", project.program())
        .env("SKIFF_DIST", project.dist())
        .exec();
    Err(anyhow!(error)).with_context(|| format!("cannot start {}", program.display()))
}
