use std::process::ExitCode;

use skiff_api::EnableRequest;

use super::Outcome;
use super::addons::path_of;
use crate::cli::{Session, interrupt, progress, span, ui};

/// Disable addons and remove every object that they own
///
/// Returns when everything is gone. Disabling what is disabled does nothing. What
/// you made yourself stays, and so does what is stored in an addon, with a word
/// about it: enabled again, it goes on with that and with its former options.
///
///   skiff disable dns
///   skiff disable registry --delete-data
#[derive(clap::Args, Debug)]
#[command(verbatim_doc_comment)]
pub struct Arguments {
    /// Addon to disable (can be repeated)
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,

    /// Seconds to wait until everything is gone
    #[arg(long, default_value = "180", value_parser = span::seconds, value_name = "SECONDS")]
    timeout: u64,

    /// Say what would be done and do nothing
    #[arg(long)]
    dry_run: bool,

    /// Keep what is stored in it (this is so without the option too)
    #[arg(long, conflicts_with = "delete_data")]
    keep_data: bool,

    /// Delete what is stored in it too, also when it is disabled already
    #[arg(long)]
    delete_data: bool,
}

impl Arguments {
    pub(super) fn first(&self) -> Option<String> {
        self.names.first().cloned()
    }
}

pub(super) async fn run(arguments: Arguments, session: &Session) -> Outcome {
    for (index, name) in arguments.names.iter().enumerate() {
        let request = EnableRequest {
            wait: true,
            timeout_s: arguments.timeout,
            dry_run: arguments.dry_run,
            delete_data: arguments.delete_data && !arguments.keep_data,
            ..Default::default()
        };
        let path = format!("{}/disable", path_of(name));
        let client = session.client();
        let work = progress::follow(&client, &path, &request);
        let goes_on = format!("skiffd goes on disabling {name}");
        let look = format!("skiff addons show {name}");
        let outcome = interrupt::or_leave(work, &goes_on, &look).await;
        let rest = &arguments.names[index + 1..];
        ui::say(&outcome.map_err(|error| super::not_begun(error, rest))?);
    }
    Ok(ExitCode::SUCCESS)
}
