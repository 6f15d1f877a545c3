use std::process::ExitCode;

use super::Outcome;
use crate::cli::{complete, output};
use crate::distribution::Distribution;

/// Print a completion script for a shell
///
///   skiff completion bash | sudo tee /etc/bash_completion.d/skiff
///   skiff completion zsh > ~/.zfunc/_skiff
///   skiff completion fish > ~/.config/fish/completions/skiff.fish
#[derive(clap::Args, Debug)]
#[command(verbatim_doc_comment)]
pub struct Arguments {
    /// Shell to complete in
    shell: Shell,
}

/// Shells that we have scripts for.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
}

pub(super) fn run(arguments: Arguments) -> Outcome {
    let shell = match arguments.shell {
        Shell::Bash => clap_complete::Shell::Bash,
        Shell::Zsh => clap_complete::Shell::Zsh,
        Shell::Fish => clap_complete::Shell::Fish,
    };
    output::write(&complete::script(shell, &addons()))?;
    Ok(ExitCode::SUCCESS)
}

/// Names of the addons at hand; none are completed when there is no distribution.
fn addons() -> Vec<String> {
    let Ok(distribution) = Distribution::find() else { return vec![] };
    let entries = std::fs::read_dir(distribution.addons()).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .filter(|entry| entry.path().join("addon.toml").is_file())
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    names.sort();
    names
}
