use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde::Serialize;
use skiff_api::Status;
use skiff_datastore::backup::{BackupName, Kind, Sealing, Target};
use time::format_description::well_known::Rfc3339;

use super::{Bucket, Outcome};
use crate::backup::{CreateError, CreateOptions, Created, To, create};
use crate::cli::commands::datastore::KeepArguments;
use crate::cli::output::{self, Cell, Choice, Format};
use crate::cli::ui::Paint;
use crate::cli::{CommandError, Session, interrupt, ui};
use crate::config::{Backup, Config, Sources};
use crate::node::account;
use crate::node::settings::shared;

/// Take an archive of the cluster, and prove that it is good
///
/// On a control-plane node, while everything runs. It holds everything that was
/// acknowledged before. The datastore's part is restored for a test, each key is
/// compared with its certificate and each Secret with the keys that open it, and
/// the file is read back before it gets its name; an archive of that name stays
/// until then.
///
/// It holds every key of the cluster, so it is encrypted for the owners of keys of
/// age, or with a passphrase. Where it goes and who opens it come from the settings
/// backup.place and backup.encrypt-to when they are not named here.
///
///   sudo skiff backup create --encrypt-to age1… backups/
///   sudo skiff backup create --passphrase-file word today.archive.age
#[derive(clap::Args, Debug)]
#[command(verbatim_doc_comment)]
pub struct Arguments {
    /// A file, a directory that is there, or s3://BUCKET/PREFIX
    #[arg(value_name = "FILE|DIR|S3")]
    target: Option<PathBuf>,

    /// Encrypt for the owner of this key: age1…; can be repeated
    ///
    /// `age-keygen` makes keys, and `age` opens the file also without Skiff.
    #[arg(long, value_name = "RECIPIENT", conflicts_with = "passphrase_file")]
    encrypt_to: Vec<String>,

    /// Encrypt with the passphrase in the first line of this file
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,

    /// Do not encrypt: whoever reads the file has every key of the cluster
    #[arg(long, conflicts_with_all = ["encrypt_to", "passphrase_file"])]
    unencrypted: bool,

    #[command(flatten)]
    bucket: Bucket,

    #[command(flatten)]
    keep: KeepArguments,

    #[command(flatten)]
    output: Choice,
}

/// A good archive, for people and programs.
#[derive(Debug, Serialize)]
struct Screen {
    file: PathBuf,
    bytes: u64,
    cluster: String,
    node: String,
    taken: String,
    revision: i64,
    keys: u64,
    parts: usize,
    encrypted: bool,
    /// The datastore's part was restored, and the file read back.
    verified: bool,
    compared_with_source: bool,
    took_ms: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    removed: Vec<String>,
}

pub(super) async fn run(arguments: Arguments, session: &Session) -> Outcome {
    if !account::is_root() {
        let error = CommandError::new("taking an archive needs root: it holds every key");
        return Err(error.hint("sudo skiff backup create"));
    }
    let status: Status = session.client().get("/v1/status").await?;
    refuse_worker(&status)?;
    let sources = Sources::of(session.config_file());
    // Settings that are broken are no reason to go without an archive.
    let shared = shared(&session.paths).unwrap_or_default();
    let settings =
        Config::load_with(&sources, &shared).map(|config| config.backup).unwrap_or_default();
    let environment = arguments.bucket.environment(settings.environment_file.as_deref())?;
    let target = arguments.target.as_ref().or(settings.place.as_ref());
    let target = target.ok_or_else(|| {
        CommandError::new("nobody has said where the archive goes")
            .hint("sudo skiff backup create DIR, or set backup.place")
    })?;
    let is_place = arguments.target.is_none() || target.is_dir() || ends_with_slash(target);
    let keep = arguments.keep.keep();
    let to = match environment.target(target)? {
        Target::Directory(dir) if !is_place && keep.is_everything() => file(&dir)?,
        Target::Directory(dir) if !dir.is_dir() => return Err(no_directory(&dir)),
        place => To::Place(place),
    };
    let options = CreateOptions {
        paths: &session.paths,
        sources: &sources,
        sealing: sealing(&arguments, &settings)?,
        node: status.node,
        kubernetes: status.kubernetes,
    };
    let mut interrupt = interrupt::Interrupt::new()?;
    let created = tokio::select! {
        created = create(&options, &to) => created.map_err(failed)?,
        () = interrupt.came() => {
            return Err(interrupt::left("there is no new archive, and nothing is left of it"));
        }
    };
    let (removed, problem) = match &to {
        To::File { .. } => (vec![], None),
        To::Place(place) => match place.remove_old(Kind::Cluster, &keep).await {
            Ok(removed) => (removed, None),
            Err((removed, error)) => (removed, Some(error)),
        },
    };
    print(arguments.output, &screen(created, &removed))?;
    match problem {
        None => Ok(ExitCode::SUCCESS),
        // The archive is good; that old ones stay is for somebody to look at.
        Some(error) => Err(CommandError::because("old archives are still there", &error)
            .hint("see that the place may be written to")),
    }
}

fn refuse_worker(status: &Status) -> Result<(), CommandError> {
    let Some(part) = status.cluster.as_ref().filter(|part| part.role == "worker") else {
        return Ok(());
    };
    let error = CommandError::new("this node is a worker: it has no keys to back up");
    Err(match part.control_plane.first() {
        Some((name, address)) => error.hint(format!("type it on {name} ({address})")),
        None => error.hint("type it on a control-plane node"),
    })
}

fn ends_with_slash(path: &Path) -> bool {
    path.as_os_str().as_encoded_bytes().ends_with(b"/")
}

fn file(path: &Path) -> Result<To, CommandError> {
    let name = path.file_name().map(PathBuf::from);
    let name = name.ok_or_else(|| CommandError::usage("the archive needs the name of a file"))?;
    let dir = match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir.to_path_buf(),
        _ => ".".into(),
    };
    Ok(To::File { dir, name })
}

fn no_directory(dir: &Path) -> CommandError {
    CommandError::new(format!("{} is no directory", dir.display()))
        .hint(format!("sudo mkdir --mode 700 {}", dir.display()))
}

fn sealing(arguments: &Arguments, settings: &Backup) -> Result<Sealing, CommandError> {
    if arguments.unencrypted {
        return Ok(Sealing::Plain);
    }
    if let Some(path) = &arguments.passphrase_file {
        return Ok(Sealing::passphrase_file(path)?);
    }
    let recipients = match arguments.encrypt_to.is_empty() {
        true => &settings.encrypt_to,
        false => &arguments.encrypt_to,
    };
    match (recipients.is_empty(), settings.unencrypted) {
        (false, _) => {
            let sealing = Sealing::recipients(recipients);
            sealing.map_err(|error| {
                CommandError::usage(error.to_string()).hint("`age-keygen` makes keys")
            })
        }
        (true, true) => Ok(Sealing::Plain),
        (true, false) => Err(CommandError::new("nobody has said who may open the archive")
            .cause("it holds every key of the cluster")
            .hint("--encrypt-to age1…, --passphrase-file FILE, or --unencrypted")),
    }
}

fn screen(created: Created, removed: &[BackupName]) -> Screen {
    let manifest = created.manifest;
    Screen {
        file: created.path,
        bytes: created.bytes,
        cluster: manifest.cluster,
        node: manifest.node,
        taken: manifest.taken.format(&Rfc3339).unwrap_or_default(),
        revision: manifest.revision,
        keys: manifest.keys,
        parts: manifest.parts.len(),
        encrypted: created.is_sealed,
        verified: true,
        compared_with_source: created.compared_with_source,
        took_ms: u64::try_from(created.took.as_millis()).unwrap_or(u64::MAX),
        removed: removed.iter().map(ToString::to_string).collect(),
    }
}

fn print(choice: Choice, screen: &Screen) -> Result<(), CommandError> {
    output::print(choice, screen, text)?;
    if choice.format == Format::Text && !screen.encrypted {
        ui::say("note: it is not encrypted; whoever reads it has every key of the cluster");
    }
    Ok(())
}

fn text(screen: &Screen, paint: Paint) -> String {
    let mut rows: Vec<Vec<Cell>> = vec![
        vec!["archive".into(), screen.file.display().to_string().into()],
        vec!["verified".into(), "restored for a test, and read back".into()],
        vec!["cluster".into(), format!("{}, by {}", screen.cluster, screen.node).into()],
        vec!["taken".into(), (&screen.taken).into()],
        vec!["revision".into(), screen.revision.to_string().into()],
        vec!["keys".into(), screen.keys.to_string().into()],
        vec!["size".into(), output::bytes(screen.bytes).into()],
        vec!["encrypted".into(), if screen.encrypted { "yes" } else { "no" }.into()],
    ];
    rows.extend(screen.removed.iter().map(|name| vec!["removed".into(), name.into()]));
    output::table(&rows, 0, paint)
}

fn failed(error: CreateError) -> CommandError {
    let hint = match &error {
        CreateError::Busy => "try again when it has ended; skiff backup schedule",
        CreateError::Elsewhere(_) => {
            "back it up by its own tools, and this node's directory on a disk with it; \
             docs/how-to/use-an-external-datastore.md"
        }
        CreateError::Choices(_) => "skiff status",
        CreateError::Datastore(_) => "skiff status, then try again",
        CreateError::Key(_) | CreateError::Secret(_) | CreateError::Part(_) => {
            "skiff status; restore what is damaged from an older archive"
        }
        CreateError::Scratch { .. } => "make room there",
        CreateError::Write { .. } => "make room there, or name another place",
        CreateError::Bucket(_) => "see that the bucket is there and may be written to",
        CreateError::Record(_) | CreateError::Seal(_) | CreateError::Proof(_) => {
            "try again, and report it when it happens again"
        }
    };
    CommandError::from(error).hint(hint)
}
