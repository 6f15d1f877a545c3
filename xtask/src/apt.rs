//! A package state of our own: what the machine's archive has, without touching the machine's apt.
//!
//! Only the archive's address is taken from the machine's configuration. apt checks signatures as
//! always.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::command::{output_of, run_logged};

const ARCHIVE_KEYS: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// One suite of an archive, with its index below a folder of ours.
pub struct PrivateApt {
    folder: PathBuf,
    options: Vec<String>,
}

/// The archive and the suite that this machine's own configuration names first.
pub struct Archive {
    pub address: String,
    pub suite: String,
}

impl Archive {
    pub fn of_machine() -> Result<Self> {
        let targets = output_of(Command::new("apt-get").args([
            "indextargets",
            "--format",
            "$(REPO_URI) $(RELEASE) $(COMPONENT)",
            "Created-By: Packages",
        ]))
        .context("apt-get does not say which archive this machine uses")?;
        choose_archive(&targets).context("this machine's package sources name no Debian archive")
    }
}

fn choose_archive(targets: &str) -> Option<Archive> {
    targets
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            Some((words.next()?, words.next()?, words.next()?))
        })
        .find(|(_, suite, component)| !suite.contains('-') && *component == "main")
        .map(|(address, suite, _)| Archive {
            address: address.trim_end_matches('/').to_owned(),
            suite: suite.to_owned(),
        })
}

impl PrivateApt {
    /// `kind` is `deb` or `deb-src`; `architecture` as Debian names it, none for the machine's own.
    pub fn new(
        folder: &Path,
        kind: &str,
        archive: &str,
        suite: &str,
        architecture: Option<&str>,
    ) -> Result<Self> {
        for part in ["parts", "lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(folder.join(part))?;
        }
        let signed = if Path::new(ARCHIVE_KEYS).is_file() {
            format!("[signed-by={ARCHIVE_KEYS}] ")
        } else {
            String::new()
        };
        fs::write(
            folder.join("parts/one.list"),
            format!("{kind} {signed}{archive} {suite} main\n"),
        )?;
        let at = |name: &str, part: &str| format!("{name}={}", folder.join(part).display());
        let mut options = vec![
            "Dir::Etc::sourcelist=/dev/null".to_owned(),
            at("Dir::Etc::sourceparts", "parts"),
            at("Dir::State::lists", "lists"),
            at("Dir::Cache", "cache"),
            // Root fetches into a folder that apt's own user may not enter.
            "APT::Sandbox::User=root".to_owned(),
        ];
        if let Some(architecture) = architecture {
            // Nothing that this machine has installed is of another architecture.
            fs::write(folder.join("status"), "")?;
            options.push(at("Dir::State::status", "status"));
            options.push(format!("APT::Architecture={architecture}"));
            options.push(format!("APT::Architectures={architecture}"));
        }
        Ok(Self { folder: folder.to_owned(), options })
    }

    /// `apt-get` or `apt-cache` over this state.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        for option in &self.options {
            command.arg("-o").arg(option);
        }
        command
    }

    pub fn update(&self, log: &Path) -> Result<()> {
        run_logged(self.command("apt-get").arg("update"), log).map(|_| ())
    }

    /// Fetches these packages, without what they depend on.
    pub fn download(&self, packages: &[&str], log: &Path) -> Result<Vec<PathBuf>> {
        let into = self.folder.join("packages");
        fs::create_dir_all(&into)?;
        let mut command = self.command("apt-get");
        run_logged(command.arg("download").args(packages).current_dir(&into), log)?;
        let files = fs::read_dir(&into)?.map(|entry| Ok(entry?.path()));
        files.filter(|path| path.as_ref().map_or(true, |path| is_package(path))).collect()
    }
}

fn is_package(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "deb")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_main_archive_is_found_among_the_sources() {
        let targets = "http://security.example/debian-security/ bookworm-security main\n\
                       http://a.example/debian/ bookworm-updates main\n\
                       http://a.example/debian/ bookworm main\n";
        let found = choose_archive(targets).unwrap();
        assert_eq!((&*found.address, &*found.suite), ("http://a.example/debian", "bookworm"));
        assert!(choose_archive("").is_none());
    }
}
