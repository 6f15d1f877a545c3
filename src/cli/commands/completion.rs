use std::process::ExitCode;

use clap_complete::Shell;

use crate::cli::{CommandError, command, output};

/// Print a completion script for a shell
///
///   skiff completion bash > /etc/bash_completion.d/skiff
#[derive(clap::Args, Debug)]
#[command(verbatim_doc_comment)]
pub struct Arguments {
    /// Shell to complete in
    shell: Shell,
}

pub(super) fn run(arguments: Arguments) -> Result<ExitCode, CommandError> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut command(), "skiff", &mut script);
    output::write(&String::from_utf8_lossy(&script))?;
    Ok(ExitCode::SUCCESS)
}
