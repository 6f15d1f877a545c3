use std::process::ExitCode;
use std::time::{Duration, Instant};

use microcluster::record::NodeRole;
use serde::Serialize;

use super::Outcome;
use crate::cli::output::{self, Choice};
use crate::cli::ui::Paint;
use crate::cli::{CommandError, EXIT_FAILURE, Session};
use crate::config::{Config, Sources};
use crate::host::{Facts, Finding, Level, findings};
use crate::node::cluster::Membership;
use crate::node::settings;

/// Look whether this machine can run a node
///
/// Changes nothing. Each finding that matters comes with what to do about it.
/// Exits with 1 when something keeps a node from running. `skiff start` looks
/// too, and refuses then unless it is told to skip the checks.
#[derive(clap::Args, Debug)]
#[command(verbatim_doc_comment)]
pub struct Arguments {
    #[command(flatten)]
    output: Choice,
}

#[derive(Serialize)]
struct Report {
    findings: Vec<Finding>,
    facts: Facts,
}

pub(super) fn run(arguments: Arguments, session: &Session) -> Outcome {
    let facts = Facts::gather(&session.paths, role(session));
    let mut findings = findings(&facts);
    findings.extend(idle(session));
    let report = Report { findings, facts };
    output::print(arguments.output, &report, |report, paint| text(&report.findings, paint))?;
    let broken = report.findings.iter().any(|finding| finding.level == Level::Error);
    Ok(if broken { ExitCode::from(EXIT_FAILURE) } else { ExitCode::SUCCESS })
}

/// Lines of the node's own files of which the cluster decides. What cannot be read is told by a
/// start.
fn idle(session: &Session) -> Vec<Finding> {
    let sources = Sources::of(session.config_file());
    let Ok(shared) = settings::shared(&session.paths) else { return vec![] };
    let Ok(config) = Config::load_with(&sources, &shared) else { return vec![] };
    let remedy = "take that line out, or `skiff set` the value for all nodes";
    let finding = |message| Finding {
        level: Level::Warning,
        name: "setting".into(),
        message,
        remedy: Some(remedy.into()),
    };
    settings::idle(&config).into_iter().map(finding).collect()
}

/// What the machine is in a cluster, if it belongs to one and that may be read.
pub(super) fn role(session: &Session) -> Option<NodeRole> {
    let membership = Membership::read(&session.paths.node()).ok().flatten();
    membership.map(|membership| membership.role)
}

/// How long a port may stay taken before a start: a process that was just killed keeps its
/// sockets until the kernel has taken it apart.
const PORT_PATIENCE: Duration = Duration::from_secs(5);
const PORT_PAUSE: Duration = Duration::from_millis(200);

/// What keeps a node from running, as an error; nothing when all is well enough.
pub(super) fn refuse_errors(session: &Session, role: Option<NodeRole>) -> Result<(), CommandError> {
    let begun = Instant::now();
    loop {
        let mut found = findings(&Facts::gather(&session.paths, role));
        found.retain(|finding| finding.level == Level::Error);
        if found.is_empty() {
            return Ok(());
        }
        let only_ports = found.iter().all(|finding| finding.name == "port");
        if !only_ports || begun.elapsed() > PORT_PATIENCE {
            return Err(refusal(found));
        }
        std::thread::sleep(PORT_PAUSE);
    }
}

fn refusal(errors: Vec<Finding>) -> CommandError {
    let mut error = CommandError::new("this machine cannot run a node as it is");
    let several = errors.len() > 1;
    for finding in errors {
        error = error.cause(format!("{}: {}", finding.name, finding.message));
        if let Some(remedy) = finding.remedy {
            error = error.hint(remedy);
        }
    }
    // There is one line for a hint, and each finding has its own.
    if several { error.hint("skiff check") } else { error }
}

/// Where the text of a finding begins, behind its level.
const MARGIN: usize = 8;

fn text(findings: &[Finding], paint: Paint) -> String {
    let mut out = String::new();
    for finding in findings {
        let level = match finding.level {
            Level::Ok => paint.good("ok     "),
            Level::Info => "info   ".to_owned(),
            Level::Warning => paint.warn("warning"),
            Level::Error => paint.bad("error  "),
        };
        let what = format!("{}: {}", finding.name, finding.message);
        out.push_str(&format!("{level} {}", output::paragraph(&what, MARGIN).trim_start()));
        if let Some(remedy) = &finding.remedy {
            let remedy = output::paragraph(remedy, MARGIN + 3);
            out.push_str(&format!("{}→ {}", " ".repeat(MARGIN + 1), remedy.trim_start()));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(level: Level, name: &str, message: &str, remedy: Option<&str>) -> Finding {
        let remedy = remedy.map(str::to_owned);
        Finding { level, name: name.into(), message: message.into(), remedy }
    }

    fn ill() -> Vec<Finding> {
        let programs = "not on the PATH: nft, ip, mount, and others that a node cannot do without";
        let long = "free some space, or choose another --root, or give the machine another disk";
        vec![
            finding(Level::Ok, "kernel", "6.1.0", None),
            finding(Level::Info, "default-route", "there is none, which is fine", None),
            finding(Level::Error, "programs", programs, Some("apt-get install nftables")),
            finding(Level::Warning, "disk", &"x".repeat(300), Some(long)),
        ]
    }

    #[test]
    fn findings_are_shown_whole_within_80_columns() {
        let text = text(&ill(), Paint::off());
        assert!(text.lines().all(|line| line.chars().count() <= output::COLUMNS), "{text}");
        insta::assert_snapshot!(text);
    }

    #[test]
    fn a_start_is_refused_with_the_remedy_or_where_they_are() {
        let one = refusal(vec![ill().remove(2)]);
        assert_eq!(one.hint.as_deref(), Some("apt-get install nftables"));
        let several = refusal(ill().split_off(2));
        assert_eq!(several.causes.len(), 2);
        assert_eq!(several.hint.as_deref(), Some("skiff check"));
    }
}
