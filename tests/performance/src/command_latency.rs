//! How long a person waits for a screen.

use std::time::Instant;

use harness::TestNode;

use crate::figure::{Report, Side, quantile};

const COMMANDS: [&[&str]; 5] = [&["status"], &["services"], &["version"], &["addons"], &["get"]];

pub fn measure(node: &TestNode, runs: usize, report: &mut Report) {
    for command in COMMANDS {
        let mut taken = Vec::new();
        for _ in 0..runs {
            let begun = Instant::now();
            let outcome = node.skiff(command);
            taken.push(begun.elapsed().as_secs_f64() * 1000.0);
            if !outcome.ok() {
                report.note(format!("skiff {} failed: {}", command.join(" "), outcome.stderr));
            }
        }
        let name = format!("skiff {}, p95, ms", command.join(" "));
        report.add(&name, Side::Skiff, quantile(&taken, 0.95));
    }
}
