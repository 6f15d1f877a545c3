use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use serde::Serialize;
use skiff_datastore::backup::retention::Keep;
use skiff_datastore::backup::source::SourceError;
use skiff_datastore::backup::take::TakeOptions;
use skiff_datastore::backup::{
    Backup, BackupError, BackupName, Done, Job, JobError, Report, S3, Sealing, Target, take,
};
use skiff_datastore::options::parse_duration;
use skiff_datastore::{Listen, Revision};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::Outcome;
use crate::cli::output::{self, Cell, Choice, Format};
use crate::cli::ui::Paint;
use crate::cli::{CommandError, interrupt, ui};

/// Back a running datastore up, and prove that the backup is good
///
/// The backup is of one revision and holds everything acknowledged before. It
/// gets its name only after it was restored into a scratch directory and found
/// to be what the datastore holds; a backup of that name stays until then.
///
///   skiff datastore backup --from 127.0.0.1:2379 today.backup
///
/// In a directory each backup is named after its time and revision. This takes
/// one every six hours, until it is ended, and removes old ones:
///
///   skiff datastore backup --every 6h --keep-last 4 --keep-daily 7 backups/
#[derive(clap::Args, Debug)]
#[command(verbatim_doc_comment)]
pub struct Arguments {
    /// A file, a directory that is there, or s3://BUCKET/PREFIX
    ///
    /// A bucket is found by AWS_ENDPOINT_URL_S3, AWS_REGION, AWS_ACCESS_KEY_ID
    /// and AWS_SECRET_ACCESS_KEY in the environment.
    #[arg(value_name = "FILE|DIR|S3")]
    target: PathBuf,

    /// Where the datastore serves clients: HOST:PORT or unix:PATH
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:2379")]
    from: Listen,

    /// Back up an older revision, one that is not compacted yet
    ///
    /// With the leases of now: leases have no history.
    #[arg(long, value_name = "REVISION", conflicts_with = "every")]
    #[arg(value_parser = clap::value_parser!(i64).range(1..))]
    revision: Option<i64>,

    /// Encrypt for the owner of this key: age1…; can be repeated
    ///
    /// `age-keygen` makes keys, and `age` opens the file also without Skiff.
    #[arg(long, value_name = "RECIPIENT", conflicts_with = "passphrase_file")]
    encrypt_to: Vec<String>,

    /// Encrypt with the passphrase in the first line of this file
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,

    /// Prove the backup in this directory; the system's temporary one if not set
    ///
    /// It needs as much room as the datastore's own directory.
    #[arg(long, value_name = "DIR")]
    scratch: Option<PathBuf>,

    /// Go on, and take a backup this often: 30m, 6h
    ///
    /// Counted from the newest in the directory. What fails is reported and
    /// tried again after 10 s, then less often, at least every 10 minutes.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    every: Option<Duration>,

    #[command(flatten)]
    keep: KeepArguments,

    #[command(flatten)]
    output: Choice,
}

/// With none of these every backup stays.
#[derive(clap::Args, Debug)]
pub(in crate::cli::commands) struct KeepArguments {
    /// Remove old backups from the directory, but keep the newest N
    ///
    /// A backup that any of these options wants stays; without any, all do.
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    keep_last: u32,

    /// Keep the last one of each of N hours that have any
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    keep_hourly: u32,

    /// Keep the last one of each of N days that have any
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    keep_daily: u32,

    /// Keep the last one of each of N weeks that have any
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    keep_weekly: u32,

    /// Keep the last one of each of N months that have any
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    keep_monthly: u32,
}

impl KeepArguments {
    pub(in crate::cli::commands) fn keep(&self) -> Keep {
        Keep {
            last: self.keep_last,
            hourly: self.keep_hourly,
            daily: self.keep_daily,
            weekly: self.keep_weekly,
            monthly: self.keep_monthly,
        }
    }
}

/// A good backup, for people and programs.
#[derive(Debug, Serialize)]
struct Screen {
    file: PathBuf,
    bytes: u64,
    revision: i64,
    taken: String,
    cluster: String,
    keys: u64,
    leases: u64,
    encrypted: bool,
    /// Restored into a scratch datastore and compared with the stream's digest.
    verified: bool,
    /// Also compared with an ordinary read of the source.
    compared_with_source: bool,
    took_ms: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    removed: Vec<String>,
}

pub(super) async fn run(arguments: Arguments) -> Outcome {
    let sealing = match (&arguments.passphrase_file, arguments.encrypt_to.is_empty()) {
        (Some(path), _) => Sealing::passphrase_file(path)?,
        (None, false) => Sealing::recipients(&arguments.encrypt_to)
            .map_err(|error| CommandError::usage(error.to_string()))?,
        (None, true) => Sealing::Plain,
    };
    let take = TakeOptions {
        from: arguments.from,
        revision: arguments.revision.map(Revision),
        sealing,
        scratch: arguments.scratch.unwrap_or_else(std::env::temp_dir),
    };
    let (keep, output) = (arguments.keep.keep(), arguments.output);
    let mut interrupt = interrupt::Interrupt::new()?;
    let target = match S3::is_address(&arguments.target) {
        true => Target::S3(Box::new(bucket(&arguments.target)?)),
        false => Target::Directory(arguments.target.clone()),
    };
    if matches!(target, Target::Directory(_)) && !arguments.target.is_dir() {
        if arguments.every.is_some() || !keep.is_everything() {
            return Err(no_directory(&arguments.target));
        }
        return tokio::select! {
            outcome = one_file(&take, &arguments.target, output) => outcome,
            () = interrupt.came() => Err(interrupted()),
        };
    }
    let job = Job { take, target, keep };
    let Some(every) = arguments.every else {
        return tokio::select! {
            outcome = once(&job, output) => outcome,
            () = interrupt.came() => Err(interrupted()),
        };
    };
    tokio::select! {
        never = job.run_every(every, OffsetDateTime::now_utc, |report| tell(report, output)) => {
            match never {}
        }
        // A backup that is under way is given up: nothing of it stays.
        () = interrupt.came() => Ok(ExitCode::SUCCESS),
    }
}

/// The bucket that an address names, with what the environment says of it.
pub(super) fn bucket(address: &Path) -> Result<S3, CommandError> {
    let address = address.to_str().ok_or_else(|| CommandError::usage("the address is no text"))?;
    S3::new(address, |variable| std::env::var(variable).ok())
        .map_err(|error| CommandError::from(error).hint("skiff datastore backup --help"))
}

fn interrupted() -> CommandError {
    interrupt::left("there is no new backup, and nothing is left of it")
}

fn no_directory(target: &Path) -> CommandError {
    CommandError::new(format!("{} is no directory", target.display()))
        .cause("--every and the --keep options are for a directory of backups")
        .hint(format!("mkdir --mode 700 {}", target.display()))
}

async fn one_file(options: &TakeOptions, file: &Path, choice: Choice) -> Outcome {
    let name = file.file_name().map(PathBuf::from);
    let name = name.ok_or_else(|| CommandError::usage("the backup needs the name of a file"))?;
    let dir = match file.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    };
    let mut backup = take(options, dir, |_| name).await.map_err(failed)?;
    file.clone_into(&mut backup.path);
    print(choice, &screen(backup, Vec::new()))?;
    Ok(ExitCode::SUCCESS)
}

async fn once(job: &Job, choice: Choice) -> Outcome {
    let done = job.run_once().await.map_err(job_failed)?;
    match show(done, choice)? {
        None => Ok(ExitCode::SUCCESS),
        // The backup is good; that old ones stay is for somebody to look at.
        Some(error) => Err(error),
    }
}

/// Prints a round; the error when old backups could not be removed.
fn show(done: Done, choice: Choice) -> Result<Option<CommandError>, CommandError> {
    let removed = done.removed.iter().map(BackupName::to_string).collect();
    print(choice, &screen(done.backup, removed))?;
    Ok(done.not_removed.map(|error| CommandError::because("old backups are still there", &error)))
}

/// A job that goes on reports and never ends because of what it reports.
fn tell(report: Report, choice: Choice) {
    match report {
        Report::Done { done, next } => {
            let problem = show(*done, choice).unwrap_or_else(Some);
            if let Some(error) = problem {
                error.report();
            }
            ui::say(&format!("the next backup is due in {}", output::age(next.as_secs())));
        }
        Report::Failed { error, attempt, next, overdue } => {
            job_failed(error).report();
            let wait = output::age(next.as_secs());
            ui::say(&format!("attempt {attempt} failed, the next is in {wait}"));
            if overdue {
                ui::say("warning: the newest good backup is more than two periods old");
            }
        }
    }
}

fn screen(backup: Backup, removed: Vec<String>) -> Screen {
    let taken = OffsetDateTime::from(backup.summary.taken());
    let taken = taken.replace_nanosecond(0).unwrap_or(taken);
    Screen {
        file: backup.path,
        bytes: backup.bytes,
        revision: backup.summary.revision.0,
        taken: taken.format(&Rfc3339).unwrap_or_default(),
        cluster: format!("{:016x}", backup.summary.cluster_id),
        keys: backup.summary.keys,
        leases: backup.summary.leases,
        encrypted: backup.is_sealed,
        verified: true,
        compared_with_source: backup.compared_with_source,
        took_ms: u64::try_from(backup.took.as_millis()).unwrap_or(u64::MAX),
        removed,
    }
}

fn print(choice: Choice, screen: &Screen) -> Result<(), CommandError> {
    output::print(choice, screen, text)?;
    if choice.format == Format::Text && !screen.compared_with_source {
        ui::say("note: the revision was compacted before it could be read a second time");
    }
    Ok(())
}

fn text(screen: &Screen, paint: Paint) -> String {
    let proof = match screen.compared_with_source {
        true => "restored for a test, and equal to what the source serves",
        false => "restored for a test, and equal to what the source sent",
    };
    let mut rows: Vec<Vec<Cell>> = vec![
        vec!["backup".into(), screen.file.display().to_string().into()],
        vec!["verified".into(), proof.into()],
        vec!["revision".into(), screen.revision.to_string().into()],
        vec!["taken".into(), (&screen.taken).into()],
        vec!["keys".into(), screen.keys.to_string().into()],
        vec!["leases".into(), screen.leases.to_string().into()],
        vec!["size".into(), output::bytes(screen.bytes).into()],
        vec!["encrypted".into(), if screen.encrypted { "yes" } else { "no" }.into()],
    ];
    rows.extend(screen.removed.iter().map(|name| vec!["removed".into(), name.into()]));
    output::table(&rows, 0, paint)
}

fn job_failed(error: JobError) -> CommandError {
    match error {
        JobError::Backup(error) => failed(error),
        JobError::Target(error) => CommandError::from(error)
            .hint("see that the directory or bucket is there and may be written to"),
    }
}

fn failed(error: BackupError) -> CommandError {
    let hint = match &error {
        BackupError::Source(SourceError::Connect { .. }) => {
            "name the address where it serves with --from"
        }
        BackupError::Source(SourceError::Compacted { .. } | SourceError::Future { .. }) => {
            "leave --revision out to back up the newest revision"
        }
        BackupError::Source(_) | BackupError::Stale { .. } => {
            "skiff datastore status, then try again"
        }
        BackupError::Write { .. } | BackupError::ReadBack { .. } => {
            "make room there, or name another place"
        }
        BackupError::Scratch { .. } | BackupError::Proof(_) => {
            "make room there, or name another directory with --scratch"
        }
        BackupError::Seal(_) | BackupError::OtherRevision { .. } | BackupError::Differs { .. } => {
            "try again, and report it when it happens again"
        }
    };
    CommandError::from(error).hint(hint)
}
