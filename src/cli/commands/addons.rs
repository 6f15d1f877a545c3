use std::process::ExitCode;

use skiff_api::Addon;

use super::Outcome;
use crate::cli::output::{self, Cell, Choice};
use crate::cli::ui::Paint;
use crate::cli::{Session, word};

/// List what can be enabled and how it is, or show one addon
///
/// An addon is enabled when the cluster itself calls its objects healthy. Where
/// it is not, the list says why instead of what the addon is for.
///
///   skiff addons
///   skiff addons show dns
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
    /// Show one addon
    Show {
        /// Addon to show
        name: String,

        #[command(flatten)]
        output: Choice,
    },
}

pub(super) async fn run(arguments: Arguments, session: &Session) -> Outcome {
    let list = match arguments.verb {
        None => arguments.output,
        Some(Verb::List { output }) => output,
        Some(Verb::Show { name, output }) => {
            let addon: Addon = session.client().get(&format!("/v1/addons/{name}")).await?;
            output::print(output, &addon, one)?;
            return Ok(ExitCode::SUCCESS);
        }
    };
    let addons: Vec<Addon> = session.client().get("/v1/addons").await?;
    output::print(list, &addons, |addons, paint| text(addons, paint))?;
    Ok(ExitCode::SUCCESS)
}

/// Why an addon is as it is, or else what it is for.
pub fn why(addon: &Addon) -> &str {
    if addon.message.is_empty() { &addon.description } else { &addon.message }
}

fn text(addons: &[Addon], paint: Paint) -> String {
    let mut rows = vec![["NAME", "STATE", "VERSION", "DESCRIPTION"].map(Cell::from).to_vec()];
    for addon in addons {
        let state = word::addon(addon.state);
        rows.push(vec![(&addon.name).into(), state, (&addon.version).into(), why(addon).into()]);
    }
    output::table(&rows, 0, paint)
}

fn one(addon: &Addon, paint: Paint) -> String {
    let mut rows = vec![
        vec!["name".into(), (&addon.name).into()],
        vec!["state".into(), word::addon(addon.state)],
        vec!["version".into(), (&addon.version).into()],
        vec!["description".into(), (&addon.description).into()],
    ];
    if !addon.message.is_empty() {
        rows.push(vec!["why".into(), (&addon.message).into()]);
    }
    output::table(&rows, 0, paint)
}
