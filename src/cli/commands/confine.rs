use std::ffi::OsString;
use std::process::ExitCode;

use super::Outcome;

/// Give up privilege and become another program
///
/// Handled before anything else has started (see the crate skiff-confine); it
/// stands here so that the command is complete.
#[derive(clap::Args, Debug)]
#[command(verbatim_doc_comment, disable_help_flag = true)]
pub struct Arguments {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

pub(super) fn run(arguments: Arguments) -> Outcome {
    // Reached as `skiff --root R confine …` only.
    let code: ExitCode = skiff_confine::main(arguments.arguments.into_iter());
    Ok(code)
}
