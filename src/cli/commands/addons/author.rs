//! For who writes an addon.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::super::Outcome;
use crate::addon::{is_word, lint as look, write_skeleton};
use crate::cli::{CommandError, EXIT_FAILURE, ui};
use crate::distribution::Distribution;

/// Checks addons as a node would, and says what their users would miss.
pub fn lint(folders: &[PathBuf]) -> Outcome {
    let build = Distribution::find().ok();
    let images = build.as_ref().map(Distribution::image_names).unwrap_or_default();
    let mut is_refused = false;
    for folder in folders {
        let name = name_of(folder)?;
        let findings = look(&name, folder, &images);
        for problem in &findings.problems {
            ui::say(&format!("{name}: error: {problem}"));
        }
        for advice in &findings.advice {
            ui::say(&format!("{name}: advice: {advice}"));
        }
        match (findings.problems.is_empty(), findings.advice.is_empty()) {
            (true, true) => ui::say(&format!("{name} is well defined")),
            (true, false) => ui::say(&format!("{name} can be enabled")),
            (false, _) => is_refused = true,
        }
    }
    Ok(if is_refused { ExitCode::from(EXIT_FAILURE) } else { ExitCode::SUCCESS })
}

/// Writes the beginning of an addon.
pub fn new(folder: &Path) -> Outcome {
    let name = name_of(folder)?;
    if !is_word(&name) {
        let message = format!("{name:?} cannot be an addon's name");
        let error = CommandError::new(message);
        return Err(error.cause("a name is lower-case letters, digits and -"));
    }
    write_skeleton(&name, folder).map_err(|error| {
        CommandError::because(format!("cannot write {}", folder.display()), &error)
    })?;
    ui::say(&format!("{} is a beginning: change it, then type", folder.display()));
    ui::say(&format!("  skiff addons lint {}", folder.display()));
    Ok(ExitCode::SUCCESS)
}

/// An addon is called like its folder, also when that is `.`.
fn name_of(folder: &Path) -> Result<String, CommandError> {
    let absolute = match folder.canonicalize() {
        Ok(path) => path,
        Err(_) => std::path::absolute(folder)?,
    };
    let name = absolute.file_name().and_then(|name| name.to_str());
    let unnamed = || CommandError::new(format!("{} has no name", folder.display()));
    name.map(str::to_owned).ok_or_else(unnamed)
}
