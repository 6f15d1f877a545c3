use std::path::PathBuf;
use std::process::ExitCode;

use serde::Serialize;

use super::{Bucket, Key, Outcome, unopened};
use crate::backup::{Manifest, open};
use crate::cli::output::{self, Cell, Choice};
use crate::cli::ui::Paint;

/// Open an archive, compare everything in it, and say what it holds
///
/// The file is read to its end, each part is compared with the manifest, each key
/// with its certificate, each Secret with the keys that open it, and the
/// datastore's part is restored into a temporary directory. Needs no node, and no
/// root for a file of one's own.
///
///   skiff backup verify --identity-file key.txt skiff-….archive.age
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

    #[command(flatten)]
    output: Choice,
}

/// What is in it, for people and programs.
#[derive(Debug, Serialize)]
struct Screen {
    file: PathBuf,
    bytes: u64,
    encrypted: bool,
    verified: bool,
    /// Secrets, all of which the keys open.
    secrets: u64,
    #[serde(flatten)]
    manifest: Manifest,
}

pub(super) async fn run(arguments: Arguments) -> Outcome {
    let opening = arguments.key.opening()?;
    let scratch = tempfile::TempDir::new()?;
    let file = arguments.bucket.fetch(&arguments.file, scratch.path()).await?;
    let dir = scratch.path().join("archive");
    let opened = open(&file, &opening, &dir).await.map_err(unopened)?;
    opened.prove().await.map_err(unopened)?;
    let screen = Screen {
        file: arguments.file,
        bytes: opened.bytes,
        encrypted: opened.is_sealed,
        verified: true,
        secrets: opened.secrets,
        manifest: opened.manifest,
    };
    output::print(arguments.output, &screen, text)?;
    Ok(ExitCode::SUCCESS)
}

fn text(screen: &Screen, paint: Paint) -> String {
    let manifest = &screen.manifest;
    let taken = manifest.taken.format(&time::format_description::well_known::Rfc3339);
    let mut rows: Vec<Vec<Cell>> = vec![
        vec!["archive".into(), screen.file.display().to_string().into()],
        vec!["verified".into(), "restored for a test, and every key fits".into()],
        vec!["cluster".into(), (&manifest.cluster).into()],
        vec!["node".into(), (&manifest.node).into()],
        vec!["taken".into(), taken.unwrap_or_default().into()],
        vec!["skiff".into(), (&manifest.skiff).into()],
        vec!["kubernetes".into(), (&manifest.kubernetes).into()],
        vec!["revision".into(), manifest.revision.to_string().into()],
        vec!["keys".into(), manifest.keys.to_string().into()],
        vec!["secrets".into(), format!("{}, which its keys open", screen.secrets).into()],
        vec!["size".into(), output::bytes(screen.bytes).into()],
        vec!["encrypted".into(), if screen.encrypted { "yes" } else { "no" }.into()],
    ];
    for member in &manifest.members {
        rows.push(vec!["member".into(), format!("{} ({})", member.name, member.role).into()]);
    }
    for part in &manifest.parts {
        rows.push(vec!["part".into(), part.name.as_str().into()]);
    }
    output::table(&rows, 0, paint)
}
