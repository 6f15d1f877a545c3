use std::process::ExitCode;

use skiff_api::Addon;

use super::Outcome;
use crate::cli::output::{self, Cell, Choice};
use crate::cli::ui::Paint;
use crate::cli::{Session, word};

/// List what can be enabled and how it is, find an addon or show one
///
/// An addon is enabled when the cluster itself calls its objects healthy. Where
/// it is not, the list says why instead of what the addon is for.
///
///   skiff addons
///   skiff addons search names
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
    /// Show one addon
    Show {
        /// Addon to show
        name: String,

        #[command(flatten)]
        output: Choice,
    },
}

pub(super) async fn run(arguments: Arguments, session: &Session) -> Outcome {
    let (list, words) = match arguments.verb {
        None => (arguments.output, Vec::new()),
        Some(Verb::List { output }) => (output, Vec::new()),
        Some(Verb::Search { words, output }) => (output, words),
        Some(Verb::Show { name, output }) => {
            let addon: Addon = session.client().get(&format!("/v1/addons/{name}")).await?;
            output::print(output, &addon, one)?;
            return Ok(ExitCode::SUCCESS);
        }
    };
    let mut addons: Vec<Addon> = session.client().get("/v1/addons").await?;
    addons.retain(|addon| has_all(addon, &words));
    output::print(list, &addons, |addons, paint| {
        if addons.is_empty() && !words.is_empty() {
            let words = words.join(" and ");
            let sentence = format!("no addon has {words} in its name or description");
            return output::paragraph(&sentence, 0);
        }
        text(addons, paint)
    })?;
    Ok(ExitCode::SUCCESS)
}

fn has_all(addon: &Addon, words: &[String]) -> bool {
    let text =
        [&addon.name, &addon.description, &addon.aliases.join(" ")].map(|t| t.to_lowercase());
    words.iter().all(|word| text.iter().any(|text| text.contains(&word.to_lowercase())))
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
    if !addon.aliases.is_empty() {
        rows.push(vec!["also called".into(), addon.aliases.join(", ").into()]);
    }
    if !addon.message.is_empty() {
        rows.push(vec!["why".into(), (&addon.message).into()]);
    }
    output::table(&rows, 0, paint)
}
