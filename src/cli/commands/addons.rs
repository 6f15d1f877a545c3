use std::process::ExitCode;

use skiff_api::Addon;

use super::status::addon_word;
use crate::cli::{CommandError, Session, output};

/// List the addons and how they are
#[derive(clap::Args, Debug)]
pub struct Arguments {
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(clap::Subcommand, Debug)]
enum Verb {
    /// List the addons and how they are
    List,
    /// Show one addon
    Show {
        /// Its name
        name: String,
    },
}

pub(super) async fn run(
    arguments: Arguments,
    session: &Session,
) -> Result<ExitCode, CommandError> {
    match arguments.verb {
        None | Some(Verb::List) => {
            let addons: Vec<Addon> = session.client().get("/v1/addons").await?;
            output::print(session.format, &addons, |addons| text(addons))?;
        }
        Some(Verb::Show { name }) => {
            let addon: Addon = session.client().get(&format!("/v1/addons/{name}")).await?;
            output::print(session.format, &addon, |addon| text(std::slice::from_ref(addon)))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn text(addons: &[Addon]) -> String {
    let mut rows = vec![["NAME", "STATE", "VERSION", "DESCRIPTION"].map(str::to_owned).to_vec()];
    for addon in addons {
        let why = if addon.message.is_empty() { &addon.description } else { &addon.message };
        let state = addon_word(addon.state).to_owned();
        rows.push(vec![addon.name.clone(), state, addon.version.clone(), why.clone()]);
    }
    output::table(&rows)
}
