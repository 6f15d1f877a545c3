//! Repositories of users' own addons.

use std::process::ExitCode;

use skiff_api::{Repository, RepositoryContent};

use super::super::Outcome;
use crate::addon::repository_digest;
use crate::cli::output::{self, Cell, Choice};
use crate::cli::ui::{self, Tone};
use crate::cli::{CommandError, Session, repository};

#[derive(clap::Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Arguments {
    #[command(subcommand)]
    verb: Option<Verb>,

    #[command(flatten)]
    output: Choice,
}

#[derive(clap::Subcommand, Debug)]
pub enum Verb {
    /// Add a repository of addons
    ///
    /// A folder, or a repository of git, in which each addon is a folder with an
    /// addon.toml. All of it is checked and copied into the cluster: every node has
    /// it then, and what lies at the source may change or go. Its addons are called
    /// NAME/ADDON, and ADDON alone where nobody else is called that. They may do in
    /// the cluster whatever their manifests say: add only what you trust.
    ///
    ///   skiff addons repo add mine ./addons
    #[command(verbatim_doc_comment)]
    Add {
        /// What to call it
        name: String,

        /// Folder, or address for git
        source: String,

        /// Branch or tag of git
        #[arg(long, value_name = "NAME")]
        reference: Option<String>,

        /// Take it only with this digest, as `skiff addons repo list` shows it
        #[arg(long, value_name = "DIGEST")]
        digest: Option<String>,
    },
    /// Fetch repositories again from where they came
    ///
    /// Enabled addons stay as they are until `skiff addons upgrade`. Without a name:
    /// all repositories.
    Update {
        /// Repository to fetch (can be repeated)
        #[arg(value_name = "NAME")]
        names: Vec<String>,
    },
    /// Remove a repository of which nothing is enabled
    Remove {
        /// Repository to remove
        name: String,
    },
    /// List the repositories
    List {
        #[command(flatten)]
        output: Choice,
    },
}

pub async fn run(arguments: Arguments, session: &Session) -> Outcome {
    match arguments.verb.unwrap_or(Verb::List { output: arguments.output }) {
        Verb::Add { name, source, reference, digest } => {
            let known = all(session).await?;
            // Adding one that cannot be used again is how it is mended.
            if let Some(former) = known.iter().find(|r| r.name == name && r.problem.is_none()) {
                let message = format!("there is a repository {name}, of {}", former.source);
                let hint = format!("skiff addons repo update {name}");
                return Err(CommandError::new(message).hint(hint));
            }
            let content = repository::fetch(&source, reference.as_deref())?;
            require_digest(&content, digest.as_deref())?;
            put(&name, &content, session).await?;
        }
        Verb::Update { names } => {
            let mut chosen = all(session).await?;
            if let Some(unknown) = names.iter().find(|n| !chosen.iter().any(|r| r.name == **n)) {
                let error = CommandError::new(format!("there is no repository {unknown}"));
                return Err(error.hint("skiff addons repo list"));
            }
            chosen.retain(|repository| names.is_empty() || names.contains(&repository.name));
            for former in chosen {
                update(&former, session).await?;
            }
        }
        Verb::Remove { name } => {
            let path = format!("/v1/repositories/{name}/remove");
            session.client().post::<_, ()>(&path, &()).await?;
            ui::say(&format!("the repository {name} is removed"));
        }
        Verb::List { output } => {
            output::print(output, &all(session).await?, |repositories, paint| {
                let mut rows = vec![["NAME", "ADDONS", "SOURCE"].map(Cell::from).to_vec()];
                for Repository { name, source, revision, digest, addons, problem } in repositories {
                    let revision =
                        revision.as_ref().map(|r| format!(" at {r}")).unwrap_or_default();
                    let source = match problem {
                        Some(problem) => Cell::new(problem, Tone::Bad),
                        None => format!("{source}{revision}, {digest}").into(),
                    };
                    rows.push(vec![name.into(), addons.join(", ").into(), source]);
                }
                output::table(&rows, 0, paint)
            })?
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn all(session: &Session) -> Result<Vec<Repository>, CommandError> {
    Ok(session.client().get("/v1/repositories").await?)
}

async fn update(former: &Repository, session: &Session) -> Result<(), CommandError> {
    if let Some(problem) = &former.problem {
        let message = format!("nobody knows where the repository {} came from", former.name);
        let hint = format!("skiff addons repo add {} SOURCE", former.name);
        return Err(CommandError::new(message).cause(problem).hint(hint));
    }
    let reference = repository::reference(former.revision.as_deref());
    let content = repository::fetch(&former.source, reference)?;
    if repository_digest(&content) == former.digest {
        ui::say(&format!("the repository {} is as it was", former.name));
        return Ok(());
    }
    put(&former.name, &content, session).await
}

async fn put(
    name: &str,
    content: &RepositoryContent,
    session: &Session,
) -> Result<(), CommandError> {
    let path = format!("/v1/repositories/{name}");
    let added: Repository = session.client().post(&path, content).await?;
    ui::say(&format!("the repository {name} has {}, {}", added.addons.join(", "), added.digest));
    Ok(())
}

fn require_digest(content: &RepositoryContent, wanted: Option<&str>) -> Result<(), CommandError> {
    let found = repository_digest(content);
    match wanted {
        Some(wanted) if wanted != found => {
            let error = CommandError::new("the repository is not the one that is wanted");
            Err(error.cause(format!("its digest is {found}, not {wanted}")))
        }
        _ => Ok(()),
    }
}
