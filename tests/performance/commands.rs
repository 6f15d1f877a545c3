//! How long the short commands take, from the start of the process to its end.

use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Result, ensure};
use harness::{Series, TestNode, distribution, skiff_binary};

use crate::namespace::is_interrupted;

pub const COMMANDS: [&str; 5] = ["status", "services", "version", "addons", "get"];

/// Milliseconds of `count` runs of one command.
pub fn time(node: &TestNode, verb: &str, count: usize) -> Result<Series> {
    let mut series = Series::default();
    for _ in 0..count {
        ensure!(!is_interrupted(), "interrupted");
        // Not by the namespace: the command talks over a local socket, and nsenter takes time.
        let mut command = Command::new(skiff_binary());
        command.arg(verb).env("SKIFF_ROOT", node.root()).env("SKIFF_DIST", distribution());
        command.stdin(Stdio::null());
        let begun = Instant::now();
        let output = command.output()?;
        series.push(begun.elapsed().as_secs_f64() * 1000.0);
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "skiff {verb} failed\n{said}");
    }
    Ok(series)
}
