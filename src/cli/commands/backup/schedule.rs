use std::process::ExitCode;

use skiff_api::{BackupPart, Status};
use time::OffsetDateTime;

use super::Outcome;
use crate::cli::commands::tokens::until;
use crate::cli::output::{self, Cell, Choice, Format};
use crate::cli::ui::Paint;
use crate::cli::{CommandError, EXIT_FAILURE, Session};

/// Show how the schedule of archives is kept
///
/// skiffd takes archives by itself when the settings say how often, where to and
/// for whom; in a cluster it is the node whose datastore leads. One that was missed
/// is taken at once, and what fails is tried again. Exits with 1 when archives fail
/// or none was taken for two periods.
///
///   [backup]
///   schedule = "6h"
///   place = "/var/backups/skiff"
///   encrypt-to = ["age1…"]
#[derive(clap::Args, Debug)]
#[command(verbatim_doc_comment)]
pub struct Arguments {
    #[command(flatten)]
    output: Choice,
}

pub(super) async fn run(arguments: Arguments, session: &Session) -> Outcome {
    let status: Status = session.client().get("/v1/status").await?;
    let Some(part) = status.backup else {
        if arguments.output.format != Format::Text {
            output::print(arguments.output, &None::<BackupPart>, |_, _| String::new())?;
        }
        return Err(CommandError::new("no archives are taken on this node: there is no schedule")
            .hint(format!(
                "set backup.schedule in {}, then `sudo skiff stop` and `sudo skiff start`",
                session.config_file().display()
            )));
    };
    let now = OffsetDateTime::now_utc();
    output::print(arguments.output, &part, |part, paint| text(part, now, paint))?;
    match part.failures > 0 || part.overdue {
        false => Ok(ExitCode::SUCCESS),
        true => Ok(ExitCode::from(EXIT_FAILURE)),
    }
}

fn text(part: &BackupPart, now: OffsetDateTime, paint: Paint) -> String {
    let time = |at: &Option<String>, none: &str| {
        at.as_deref().map_or_else(|| none.to_owned(), |at| until(at, now))
    };
    let mut rows: Vec<Vec<Cell>> = vec![
        vec!["place".into(), (&part.place).into()],
        vec!["every".into(), output::age(part.every_s).into()],
        vec!["newest".into(), time(&part.newest, "none").into()],
        vec!["next".into(), time(&part.next, "by another node").into()],
    ];
    if part.overdue {
        rows.push(vec!["overdue".into(), "two periods without a good one".into()]);
    }
    if let Some(failure) = &part.failure {
        rows.push(vec!["failed".into(), format!("{} times: {failure}", part.failures).into()]);
    }
    output::table(&rows, 0, paint)
}

/// In a line of the status.
pub(in crate::cli::commands) fn line(part: &BackupPart, now: OffsetDateTime) -> String {
    let newest = part.newest.as_deref().map(|at| until(at, now));
    match (part.elsewhere, newest) {
        (true, _) => "archives are taken by another node".into(),
        (false, None) => "archives: none yet".into(),
        (false, Some(newest)) => format!("archives: the newest {newest}"),
    }
}
