use std::path::PathBuf;
use std::process::ExitCode;

use serde::Serialize;
use skiff_datastore::backup::place::PlaceError;
use skiff_datastore::backup::restore::BUMP_REVISION;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;

use super::{Bucket, Key, Outcome as Ended, unopened};
use crate::backup::{Outcome, RestoreError, RestoreOptions, Restored, SettingsOf, restore};
use crate::cli::output::{self, Cell, Choice, Format};
use crate::cli::ui::Paint;
use crate::cli::{CommandError, Session, ui};
use crate::config::Sources;
use crate::node::account;

/// Make this machine the cluster's control plane again, from an archive
///
/// On a machine that is no node yet, or with --replace on a stopped one, whose
/// state of before is kept beside. `skiff start` then brings the cluster back with
/// its authorities and keys: kubeconfigs and tokens of service accounts are good,
/// Secrets can be read. Everything is read, built and compared first; a restore
/// that is interrupted at any moment leaves the former state or the new one.
///
/// The node has the name of the one that the archive was taken on. It is the only
/// member: other nodes of before are refused as removed ones, and join anew with
/// `skiff add-node`. Tokens to join with of before are revoked. A machine that has
/// settings of its own keeps them; one that has none gets those of the archive.
///
///   sudo skiff backup restore --identity-file key.txt skiff-….archive.age
///   sudo skiff start
#[derive(clap::Args, Debug)]
#[command(verbatim_doc_comment)]
pub struct Arguments {
    /// The archive, or s3://BUCKET/PREFIX/NAME
    #[arg(value_name = "FILE|S3")]
    file: PathBuf,

    #[command(flatten)]
    key: Key,

    #[command(flatten)]
    bucket: Bucket,

    /// Replace the stopped node that is here; what it was is kept beside
    #[arg(long)]
    replace: bool,

    /// Raise the newest revision by this much
    ///
    /// It must exceed the number of changes since the archive.
    #[arg(long, value_name = "N", default_value_t = BUMP_REVISION)]
    #[arg(value_parser = clap::value_parser!(i64).range(0..=1_000_000_000_000))]
    bump_revision: i64,

    #[command(flatten)]
    output: Choice,
}

/// What came back, for people and programs.
#[derive(Debug, Serialize)]
struct Screen {
    node: String,
    cluster: String,
    taken: String,
    keys: u64,
    archive_revision: i64,
    revision: i64,
    /// `machine` or `archive`.
    settings: &'static str,
    /// Nodes that do not belong to the cluster any more.
    removed: Vec<String>,
    former: Option<PathBuf>,
}

pub(super) async fn run(arguments: Arguments, session: &Session) -> Ended {
    if !account::is_root() {
        let error = CommandError::new("restoring a cluster needs root");
        return Err(error.hint("sudo skiff backup restore FILE"));
    }
    if session.running().await?.is_some() {
        return Err(failed(RestoreError::Runs));
    }
    let fetched = tempfile::TempDir::new()?;
    let file = arguments.bucket.fetch(&arguments.file, fetched.path()).await?;
    let form = format_description!("[year][month][day]T[hour][minute][second]Z");
    let options = RestoreOptions {
        paths: &session.paths,
        sources: &Sources::of(session.config_file()),
        opening: arguments.key.opening()?,
        replace: arguments.replace,
        bump_revision: arguments.bump_revision,
        stamp: OffsetDateTime::now_utc().format(form).unwrap_or_default(),
    };
    match restore(&file, &options).await.map_err(failed)? {
        Outcome::Restored(restored) => {
            output::print(arguments.output, &screen(*restored), text)?;
        }
        Outcome::WentOn => ui::say("a restore of this archive was interrupted and is finished now"),
    }
    if arguments.output.format == Format::Text {
        ui::say(&session.command_line("sudo skiff start"));
    }
    Ok(ExitCode::SUCCESS)
}

fn screen(restored: Restored) -> Screen {
    let manifest = restored.manifest;
    Screen {
        node: manifest.node,
        cluster: manifest.cluster,
        taken: manifest.taken.format(&Rfc3339).unwrap_or_default(),
        keys: manifest.keys,
        archive_revision: manifest.revision,
        revision: restored.revision,
        settings: match restored.settings {
            SettingsOf::Machine => "machine",
            SettingsOf::Archive => "archive",
        },
        removed: restored.removed,
        former: restored.former,
    }
}

fn text(screen: &Screen, paint: Paint) -> String {
    let settings = match screen.settings {
        "machine" => "those that this machine had",
        _ => "those of the archive",
    };
    let mut rows: Vec<Vec<Cell>> = vec![
        vec!["restored".into(), format!("{}, of {}", screen.node, screen.cluster).into()],
        vec!["taken".into(), (&screen.taken).into()],
        vec!["keys".into(), screen.keys.to_string().into()],
        vec!["revision".into(), screen.archive_revision.to_string().into()],
        vec!["goes on at".into(), screen.revision.to_string().into()],
        vec!["settings".into(), settings.into()],
    ];
    rows.extend(screen.removed.iter().map(|name| vec!["removed".into(), name.into()]));
    if let Some(former) = &screen.former {
        rows.push(vec!["former".into(), former.display().to_string().into()]);
    }
    output::table(&rows, 0, paint)
}

fn failed(error: RestoreError) -> CommandError {
    let hint = match &error {
        RestoreError::Runs => "sudo skiff stop",
        RestoreError::DaemonsRun | RestoreError::Place(PlaceError::Runs { .. }) => {
            "sudo skiff start, then sudo skiff stop"
        }
        RestoreError::Occupied => "repeat it with --replace; what is here now is kept beside",
        RestoreError::Worker | RestoreError::CutOff => {
            "sudo skiff reset, which gives that up; then try again"
        }
        RestoreError::NewerKubernetes { .. } => "install the Skiff that took it, or a later one",
        RestoreError::Settings(_) => {
            "make the settings of this machine go with it, in its own skiff.toml; then try again"
        }
        RestoreError::Datastore(_) | RestoreError::Directory { .. } | RestoreError::Store(_) => {
            "the machine is as it was; see that there is room"
        }
        RestoreError::Switch(_) => "mend that; `sudo skiff start` goes on where this ended",
        RestoreError::NoAddress => "give the machine an address, then try again",
        _ => "the machine is as it was; skiff check",
    };
    match error {
        RestoreError::Open(error) => unopened(error),
        error => CommandError::from(error).hint(hint),
    }
}
