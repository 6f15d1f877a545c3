use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde::Serialize;
use skiff_datastore::backup::place::PlaceError;
use skiff_datastore::backup::restore::{BUMP_REVISION, Carried, RestoreOptions};
use skiff_datastore::backup::{Opening, RestoreError, Restored, S3, SealError, restore};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;

use super::Outcome;
use crate::cli::CommandError;
use crate::cli::output::{self, Cell, Choice};
use crate::cli::ui::Paint;

/// Make a datastore's directory from a backup
///
/// The backup is read to its end first, then built beside DIR, loaded, compared,
/// and put in place by one rename: DIR is as it was or complete, whatever
/// happens. The datastore must be stopped.
///
///   skiff datastore restore today.backup --dir data --replace
///
/// A backup holds Kubernetes' objects. The database of the cluster's members, when
/// DIR has one, is carried over as it is in DIR.
///
/// The restored datastore has a new cluster id and one member; others join it
/// with empty directories. Revisions go on higher than any that was given out,
/// and older ones count as compacted, so that API servers and controllers read
/// everything anew instead of going on from what is no more.
#[derive(clap::Args, Debug)]
#[command(verbatim_doc_comment)]
pub struct Arguments {
    /// The backup, or s3://BUCKET/PREFIX/NAME
    ///
    /// A file of `etcdctl snapshot save` from Skiff will do as well.
    #[arg(value_name = "FILE|S3")]
    file: PathBuf,

    /// The directory of the datastore
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,

    /// Replace what is in DIR; it is kept beside it as DIR.former-TIME
    #[arg(long)]
    replace: bool,

    /// Open a backup that was encrypted for the owner of this key file
    #[arg(long, value_name = "FILE", conflicts_with = "passphrase_file")]
    identity_file: Option<PathBuf>,

    /// Open a backup with the passphrase in the first line of this file
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,

    /// Raise the newest revision by this much
    ///
    /// It must exceed the number of changes since the backup.
    #[arg(long, value_name = "N", default_value_t = BUMP_REVISION)]
    #[arg(value_parser = clap::value_parser!(i64).range(0..=1_000_000_000_000))]
    bump_revision: i64,

    #[command(flatten)]
    output: Choice,
}

/// A restored directory, for people and programs.
#[derive(Debug, Serialize)]
struct Screen {
    dir: PathBuf,
    backup_revision: i64,
    revision: i64,
    taken: String,
    cluster: String,
    keys: u64,
    leases: u64,
    /// Keys of the database `cluster` that were carried over from the former directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    cluster_keys: Option<u64>,
    /// Why they could not be.
    #[serde(skip_serializing_if = "Option::is_none")]
    cluster_lost: Option<String>,
    former: Option<PathBuf>,
}

pub(super) async fn run(arguments: Arguments) -> Outcome {
    let opening = match (&arguments.identity_file, &arguments.passphrase_file) {
        (Some(path), _) => Opening::identity_file(path)?,
        (None, Some(path)) => Opening::passphrase_file(path)?,
        (None, None) => Opening::Plain,
    };
    let form = format_description!("[year][month][day]T[hour][minute][second]Z");
    let options = RestoreOptions {
        dir: arguments.dir,
        replace: arguments.replace,
        bump_revision: arguments.bump_revision,
        opening,
        stamp: OffsetDateTime::now_utc().format(form).unwrap_or_default(),
    };
    let fetched = tempfile::TempDir::new()?;
    let file = match S3::is_address(&arguments.file) {
        true => fetch(&arguments.file, fetched.path()).await?,
        false => arguments.file,
    };
    let restored = restore(&file, &options).await.map_err(failed)?;
    output::print(arguments.output, &screen(options.dir, restored), text)?;
    Ok(ExitCode::SUCCESS)
}

/// Copies a backup from its bucket to a directory.
async fn fetch(address: &Path, dir: &Path) -> Result<PathBuf, CommandError> {
    let missing = || CommandError::usage("the address needs the name of a backup at its end");
    let text = address.to_str().unwrap_or_default();
    let (place, name) = text.rsplit_once('/').ok_or_else(missing)?;
    if name.is_empty() || place.ends_with('/') {
        return Err(missing());
    }
    let file = dir.join(name);
    super::backup::bucket(Path::new(place))?.get(name, &file).await?;
    Ok(file)
}

fn screen(dir: PathBuf, restored: Restored) -> Screen {
    let summary = restored.summary;
    let taken = OffsetDateTime::from(summary.taken());
    let taken = taken.replace_nanosecond(0).unwrap_or(taken);
    let (cluster_keys, cluster_lost) = match restored.carried {
        Carried::Nothing => (None, None),
        Carried::Keys(keys) => (Some(keys), None),
        Carried::Lost { reason } => (None, Some(reason)),
    };
    Screen {
        dir,
        backup_revision: summary.revision.0,
        revision: restored.contents.revision.0,
        taken: taken.format(&Rfc3339).unwrap_or_default(),
        cluster: format!("{:016x}", restored.contents.cluster_id),
        keys: summary.keys,
        leases: summary.leases,
        cluster_keys,
        cluster_lost,
        former: restored.former,
    }
}

fn text(screen: &Screen, paint: Paint) -> String {
    let mut rows: Vec<Vec<Cell>> = vec![
        vec!["restored".into(), screen.dir.display().to_string().into()],
        vec!["taken".into(), (&screen.taken).into()],
        vec!["keys".into(), screen.keys.to_string().into()],
        vec!["leases".into(), screen.leases.to_string().into()],
        vec!["revision".into(), screen.backup_revision.to_string().into()],
        vec!["goes on at".into(), screen.revision.to_string().into()],
        vec!["cluster".into(), (&screen.cluster).into()],
    ];
    if let Some(keys) = &screen.cluster_keys {
        rows.push(vec!["cluster keys".into(), format!("{keys}, as they were before").into()]);
    }
    if let Some(reason) = &screen.cluster_lost {
        rows.push(vec!["cluster keys".into(), format!("none: {reason}").into()]);
    }
    if let Some(former) = &screen.former {
        rows.push(vec!["former".into(), former.display().to_string().into()]);
    }
    output::table(&rows, 0, paint)
}

fn failed(error: RestoreError) -> CommandError {
    let hint = match &error {
        RestoreError::Place(PlaceError::NotEmpty { .. }) => {
            Some("repeat it with --replace; what is there now is kept beside it")
        }
        RestoreError::Place(PlaceError::Runs { .. }) => Some("end that datastore first"),
        RestoreError::Place(PlaceError::CannotExchange { .. }) => {
            Some("name a directory below it, or move what is in it away by hand")
        }
        RestoreError::Open { source: SealError::Locked | SealError::WantsIdentity, .. } => {
            Some("name the key with --identity-file, as age-keygen wrote it")
        }
        RestoreError::Open { source: SealError::WantsPassphrase, .. } => {
            Some("name the file of the passphrase with --passphrase-file")
        }
        RestoreError::Open { .. } => Some("the directory was not touched; try another key"),
        RestoreError::Backup { .. } => Some("the directory was not touched; try another backup"),
        RestoreError::Build { .. } => Some("the directory was not touched; see that there is room"),
        RestoreError::Read { .. } | RestoreError::Place(_) => None,
    };
    let error = CommandError::from(error);
    match hint {
        Some(hint) => error.hint(hint),
        None => error,
    }
}
