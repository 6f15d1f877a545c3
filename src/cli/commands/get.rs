use std::process::ExitCode;

use skiff_api::{ClientError, Setting};

use super::Outcome;
use crate::cli::output::{self, Cell, Choice, Format};
use crate::cli::ui::Paint;
use crate::cli::{CommandError, Session};
use crate::config::{self, Config, Sources};

/// Show settings and where each value comes from
///
/// One setting prints its value alone, a group or nothing prints a table. On a
/// stopped node the files of its configuration are read instead.
///
///   skiff get
///   skiff get network
///   skiff get api.port
#[derive(clap::Args, Debug)]
#[command(verbatim_doc_comment)]
pub struct Arguments {
    /// Setting or group of settings
    key: Option<String>,

    #[command(flatten)]
    output: Choice,
}

pub(super) async fn run(arguments: Arguments, session: &Session) -> Outcome {
    let all: Vec<Setting> = match session.client().get("/v1/settings").await {
        Ok(settings) => settings,
        Err(ClientError::NotRunning(_)) => {
            Config::load(&Sources::of(session.config_file()))?.settings()
        }
        Err(error) => return Err(error.into()),
    };
    let Some(key) = arguments.key else {
        output::print(arguments.output, &all, |all, paint| text(all, paint))?;
        return Ok(ExitCode::SUCCESS);
    };
    if let Some(setting) = all.iter().find(|setting| setting.key == key) {
        match arguments.output.format {
            Format::Text => output::write(&format!("{}\n", setting.value))?,
            _ => output::print(arguments.output, setting, |_, _| String::new())?,
        }
        return Ok(ExitCode::SUCCESS);
    }
    let group = format!("{key}.");
    let found: Vec<Setting> = all.into_iter().filter(|s| s.key.starts_with(&group)).collect();
    if found.is_empty() {
        let error = CommandError::new(format!("there is no setting {key}"));
        return Err(match config::like(&key) {
            Some(like) => error.hint(format!("skiff get {like}")),
            None => error.hint("skiff get"),
        });
    }
    output::print(arguments.output, &found, |found, paint| text(found, paint))?;
    Ok(ExitCode::SUCCESS)
}

fn text(settings: &[Setting], paint: Paint) -> String {
    let mut rows = vec![["KEY", "VALUE", "ORIGIN"].map(Cell::from).to_vec()];
    for setting in settings {
        let value = output::cut(&setting.value, 32);
        rows.push(vec![(&setting.key).into(), value.into(), (&setting.origin).into()]);
    }
    output::table(&rows, 0, paint)
}
