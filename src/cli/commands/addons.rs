mod author;
mod change;
mod repo;
mod screen;

use std::path::PathBuf;
use std::process::ExitCode;

use skiff_api::{Addon, AddonDetails};

use super::Outcome;
use crate::cli::output::{self, Choice};
use crate::cli::{Session, span};

pub use screen::why;

/// List what can be enabled and how it is; find, compare and upgrade addons
///
/// An addon is enabled when the cluster itself calls its objects healthy. Where
/// it is not, the list says why instead of what the addon is for.
///
///   skiff addons
///   skiff addons search names
///   skiff addons show dns
///   skiff addons diff
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
    /// List the addons and how they are
    List {
        #[command(flatten)]
        output: Choice,
    },
    /// Find addons by words of their names and descriptions
    ///
    /// Every word must be there, in large or small letters.
    Search {
        /// Word to look for (can be repeated)
        #[arg(required = true, value_name = "WORD")]
        words: Vec<String>,

        #[command(flatten)]
        output: Choice,
    },
    /// Show one addon, its options and what it needs
    ///
    /// `skiff enable NAME --help` shows the same.
    Show {
        /// Addon to show
        name: String,

        #[command(flatten)]
        output: Choice,
    },
    /// Say what enabling addons again would change: drift, or another version
    ///
    /// Each object is compared with what an apply would make of it, as the API
    /// server says. Nothing is changed. Without a name: all that are enabled.
    Diff {
        /// Addon to compare (can be repeated)
        #[arg(value_name = "NAME")]
        names: Vec<String>,

        #[command(flatten)]
        output: Choice,
    },
    /// Check the folders of addons, as a node would before it takes them
    ///
    /// Says what is wrong, and what users of the addon would miss. Needs no node.
    Lint {
        /// Folder with an addon.toml (can be repeated)
        #[arg(required = true, value_name = "FOLDER", value_hint = clap::ValueHint::DirPath)]
        folders: Vec<PathBuf>,
    },
    /// Write the beginning of an addon into a new folder
    ///
    /// It is called like the folder, and can be enabled as it is.
    New {
        /// Folder to make
        #[arg(value_name = "FOLDER", value_hint = clap::ValueHint::DirPath)]
        folder: PathBuf,
    },
    /// List the repositories of addons of your own; add and change them
    Repo(repo::Arguments),
    /// Bring addons to the version that this build, or their repository, has
    ///
    /// Options stay as they are. Says what is changed, and waits until the addon is
    /// healthy; one that does not become so is put back to what it was. Without a
    /// name: all that are enabled in another version.
    Upgrade {
        /// Addon to upgrade (can be repeated)
        #[arg(value_name = "NAME")]
        names: Vec<String>,

        /// Seconds to wait until it is healthy
        #[arg(long, default_value = "180", value_parser = span::seconds, value_name = "SECONDS")]
        timeout: u64,
    },
}

impl Arguments {
    /// What shows one addon: its own help.
    pub fn show(name: String) -> Self {
        let output = Choice { format: output::Format::Text };
        Self { verb: Some(Verb::Show { name, output }), output }
    }
}

pub(super) async fn run(arguments: Arguments, session: &Session) -> Outcome {
    match arguments.verb {
        None => list(arguments.output, &[], session).await,
        Some(Verb::List { output }) => list(output, &[], session).await,
        Some(Verb::Search { words, output }) => list(output, &words, session).await,
        Some(Verb::Show { name, output }) => {
            let addon: AddonDetails = session.client().get(&path_of(&name)).await?;
            output::print(output, &addon, screen::one)?;
            Ok(ExitCode::SUCCESS)
        }
        Some(Verb::Diff { names, output }) => change::diff(names, output, session).await,
        Some(Verb::Lint { folders }) => author::lint(&folders),
        Some(Verb::New { folder }) => author::new(&folder),
        Some(Verb::Repo(arguments)) => repo::run(arguments, session).await,
        Some(Verb::Upgrade { names, timeout }) => change::upgrade(names, timeout, session).await,
    }
}

async fn list(choice: Choice, words: &[String], session: &Session) -> Outcome {
    let mut addons: Vec<Addon> = session.client().get("/v1/addons").await?;
    addons.retain(|addon| has_all(addon, words));
    output::print(choice, &addons, |addons, paint| {
        if addons.is_empty() && !words.is_empty() {
            let words = words.join(" and ");
            let sentence = format!("no addon has {words} in its name or description");
            return output::paragraph(&sentence, 0);
        }
        screen::list(addons, paint)
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Where an addon is found; one of a repository may be written `mine/web`.
pub fn path_of(name: &str) -> String {
    format!("/v1/addons/{}", name.replacen('/', ".", 1))
}

fn has_all(addon: &Addon, words: &[String]) -> bool {
    let text =
        [&addon.name, &addon.description, &addon.aliases.join(" ")].map(|t| t.to_lowercase());
    words.iter().all(|word| text.iter().any(|text| text.contains(&word.to_lowercase())))
}
