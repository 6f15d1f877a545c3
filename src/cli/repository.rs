//! A repository of addons where it lies: in a folder, or in git.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use skiff_api::RepositoryContent;

use super::CommandError;
use crate::addon::{Texts, read_texts};

/// Most folders that are looked at.
const FOLDERS_MAX: usize = 1000;
/// Ways on which git may fetch; all others start programs that the address names.
const GIT_PROTOCOLS: &str = "file:git:http:https:ssh";

/// Reads all addons of a source. `reference` is a branch or tag of git.
pub fn fetch(source: &str, reference: Option<&str>) -> Result<RepositoryContent, CommandError> {
    if !is_git(source) {
        if reference.is_some() {
            return Err(CommandError::usage("--reference is for git, and this is a folder"));
        }
        let path = std::path::absolute(source)?;
        let addons = read_all(&path)?;
        return Ok(RepositoryContent {
            source: path.display().to_string(),
            revision: None,
            addons,
        });
    }
    let place = tempfile::tempdir()?;
    let clone = place.path().join("clone");
    let mut command = git();
    command.args(["clone", "--quiet", "--depth=1", "--no-recurse-submodules"]);
    command.args(["--config", "core.symlinks=false"]);
    if let Some(reference) = reference {
        command.arg(format!("--branch={reference}"));
    }
    run(command.arg("--").arg(source).arg(&clone))?;
    let commit = run(git().arg("-C").arg(&clone).args(["rev-parse", "HEAD"]))?;
    let revision = match reference {
        Some(reference) => format!("{reference} {commit}"),
        None => commit,
    };
    let addons = read_all(&clone)?;
    Ok(RepositoryContent { source: source.into(), revision: Some(revision), addons })
}

/// The branch or tag of git that a repository was added with.
pub fn reference(revision: Option<&str>) -> Option<&str> {
    revision?.split_once(' ').map(|(reference, _)| reference)
}

fn is_git(source: &str) -> bool {
    let is_folder = Path::new(source).is_dir() && !Path::new(source).join("HEAD").is_file();
    !is_folder && (source.contains("://") || source.starts_with("git@") || source.ends_with(".git"))
}

fn git() -> Command {
    let mut command = Command::new("git");
    command
        .env("GIT_ALLOW_PROTOCOL", GIT_PROTOCOLS)
        .env("GIT_TERMINAL_PROMPT", "0")
        .stdin(Stdio::null());
    command
}

fn run(command: &mut Command) -> Result<String, CommandError> {
    let output = command.output().map_err(|error| {
        let error = CommandError::new("cannot run git").cause(error.to_string());
        error.hint("install git, or get the folder yourself and add that")
    })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(CommandError::new("git cannot fetch the repository").cause(said.trim()))
}

/// Every folder with an addon in it: in `folder` itself, or in its folder `addons`.
fn read_all(folder: &Path) -> Result<BTreeMap<String, Texts>, CommandError> {
    let mut addons = BTreeMap::new();
    let mut problems = Vec::new();
    for place in [folder.to_path_buf(), folder.join("addons")] {
        if place != folder && !place.is_dir() {
            continue;
        }
        let entries = fs::read_dir(&place).map_err(|error| {
            let message = format!("cannot read {}", place.display());
            CommandError::new(message).cause(error.to_string())
        })?;
        for entry in entries.flatten().take(FOLDERS_MAX) {
            let (path, name) = (entry.path(), entry.file_name());
            let Some(name) = name.to_str() else { continue };
            if name.starts_with('.') || path.join("addon.toml").symlink_metadata().is_err() {
                continue;
            }
            match read_texts(&path) {
                Ok(texts) => drop(addons.insert(name.to_owned(), texts)),
                Err(found) => problems.push(format!("{name}: {}", found.join("; "))),
            }
        }
    }
    if problems.is_empty() {
        return Ok(addons);
    }
    let error = CommandError::new(format!("cannot take addons from {}", folder.display()));
    Err(problems.into_iter().fold(error, CommandError::cause).hint("skiff addons lint FOLDER"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "description = 'd'\nversion = '1'\n";

    fn addon(folder: &Path) {
        fs::create_dir_all(folder.join("manifests")).unwrap();
        fs::write(folder.join("addon.toml"), GOOD).unwrap();
    }

    #[test]
    fn addons_are_found_in_a_folder_and_in_its_folder_of_addons() {
        let dir = tempfile::tempdir().unwrap();
        addon(&dir.path().join("one"));
        addon(&dir.path().join("addons/two"));
        addon(&dir.path().join(".hidden"));
        fs::create_dir(dir.path().join("docs")).unwrap();
        let source = dir.path().to_str().unwrap();
        let content = fetch(source, None).unwrap();
        assert_eq!(content.addons.keys().collect::<Vec<_>>(), ["one", "two"]);
        assert_eq!((&*content.source, content.revision), (source, None));
        let error = fetch(source, Some("main")).unwrap_err();
        assert_eq!(error.message, "--reference is for git, and this is a folder");
        let error = fetch(&format!("{source}/gone"), None).unwrap_err();
        assert!(error.message.starts_with("cannot read "), "{error:?}");
    }

    #[test]
    fn a_link_in_a_repository_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        addon(&dir.path().join("one"));
        let link = dir.path().join("one/manifests/a.yaml");
        std::os::unix::fs::symlink("/etc/passwd", link).unwrap();
        let error = fetch(dir.path().to_str().unwrap(), None).unwrap_err();
        assert_eq!(error.causes, ["one: a.yaml: it is a link, which is not followed"]);
    }

    #[test]
    fn git_is_fetched_at_a_branch_and_the_commit_is_known() {
        let dir = tempfile::tempdir().unwrap();
        let work = dir.path().join("work");
        addon(&work.join("web"));
        let git = |args: &[&str]| {
            let identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"];
            let status = Command::new("git")
                .args(identity)
                .arg("-C")
                .arg(&work)
                .args(args)
                .status()
                .unwrap();
            assert!(status.success(), "{args:?}");
        };
        git(&["init", "--quiet", "--initial-branch=stable"]);
        git(&["add", "."]);
        git(&["commit", "--quiet", "--message=one"]);
        let source = format!("file://{}", work.display());
        let content = fetch(&source, Some("stable")).unwrap();
        assert_eq!(content.addons.keys().collect::<Vec<_>>(), ["web"]);
        let revision = content.revision.unwrap();
        assert_eq!(reference(Some(&revision)), Some("stable"));
        assert_eq!(revision.split_once(' ').unwrap().1.len(), 40);
        let error = fetch(&source, Some("gone")).unwrap_err();
        assert_eq!(error.message, "git cannot fetch the repository");
        assert!(fetch("ext::sh -c touch% /tmp/x.git", None).is_err(), "no program is started");
    }
}
