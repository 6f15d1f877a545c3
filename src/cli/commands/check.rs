use std::process::ExitCode;

use serde::Serialize;

use crate::cli::{CommandError, Session, output};
use crate::host::{Facts, Finding, Level, findings};

/// Look whether this machine can run a node
///
/// Changes nothing. Each finding that matters comes with what to do about it. Exits with 1 when
/// something keeps a node from running.
#[derive(clap::Args, Debug)]
pub struct Arguments {}

#[derive(Serialize)]
struct Report {
    findings: Vec<Finding>,
    facts: Facts,
}

pub(super) fn run(_: Arguments, session: &Session) -> Result<ExitCode, CommandError> {
    let facts = Facts::gather(&session.paths);
    let report = Report { findings: findings(&facts), facts };
    output::print(session.format, &report, |report| text(&report.findings))?;
    let broken = report.findings.iter().any(|finding| finding.level == Level::Error);
    Ok(if broken { ExitCode::from(crate::cli::EXIT_FAILURE) } else { ExitCode::SUCCESS })
}

fn text(findings: &[Finding]) -> String {
    let mut out = String::new();
    for finding in findings {
        let level = match finding.level {
            Level::Ok => "ok",
            Level::Info => "info",
            Level::Warning => "warning",
            Level::Error => "error",
        };
        let line = format!("{level:8} {}: {}", finding.name, finding.message);
        out.push_str(&output::cut(&line, output::COLUMNS));
        out.push('\n');
        if let Some(remedy) = &finding.remedy {
            out.push_str(&format!("         → {remedy}\n"));
        }
    }
    out
}
