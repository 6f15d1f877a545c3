mod create;
mod list;
mod restore;
mod schedule;
mod verify;

use std::path::{Path, PathBuf};

use skiff_datastore::backup::{Opening, S3, SealError};

use super::Outcome;
use crate::backup::{Environment, OpenError};
use crate::cli::output::Choice;
use crate::cli::{CommandError, Session};

pub(super) use schedule::line;

/// Back the whole cluster up, and bring it back
///
/// An archive is one file with all that makes a cluster: Kubernetes' objects, the
/// authorities and keys, who belongs to it, settings. Images and what volumes hold
/// are not in it. Without a verb the archives of the schedule are listed.
///
///   sudo skiff backup create --encrypt-to age1… backups/
///   skiff backup verify --identity-file key.txt backups/skiff-….archive.age
#[derive(clap::Args, Debug)]
#[command(verbatim_doc_comment, args_conflicts_with_subcommands = true)]
pub struct Arguments {
    #[command(subcommand)]
    verb: Option<Verb>,

    #[command(flatten)]
    output: Choice,
}

#[derive(clap::Subcommand, Debug)]
enum Verb {
    Create(Box<create::Arguments>),
    List(list::Arguments),
    Verify(verify::Arguments),
    Restore(restore::Arguments),
    Schedule(schedule::Arguments),
}

pub(super) async fn run(arguments: Arguments, session: &Session) -> Outcome {
    match arguments.verb {
        None => list::run(list::Arguments::of(arguments.output), session).await,
        Some(Verb::Create(arguments)) => create::run(*arguments, session).await,
        Some(Verb::List(arguments)) => list::run(arguments, session).await,
        Some(Verb::Verify(arguments)) => verify::run(arguments).await,
        Some(Verb::Restore(arguments)) => restore::run(arguments, session).await,
        Some(Verb::Schedule(arguments)) => schedule::run(arguments, session).await,
    }
}

/// What opens an archive.
#[derive(clap::Args, Debug)]
struct Key {
    /// Open an archive that was encrypted for the owner of this key file
    #[arg(long, value_name = "FILE", conflicts_with = "passphrase_file")]
    identity_file: Option<PathBuf>,

    /// Open an archive with the passphrase in the first line of this file
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
}

impl Key {
    fn opening(&self) -> Result<Opening, CommandError> {
        let key = match (&self.identity_file, &self.passphrase_file) {
            (Some(path), _) => Opening::identity_file(path),
            (None, Some(path)) => Opening::passphrase_file(path),
            (None, None) => Ok(Opening::Plain),
        };
        key.map_err(|error| CommandError::from(error).hint("name a file that age-keygen wrote"))
    }
}

/// Who we are to a bucket.
#[derive(clap::Args, Debug)]
struct Bucket {
    /// Lines NAME=VALUE with what a bucket needs: AWS_ACCESS_KEY_ID and others
    ///
    /// Variables of the environment count where the file has none.
    #[arg(long, value_name = "FILE")]
    environment_file: Option<PathBuf>,
}

impl Bucket {
    /// With the file of the settings where none was named.
    fn environment(&self, configured: Option<&Path>) -> Result<Environment, CommandError> {
        let file = self.environment_file.as_deref().or(configured);
        Environment::read(file).map_err(|error| {
            CommandError::from(error)
                .hint("lines NAME=VALUE, in a file that its owner alone may read")
        })
    }

    /// An archive as a file: one of a bucket is copied into `dir` first.
    async fn fetch(&self, file: &Path, dir: &Path) -> Result<PathBuf, CommandError> {
        if !S3::is_address(file) {
            return Ok(file.to_path_buf());
        }
        let missing = || CommandError::usage("the address needs the name of an archive at its end");
        let text = file.to_str().unwrap_or_default();
        let (place, name) = text.rsplit_once('/').ok_or_else(missing)?;
        if name.is_empty() || place.ends_with('/') {
            return Err(missing());
        }
        let copy = dir.join(name);
        self.environment(None)?.bucket(Path::new(place))?.get(name, &copy).await?;
        Ok(copy)
    }
}

/// An archive that is of no use, with what to type next.
fn unopened(error: OpenError) -> CommandError {
    let hint = match &error {
        OpenError::Seal { source: SealError::Locked | SealError::WantsIdentity, .. } => {
            "name the key with --identity-file, as age-keygen wrote it"
        }
        OpenError::Seal { source: SealError::WantsPassphrase, .. } => {
            "name the file of the passphrase with --passphrase-file"
        }
        OpenError::Seal { .. } => "nothing was touched; try another key",
        OpenError::Read { .. } => "skiff backup list DIR shows the archives that there are",
        OpenError::Scratch { .. } | OpenError::Build { .. } => {
            "nothing was touched; see that there is room for it"
        }
        OpenError::Form { .. }
        | OpenError::Key { .. }
        | OpenError::Secret { .. }
        | OpenError::Cluster { .. }
        | OpenError::Choices { .. }
        | OpenError::Record(_) => "nothing was touched; try another archive",
    };
    CommandError::from(error).hint(hint)
}
