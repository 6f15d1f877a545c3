use std::process::ExitCode;

use skiff_api::EnableRequest;

use super::progress;
use crate::cli::{CommandError, Session};

/// Disable addons and remove every object that they own
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// Addon to disable (can be repeated)
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,

    /// Seconds to wait until everything is gone
    #[arg(long, default_value_t = 180, value_name = "SECONDS")]
    timeout: u64,
}

pub(super) async fn run(
    arguments: Arguments,
    session: &Session,
) -> Result<ExitCode, CommandError> {
    for name in &arguments.names {
        let request = EnableRequest { wait: true, timeout_s: arguments.timeout, ..Default::default() };
        let path = format!("/v1/addons/{name}/disable");
        eprintln!("{}", progress::follow(&session.client(), &path, &request).await?);
    }
    Ok(ExitCode::SUCCESS)
}
