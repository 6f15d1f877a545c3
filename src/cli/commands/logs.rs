use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;
use std::process::ExitCode;

use futures::stream::{self, StreamExt};
use skiff_supervisor::output::LogReader;
use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};

use super::Outcome;
use crate::cli::{CommandError, Session, log_line, output, span};

/// Show the logs of the node's daemons
///
/// Reads the files below the node's root, rotated ones included: it works on a
/// stopped node too. Needs root or the group skiff. Without a name the logs of
/// all daemons are merged by time, each line with its daemon's name in front.
/// Logs of pods: `skiff kubectl logs`.
///
///   skiff logs kube-node --lines 20
///   skiff logs --since 10m
///   skiff logs datastore containerd --follow
#[derive(clap::Args, Debug)]
#[command(verbatim_doc_comment)]
pub struct Arguments {
    /// skiffd, datastore, containerd, kube-control or kube-node (can be repeated)
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,

    /// Go on printing what is written
    #[arg(long, short)]
    follow: bool,

    /// How many of the last lines to print [default: 100; with --since all]
    #[arg(long, short = 'n')]
    lines: Option<usize>,

    /// Only lines written since: 90s, 10m, 2h, 1d, or a time like 2026-01-31T12:00:00Z
    #[arg(long, value_name = "TIME", value_parser = since)]
    since: Option<Since>,

    /// Print lines as they are in the file
    #[arg(long)]
    raw: bool,
}

/// Where to begin.
#[derive(Clone, Copy, Debug)]
enum Since {
    Ago(u64),
    At(OffsetDateTime),
}

/// Lines that are printed when nobody says how many.
const LINES_DEFAULT: usize = 100;

/// One line, with what it is sorted by.
struct Line {
    at: Option<OffsetDateTime>,
    service: usize,
    text: String,
}

pub(super) async fn run(arguments: Arguments, session: &Session) -> Outcome {
    let now = OffsetDateTime::now_utc();
    let begin = arguments.since.map(|since| match since {
        Since::Ago(seconds) => now - Duration::seconds(i64::try_from(seconds).unwrap_or(i64::MAX)),
        Since::At(at) => at,
    });
    let lines = arguments.lines.or_else(|| begin.is_none().then_some(LINES_DEFAULT));
    let names = match arguments.services.is_empty() {
        true => every(&session.paths.log())?,
        false => arguments.services.clone(),
    };
    let mut readers = Vec::new();
    for name in &names {
        // With a beginning every line has to be looked at.
        readers.push(open(session, name, lines.filter(|_| begin.is_none()))?);
    }
    let merged = names.len() > 1;
    let width = names.iter().map(String::len).max().unwrap_or(0);
    let show = |line: &Line| {
        let text = if arguments.raw { line.text.clone() } else { log_line::render(&line.text) };
        match merged {
            true => output::write(&format!("{:width$} | {text}\n", names[line.service])),
            false => output::write(&format!("{text}\n")),
        }
    };
    let mut found = Vec::new();
    for (service, reader) in readers.iter_mut().enumerate() {
        collect(reader, service, begin, now, &mut found)?;
    }
    found.sort_by_key(|line| line.at);
    let first = lines.map_or(0, |lines| found.len().saturating_sub(lines));
    found.iter().skip(first).try_for_each(show)?;
    if arguments.follow {
        follow(readers, show).await?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What is in the files now, from `begin` on. A line without a time belongs to the one before it.
fn collect(
    reader: &mut LogReader,
    service: usize,
    begin: Option<OffsetDateTime>,
    now: OffsetDateTime,
    found: &mut Vec<Line>,
) -> io::Result<()> {
    let mut last = None;
    while let Some(text) = reader.read_line()? {
        let at = log_line::written_at(&text, now).or(last);
        last = at;
        if begin.is_none_or(|begin| at.is_some_and(|at| at >= begin)) {
            found.push(Line { at, service, text });
        }
    }
    Ok(())
}

async fn follow(
    readers: Vec<LogReader>,
    show: impl Fn(&Line) -> Result<(), CommandError>,
) -> Result<(), CommandError> {
    let streams = readers.into_iter().enumerate().map(|(service, reader)| {
        let lines = stream::unfold(reader, |mut reader| async {
            let line = reader.next_line().await;
            Some((line, reader))
        });
        Box::pin(lines.map(move |line| (service, line)))
    });
    let mut all = stream::select_all(streams);
    while let Some((service, text)) = all.next().await {
        show(&Line { at: None, service, text: text? })?;
    }
    Ok(())
}

/// Every daemon that has a log.
fn every(dir: &Path) -> Result<Vec<String>, CommandError> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) => return Err(unreadable(dir, &error)),
    };
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter_map(|name| name.strip_suffix(".log").map(str::to_owned))
        .collect();
    names.sort();
    match names.is_empty() {
        true => Err(CommandError::new("there is no log yet").hint("sudo skiff start")),
        false => Ok(names),
    }
}

fn open(session: &Session, name: &str, lines: Option<usize>) -> Result<LogReader, CommandError> {
    let path = session.paths.daemon_log(name);
    if name.contains('/') || name.is_empty() {
        return Err(CommandError::new(format!("{name:?} is not a service")).hint("skiff services"));
    }
    // LogReader takes a file that is not there for an empty one: it may come.
    match fs::File::open(&path) {
        Ok(_) => LogReader::open(&path, lines).map_err(|error| unreadable(&path, &error)),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let known = every(&session.paths.log())?.join(", ");
            Err(CommandError::new(format!("there is no log of {name}"))
                .cause(format!("there are logs of {known}"))
                .hint("skiff services"))
        }
        Err(error) => Err(unreadable(&path, &error)),
    }
}

fn unreadable(path: &Path, error: &io::Error) -> CommandError {
    let failed = CommandError::because(format!("cannot read {}", path.display()), error);
    match error.kind() {
        ErrorKind::PermissionDenied => {
            failed.hint("sudo usermod --append --groups skiff $USER, then log in again")
        }
        ErrorKind::NotFound => {
            CommandError::new("this node was never started").hint("sudo skiff start")
        }
        _ => failed,
    }
}

fn since(text: &str) -> Result<Since, String> {
    if text.contains('T') {
        let at = OffsetDateTime::parse(text, &Rfc3339);
        return at.map(Since::At).map_err(|_| format!("{text:?} is not a time"));
    }
    span::seconds(text).map(Since::Ago)
}
