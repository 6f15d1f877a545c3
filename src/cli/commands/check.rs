use std::process::ExitCode;

use crate::cli::{CommandError, Session};

/// Look whether this machine can run a node
#[derive(clap::Args, Debug)]
pub struct Arguments {}

pub(super) fn run(_: Arguments, _session: &Session) -> Result<ExitCode, CommandError> {
    Ok(ExitCode::SUCCESS)
}
