use std::path::PathBuf;
use std::process::ExitCode;

use serde::Serialize;
use skiff_datastore::backup::{Kind, Target};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::{Bucket, Outcome};
use crate::cli::commands::tokens::until;
use crate::cli::output::{self, Cell, Choice, Format};
use crate::cli::ui::Paint;
use crate::cli::{CommandError, Session, ui};
use crate::config::{Config, Sources};
use crate::node::settings::shared;

/// List the archives in a directory or bucket, oldest first
///
/// A file is listed by its name, which it got when it was proven; `verify` opens
/// one. Without a place it is that of the setting backup.place.
#[derive(clap::Args, Debug)]
#[command(verbatim_doc_comment)]
pub struct Arguments {
    /// A directory, or s3://BUCKET/PREFIX
    #[arg(value_name = "DIR|S3")]
    place: Option<PathBuf>,

    #[command(flatten)]
    bucket: Bucket,

    #[command(flatten)]
    output: Choice,
}

impl Arguments {
    /// Of the settings' place.
    pub(super) fn of(output: Choice) -> Self {
        Self { place: None, bucket: Bucket { environment_file: None }, output }
    }
}

/// One archive, for people and programs.
#[derive(Debug, Serialize)]
struct Listed {
    name: String,
    taken: String,
    revision: i64,
    encrypted: bool,
    /// Of a bucket it is not asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<u64>,
}

pub(super) async fn run(arguments: Arguments, session: &Session) -> Outcome {
    let shared = shared(&session.paths).unwrap_or_default();
    let settings = Config::load_with(&Sources::of(session.config_file()), &shared)?.backup;
    let place = arguments.place.or(settings.place);
    let place = place.ok_or_else(|| {
        CommandError::new("nobody has said where archives are")
            .hint("skiff backup list DIR, or set backup.place")
    })?;
    let environment = arguments.bucket.environment(settings.environment_file.as_deref())?;
    let target = environment.target(&place)?;
    let names = target.list(Kind::Cluster).await.map_err(|error| {
        CommandError::from(error).hint("skiff backup list DIR, with a place that is there")
    })?;
    let size = |name: &str| match &target {
        Target::Directory(dir) => std::fs::metadata(dir.join(name)).ok().map(|data| data.len()),
        Target::S3(_) => None,
    };
    let listed: Vec<Listed> = names
        .iter()
        .map(|backup| {
            let name = backup.to_string();
            Listed {
                bytes: size(&name),
                name,
                taken: backup.taken.format(&Rfc3339).unwrap_or_default(),
                revision: backup.revision.0,
                encrypted: backup.is_sealed,
            }
        })
        .collect();
    if listed.is_empty() && arguments.output.format == Format::Text {
        ui::say(&format!("there is no archive in {}", place.display()));
        return Ok(ExitCode::SUCCESS);
    }
    let now = OffsetDateTime::now_utc();
    output::print(arguments.output, &listed, |all, paint| text(all, now, paint))?;
    Ok(ExitCode::SUCCESS)
}

fn text(listed: &[Listed], now: OffsetDateTime, paint: Paint) -> String {
    let mut rows = vec![["ARCHIVE", "TAKEN", "SIZE"].map(Cell::from).to_vec()];
    for archive in listed {
        rows.push(vec![
            (&archive.name).into(),
            until(&archive.taken, now).into(),
            archive.bytes.map_or_else(|| "-".into(), output::bytes).into(),
        ]);
    }
    output::table(&rows, 0, paint)
}
