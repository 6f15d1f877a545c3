//! `test`: set-up, build, then every stage of tests, and one line with the counts at the end.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::Args;
use nix::sys::statvfs::statvfs;
use serde::Deserialize;

use super::build::{EVERYTHING, cargo, simulation};
use super::{build, components, setup};
use crate::command::{announce, duration, nice, output_of, run_logged};
use crate::project::Project;
use crate::test_counts::TestReport;

#[derive(Args, Debug, Default)]
pub struct Arguments {
    /// Run only these stages
    #[arg(long = "stage", value_name = "NAME")]
    pub stages: Vec<String>,
    /// Take what is built as it is
    #[arg(long)]
    pub no_build: bool,
}

/// A part of the tests that is run and counted by itself.
#[derive(Clone, Copy)]
struct Stage {
    name: &'static str,
    /// What it tests, for the user to read while it runs.
    what: &'static str,
    usual_seconds: u64,
    run: fn(&Project, &Path) -> Result<TestReport>,
}

/// In the order of what they need: what fails early and cheaply comes first, and what waits more
/// than it computes, so that it runs beside the nodes.
const STAGES: &[Stage] = &[
    Stage {
        name: PLAIN_STAGE,
        what: "everything that needs no node",
        usual_seconds: 1200,
        run: plain,
    },
    Stage { name: "storage", what: "upstream's storage tests", usual_seconds: 240, run: storage },
    Stage {
        name: "simulation",
        what: "datastore members by a seed",
        usual_seconds: 300,
        run: simulated,
    },
    Stage {
        name: "components",
        what: "the wrappers of upstream",
        usual_seconds: 60,
        run: wrappers,
    },
    Stage {
        name: "arm64",
        what: "cross-build for arm64",
        usual_seconds: 600,
        run: super::cross::cross_build,
    },
    Stage { name: "vm", what: "a virtual machine, emulated", usual_seconds: 500, run: machine },
    Stage { name: NODE_STAGE, what: "nodes with real pods", usual_seconds: 1300, run: node },
];

const PLAIN_STAGE: &str = "plain";
/// The stage that runs beside all others: its nodes wait for half of their time. The others leave
/// the processor to it when it wants that.
const NODE_STAGE: &str = "node";

/// Test targets that need a whole node, and so run only a few tests at a time.
const NODE_TARGETS: &[&str] = &["node", "cluster", "addons", "performance", "confinement", "snap"];
/// A node in a test waits for half of its time (for a lease to end, a link to come back), and each
/// has a namespace and a root of its own: two tests fill two cores, more would starve each other.
const NODE_TESTS_AT_ONCE: &str = "--test-threads=2";
/// Two nodes with disks of their own, their components, a virtual machine and what it writes.
const FREE_GIB_MIN: u64 = 12;
/// The test target whose node lives in a virtual machine: a stage of its own.
const MACHINE_TARGET: &str = "vm";
/// The test target that is built apart from all others: a stage of its own as well.
const SIMULATION_TARGET: &str = "simulation";

pub fn run(project: &Project, arguments: &Arguments) -> Result<()> {
    let stages = choose_stages(&arguments.stages)?;
    let logs = project.target.join("test-logs");
    fs::create_dir_all(&logs).with_context(|| format!("cannot create {}", logs.display()))?;
    if !arguments.no_build {
        setup::run(project, &setup::Arguments { test: true })?;
        components::run(project, &components::Arguments { test: true, ..Default::default() })?;
        build(project, &stages, &logs)?;
    }
    check_room(&project.target)?;
    let (beside, others): (Vec<Stage>, _) =
        stages.into_iter().partition(|stage| stage.name == NODE_STAGE);
    let all = |stages: Vec<Stage>| {
        let mut total = TestReport::default();
        stages.iter().for_each(|stage| total.add(run_stage(project, stage, &logs)));
        total
    };
    let total = thread::scope(|scope| {
        let beside = scope.spawn(|| all(beside));
        let mut total = all(others);
        total.add(beside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        total
    });
    for reason in &total.skips {
        println!("skipped: {reason}");
    }
    for name in &total.failures {
        println!("failed: {name}");
    }
    println!("{}", total.counts);
    if total.counts.failed > 0 {
        bail!("{} tests failed; what they said is in {}", total.counts.failed, logs.display());
    }
    Ok(())
}

/// Builds the program, and beside it the tests: half of the program's time goes on one processor.
fn build(project: &Project, stages: &[Stage], logs: &Path) -> Result<()> {
    thread::scope(|scope| {
        let of_workspace = |stage: &Stage| stage.name == NODE_STAGE || stage.name == PLAIN_STAGE;
        let tests = stages.iter().any(of_workspace).then(|| {
            let mut command = cargo(project);
            command.args(["test", "--no-run"]).args(EVERYTHING);
            scope.spawn(move || run_logged(&mut command, &logs.join("build.log")))
        });
        build::run(project)?;
        let Some(tests) = tests else { return Ok(()) };
        tests.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)).map(drop)
    })
}

/// On a full disk tests fail for reasons that none of them names.
fn check_room(target: &Path) -> Result<()> {
    for place in [target, &std::env::temp_dir(), Path::new("/var/tmp")] {
        let of = statvfs(place).with_context(|| format!("cannot look at {}", place.display()))?;
        let free_gib = (of.blocks_available() * of.fragment_size()) >> 30;
        if free_gib < FREE_GIB_MIN {
            bail!(
                "{} has {free_gib} GiB free, the tests need {FREE_GIB_MIN}: make room there",
                place.display()
            );
        }
    }
    Ok(())
}

fn choose_stages(names: &[String]) -> Result<Vec<Stage>> {
    if names.is_empty() {
        return Ok(STAGES.to_vec());
    }
    let known = || STAGES.iter().map(|stage| stage.name).collect::<Vec<_>>().join(", ");
    names
        .iter()
        .map(|name| {
            STAGES
                .iter()
                .find(|stage| stage.name == name)
                .copied()
                .with_context(|| format!("no stage is called {name}; there are {}", known()))
        })
        .collect()
}

fn run_stage(project: &Project, stage: &Stage, logs: &Path) -> TestReport {
    announce(&format!("tests: {} ({})", stage.name, stage.what), stage.usual_seconds);
    let started = Instant::now();
    let log = logs.join(format!("{}.log", stage.name));
    let report = (stage.run)(project, &log).unwrap_or_else(|error| {
        eprintln!("{error:#}");
        TestReport::default().with_outcome(false, &format!("stage {}", stage.name))
    });
    eprintln!("    {}: {}, {}", stage.name, report.counts, duration(started.elapsed()));
    for name in &report.failures {
        eprintln!("    failed: {name}");
    }
    for said in &report.said {
        eprintln!("---- {said}\n----");
    }
    report
}

fn plain(project: &Project, log: &Path) -> Result<TestReport> {
    // Tests that kill a daemon run it as an example of its crate, and `cargo test` builds those
    // only when no target is chosen.
    let mut examples = cargo(project);
    examples.args(["build", "--examples"]).args(EVERYTHING);
    run_logged(&mut examples, &log.with_extension("examples.log"))?;
    let mut report = TestReport::default();
    for (number, arguments) in plain_runs(&test_targets(project)?).into_iter().enumerate() {
        let log = log.with_extension(format!("{number}.log"));
        let mut command = cargo(project);
        command.args(["test", "--no-fail-fast"]).args(arguments);
        report.add(cargo_test(nice(&command), &["--show-output"], &log));
    }
    Ok(report)
}

fn simulated(project: &Project, log: &Path) -> Result<TestReport> {
    Ok(cargo_test(nice(&simulation(project, &[])), &["--show-output"], log))
}

fn node(project: &Project, log: &Path) -> Result<TestReport> {
    let mut report = TestReport::default();
    for target in test_targets(project)?.iter().filter(|t| NODE_TARGETS.contains(&t.as_str())) {
        let mut command = cargo(project);
        command.args(["test", "--no-fail-fast", "--test", target]).args(EVERYTHING);
        let log = log.with_extension(format!("{target}.log"));
        report.add(cargo_test(command, &["--show-output", NODE_TESTS_AT_ONCE], &log));
    }
    Ok(report)
}

/// The short form; the full one belongs to `soak`.
fn machine(project: &Project, log: &Path) -> Result<TestReport> {
    let mut command = cargo(project);
    command.args(["test", "--test", MACHINE_TARGET]).args(EVERYTHING);
    command.env("SKIFF_TEST_VM", "short");
    Ok(cargo_test(command, &["--show-output", "--test-threads=1", "--skip", "full_form"], log))
}

/// What `cargo test` is called with to run all that needs no node. The whole workspace is
/// selected each time, so that shared crates are compiled once and with the same features.
pub fn plain_runs(targets: &[String]) -> Vec<Vec<String>> {
    let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let mut programs = words(&format!("{} --lib --bins", EVERYTHING.join(" ")));
    let of_another = [MACHINE_TARGET, SIMULATION_TARGET];
    let plain =
        |t: &&String| !NODE_TARGETS.contains(&t.as_str()) && !of_another.contains(&t.as_str());
    for target in targets.iter().filter(plain) {
        programs.extend(["--test".to_owned(), target.clone()]);
    }
    vec![programs, words(&format!("{} --doc", EVERYTHING.join(" ")))]
}

/// The names of all integration tests of the workspace.
pub fn test_targets(project: &Project) -> Result<Vec<String>> {
    #[derive(Deserialize)]
    struct Metadata {
        packages: Vec<Package>,
    }
    #[derive(Deserialize)]
    struct Package {
        targets: Vec<Target>,
    }
    #[derive(Deserialize)]
    struct Target {
        name: String,
        kind: Vec<String>,
    }
    let mut command = cargo(project);
    command.args(["metadata", "--no-deps", "--format-version", "1"]);
    let text = output_of(&mut command).context("cargo does not say which tests there are")?;
    let metadata: Metadata = serde_json::from_str(&text)?;
    let targets = metadata.packages.into_iter().flat_map(|package| package.targets);
    let mut names: Vec<_> = targets
        .filter(|target| target.kind.iter().any(|kind| kind == "test"))
        .map(|target| target.name)
        .collect();
    names.sort();
    names.dedup();
    Ok(names)
}

fn cargo_test(mut command: Command, options: &[&str], log: &Path) -> TestReport {
    command.arg("--").args(options);
    let outcome = run_logged(&mut command, log);
    let output = fs::read_to_string(log).unwrap_or_default();
    let report = TestReport::of_cargo(&output);
    if report.counts.failed == 0
        && let Err(error) = &outcome
    {
        eprintln!("{error:#}");
    }
    report.with_outcome(outcome.is_ok(), &log.display().to_string())
}

/// The same flags as the build, so that what is compiled already is taken; vetting all of
/// Kubernetes would take ten times as long as the tests.
fn wrappers(project: &Project, log: &Path) -> Result<TestReport> {
    let mut report = TestReport::default();
    let folders =
        [("resident", "providerless"), ("kube", "providerless"), ("kine", "netgo,osusergo")];
    for (folder, tags) in folders {
        let mut command = Command::new("go");
        command
            .args(["test", "-v", "-trimpath", "-vet=off", "-mod=readonly"])
            .arg(format!("-tags={tags}"))
            .args(["-ldflags=-s -w", "./..."])
            .env("CGO_ENABLED", "0")
            .env("GOFLAGS", "")
            .current_dir(project.components().join(folder));
        report.add(go_test(command, &log.with_file_name(format!("{folder}.log"))));
    }
    Ok(report)
}

fn go_test(mut command: Command, log: &Path) -> TestReport {
    let outcome = run_logged(&mut command, log);
    let output = fs::read_to_string(log).unwrap_or_default();
    TestReport::of_go(&output).with_outcome(outcome.is_ok(), &log.display().to_string())
}

/// Upstream's own storage tests on our datastore; the script of that folder says how it counts.
fn storage(project: &Project, log: &Path) -> Result<TestReport> {
    let mut command = Command::new(project.root.join("tests/datastore/run"));
    command.env("SKIFF_DATASTORE", format!("{} datastore", project.program().display()));
    let outcome = run_logged(&mut nice(&command), log);
    if let Err(error) = &outcome {
        eprintln!("{error:#}");
    }
    let output = fs::read_to_string(log).unwrap_or_default();
    Ok(TestReport::of_summary(&output).with_outcome(outcome.is_ok(), &log.display().to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_that_need_a_node_are_not_among_the_plain_ones() {
        let runs = plain_runs(&[
            "tidy".into(),
            "node".into(),
            "vm".into(),
            "simulation".into(),
            "cli".into(),
        ]);
        let everything = EVERYTHING.join(" ");
        assert_eq!(runs[0].join(" "), format!("{everything} --lib --bins --test tidy --test cli"));
    }

    #[test]
    fn an_unknown_stage_is_refused_with_the_known_ones() {
        let error = choose_stages(&["nod".into()]).err().unwrap().to_string();
        assert!(error.starts_with("no stage is called nod; there are plain, "), "{error}");
    }
}
