use std::path::PathBuf;
use std::process::ExitCode;

use time::OffsetDateTime;
use time::macros::format_description;

use crate::cli::{CommandError, Session, output, ui};
use crate::host::{Facts, findings};
use crate::inspect::{self, Request};

/// Gather what helps to find out what is wrong into one file
///
/// Status, services, logs, generated configuration, the state of the cluster and of the machine,
/// as a tar.gz that only you can read. Secrets, keys, tokens and the values of pods' variables are
/// left out or blacked out. It works when the node is stopped or sick: what could not be had is
/// named in summary.txt. Prints the name of the file.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// File to write [default: skiff-inspect-<time>.tar.gz here]
    #[arg(long, value_name = "FILE")]
    to: Option<PathBuf>,
}

pub(super) async fn run(arguments: Arguments, session: &Session) -> Result<ExitCode, CommandError> {
    let out = arguments.to.unwrap_or_else(|| default_name(OffsetDateTime::now_utc()));
    let found = findings(&Facts::gather(&session.paths, super::check::role(session)));
    let request = Request {
        paths: session.paths.clone(),
        findings: serde_json::to_string_pretty(&found).unwrap_or_default(),
        out: out.clone(),
    };
    ui::say("gathering, at most a minute");
    let failures = inspect::bundle(&request, &|_| {}).await?;
    if failures > 0 {
        ui::say(&format!("{failures} things could not be had: summary.txt says why"));
    }
    output::write(&format!("{}\n", out.display()))?;
    Ok(ExitCode::SUCCESS)
}

fn default_name(now: OffsetDateTime) -> PathBuf {
    let format = format_description!("[year][month][day]-[hour][minute][second]");
    let stamp = now.format(&format).unwrap_or_default();
    format!("skiff-inspect-{stamp}.tar.gz").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_named_by_the_time() {
        let name = default_name(OffsetDateTime::UNIX_EPOCH);
        assert_eq!(name.to_string_lossy(), "skiff-inspect-19700101-000000.tar.gz");
    }
}
