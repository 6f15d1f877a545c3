use std::process::ExitCode;

use serde_json::json;
use skiff_api::{ClientError, Condition, Notice, Phase, Status};
use time::OffsetDateTime;

use super::Outcome;
use crate::cli::interrupt::Interrupt;
use crate::cli::output::{self, Cell, Choice, Format};
use crate::cli::ready::{self, Wait};
use crate::cli::ui::{Paint, Tone};
use crate::cli::{CommandError, EXIT_FAILURE, Session, span, word};
use crate::node::plan::EXTERNAL_DATASTORE;

/// Show how the node is
///
/// What it still waits for, its services and addons, and what you should know:
/// limits that hold, things that need a hand. Exits with 0 when the node is
/// ready and with 1 when it is not, a stopped node included.
///
///   skiff status
///   skiff status --wait-ready --timeout 60
///   skiff status --output json
#[derive(clap::Args, Debug)]
#[command(verbatim_doc_comment)]
pub struct Arguments {
    /// Wait until the node is ready, saying what is waited for
    #[arg(long, short)]
    wait_ready: bool,

    /// Seconds to wait with --wait-ready; 0 waits as long as it takes
    #[arg(long, default_value = "300", value_parser = span::seconds, value_name = "SECONDS", requires = "wait_ready")]
    timeout: u64,

    #[command(flatten)]
    output: Choice,
}

pub(super) async fn run(arguments: Arguments, session: &Session) -> Outcome {
    let status = match session.client().get("/v1/status").await {
        Ok(status) => status,
        Err(error) => return Err(stopped(error, arguments.output)?),
    };
    let status: Status = match arguments.wait_ready {
        true => {
            let mut interrupt = Interrupt::new()?;
            ready::wait(session, Wait::new(arguments.timeout), &mut interrupt).await?
        }
        false => status,
    };
    output::print(arguments.output, &status, text)?;
    match status.phase {
        Phase::Ready => Ok(ExitCode::SUCCESS),
        _ => Ok(ExitCode::from(EXIT_FAILURE)),
    }
}

/// A stopped node has a status too, for programs.
fn stopped(error: ClientError, output: Choice) -> Result<CommandError, CommandError> {
    if matches!(error, ClientError::NotRunning(_)) && output.format != Format::Text {
        let phase = json!({ "phase": Phase::Stopped });
        output::print(output, &phase, |_, _| String::new())?;
    }
    Ok(error.into())
}

fn text(status: &Status, paint: Paint) -> String {
    let (phase, tone) = word::phase(status.phase);
    let address = status.address.as_deref().unwrap_or("no address yet");
    // A name may have 63 letters: the rest goes below it then.
    let columns = format!("node {} ({address}) is {phase}", status.node).chars().count();
    let gap = if columns > output::COLUMNS { "\n  " } else { " " };
    let node = paint.bold(&status.node);
    let uptime = output::age(status.uptime_s);
    let mut out = format!("node {node}{gap}({address}) is {}\n", paint.tone(tone, phase));
    out.push_str(&format!(
        "skiff {}, Kubernetes {}, up {uptime}\n",
        status.version, status.kubernetes
    ));
    if let Some(part) = &status.cluster {
        let place = |(name, address): &(String, String)| format!("{name} ({address})");
        let others: Vec<String> = part.control_plane.iter().map(place).collect();
        let others = match others.is_empty() {
            true => String::new(),
            false => format!(", with its control plane on {}", others.join(", ")),
        };
        let member = part.datastore.as_ref().map(|role| format!(", {role} of its datastore"));
        let member = member.unwrap_or_default();
        let line = format!("{} of a cluster{member}{others}", part.role);
        out.push_str(&output::paragraph(&line, 0));
    }
    if let Some(datastore) = &status.datastore {
        let answers =
            |condition: &Condition| condition.name == EXTERNAL_DATASTORE && condition.holds;
        let answers = match status.conditions.iter().any(answers) {
            true => ", which answers",
            false => ", which does not answer",
        };
        out.push_str(&output::paragraph(&format!("objects are kept in {datastore}{answers}"), 0));
    }
    if let Some(part) = &status.backup {
        let line = super::backup::line(part, OffsetDateTime::now_utc());
        out.push_str(&output::paragraph(&line, 0));
    }
    let open = status.conditions.iter().filter(|condition| !condition.holds);
    let open: Vec<Vec<Cell>> = open.map(|c| vec![(&c.name).into(), (&c.message).into()]).collect();
    section(&mut out, "waiting for", &open, paint);
    let services: Vec<Vec<Cell>> = status
        .services
        .iter()
        .map(|s| vec![(&s.name).into(), word::service(s.state), (&s.message).into()])
        .collect();
    section(&mut out, "services", &services, paint);
    let addons: Vec<Vec<Cell>> = status
        .addons
        .iter()
        .map(|a| vec![(&a.name).into(), word::addon(a.state), super::addons::why(a).into()])
        .collect();
    section(&mut out, "addons", &addons, paint);
    notices(&mut out, &status.notices, paint);
    out
}

fn section(out: &mut String, title: &str, rows: &[Vec<Cell>], paint: Paint) {
    if !rows.is_empty() {
        out.push_str(&format!("\n{title}:\n{}", output::table(rows, 2, paint)));
    }
}

fn notices(out: &mut String, notices: &[Notice], paint: Paint) {
    if notices.is_empty() {
        return;
    }
    out.push_str("\nyou should know:\n");
    for notice in notices {
        out.push_str(&output::paragraph(&notice.message, 2));
        if let Some(remedy) = &notice.remedy {
            let text = output::paragraph(&format!("remedy: {remedy}"), 4);
            out.push_str(&paint.tone(Tone::Dim, text.trim_end()));
            out.push('\n');
        }
    }
}
