use std::path::PathBuf;
use std::process::ExitCode;

use skiff_api::EnableRequest;

use super::Outcome;
use super::addons::path_of;
use crate::addon::argument;
use crate::cli::{Session, interrupt, progress, span, ui, values_file};

/// Enable addons
///
/// `skiff addons` lists what there is. Applies an addon's objects. Enabling again
/// with other options changes them, with the same it does nothing. What an addon
/// needs is enabled before it. An argument may follow the name. Names that other
/// distributions use (`coredns`, `rbac`, `ha-cluster`) are understood. The options
/// of an addon: `skiff enable NAME --help`.
///
/// With --wait, an addon that does not become healthy is put back to what it was
/// before: disabled, or as it was enabled. The error says why, in its pods' words.
///
/// Ctrl-C ends the waiting; skiffd goes on with the addon that it has begun.
///
///   skiff enable dns --wait
///   skiff enable dns:10.0.0.53
#[derive(clap::Args, Debug)]
#[command(verbatim_doc_comment)]
pub struct Arguments {
    /// Addon to enable (can be repeated)
    #[arg(required = true, value_name = "NAME[:ARGUMENT]")]
    names: Vec<String>,

    /// Option of the addon (can be repeated)
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = pair)]
    options: Vec<(String, String)>,

    /// File of options, YAML or JSON; --set has the last word
    #[arg(long, value_name = "FILE")]
    values: Option<PathBuf>,

    /// Wait until the cluster calls it healthy
    #[arg(long)]
    wait: bool,

    /// Seconds to wait with --wait
    #[arg(long, default_value = "180", value_parser = span::seconds, value_name = "SECONDS")]
    timeout: u64,

    /// Say what would be done and do nothing
    #[arg(long)]
    dry_run: bool,
}

impl Arguments {
    /// The first addon, without what stands behind its name.
    pub(super) fn first(&self) -> Option<String> {
        self.names.first().map(|text| argument::parse(text).0)
    }
}

pub(super) async fn run(arguments: Arguments, session: &Session) -> Outcome {
    let from_file = match &arguments.values {
        Some(path) => values_file::read(path, &arguments.options)?,
        None => Vec::new(),
    };
    for (index, text) in arguments.names.iter().enumerate() {
        let (name, mut options) = argument::parse(text);
        let behind_name: Vec<String> = options.iter().map(|(key, _)| key.clone()).collect();
        options.extend(from_file.iter().filter(|(key, _)| !behind_name.contains(key)).cloned());
        options.extend(arguments.options.iter().cloned());
        let request = EnableRequest {
            options,
            wait: arguments.wait,
            timeout_s: arguments.timeout,
            dry_run: arguments.dry_run,
            ..EnableRequest::default()
        };
        let path = format!("{}/enable", path_of(&name));
        let client = session.client();
        let work = progress::follow(&client, &path, &request);
        let goes_on = format!("skiffd goes on enabling {name}");
        let look = format!("skiff addons show {name}");
        let outcome = interrupt::or_leave(work, &goes_on, &look).await;
        let rest = &arguments.names[index + 1..];
        ui::say(&outcome.map_err(|error| super::not_begun(error, rest))?);
    }
    Ok(ExitCode::SUCCESS)
}

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("an option is written as KEY=VALUE".into()),
    }
}
