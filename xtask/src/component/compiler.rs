//! The compilers of this machine: which versions they are, and what they can build.

use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::command::output_of;
use crate::project::{Arch, Project};
use crate::sysroot::Sysroot;
use crate::table::{Component, Language};

/// What builds programs for one architecture here.
#[derive(Debug)]
pub struct Toolchain {
    pub arch: Arch,
    pub host: Arch,
    go: String,
    c: Option<String>,
    /// Where another architecture's libraries are.
    sysroot: Option<Sysroot>,
}

impl Toolchain {
    /// Looks for Go of at least the version the table asks for; a C compiler may be missing.
    pub fn find(project: &Project, oldest_go: &str, arch: Arch) -> Result<Self> {
        let host = Arch::host()?;
        let go =
            output_of(Command::new("go").args(["env", "GOVERSION"]).env("GOTOOLCHAIN", "local"))
                .with_context(|| {
                    format!("go is not installed: Go {oldest_go} or newer builds the components")
                })?;
        if !is_at_least(&go, oldest_go) {
            bail!("{go} is too old: Go {oldest_go} or newer builds the components");
        }
        let c = output_of(Command::new(arch.c_compiler(host)).arg("-dumpfullversion"));
        let sysroot = (arch != host).then(|| Sysroot::at(project, arch));
        Ok(Self { arch, host, go, c, sysroot })
    }

    /// Fetches what another architecture's components link with.
    pub fn prepare(&self, project: &Project) -> Result<()> {
        self.sysroot.as_ref().map_or(Ok(()), |sysroot| sysroot.ensure(project))
    }

    /// What of the compilers a component's outcome depends on.
    pub fn fingerprint(&self, component: &Component) -> String {
        let c = self.c.as_deref().unwrap_or("none");
        match (component.language, &component.cgo) {
            (Language::Go, None) => self.go.clone(),
            (Language::C, _) => format!("{} {c}", self.c_compiler()),
            (Language::Go, Some(cgo)) => {
                let libraries = self.pkg_config(&["--modversion"], &cgo.pkg_config);
                format!("{} {c} {}", self.go, libraries.unwrap_or_default())
            }
        }
    }

    /// Why a component cannot be built here for this architecture, if so.
    pub fn obstacle(&self, component: &Component) -> Option<String> {
        if component.language == Language::Go && component.cgo.is_none() {
            return None;
        }
        if self.c.is_none() {
            return Some(format!(
                "{} is not installed (Debian package {})",
                self.c_compiler(),
                self.arch.c_compiler_package(self.host)
            ));
        }
        let cgo = component.cgo.as_ref().filter(|cgo| !cgo.pkg_config.is_empty())?;
        if self.pkg_config(&["--exists"], &cgo.pkg_config).is_none() {
            return Some(format!(
                "no {} for {} (Debian package {})",
                cgo.pkg_config.join(", "),
                self.arch.name(),
                cgo.debian
                    .iter()
                    .map(|name| format!("{name}:{}", self.arch.name()))
                    .collect::<Vec<_>>()
                    .join(" ")
            ));
        }
        None
    }

    pub fn c_compiler(&self) -> &'static str {
        self.arch.c_compiler(self.host)
    }

    /// Sets what makes cgo's pkg-config find libraries of this architecture and no other.
    pub fn direct_pkg_config(&self, command: &mut Command) {
        if let Some(sysroot) = &self.sysroot {
            sysroot.direct_pkg_config(command);
        }
    }

    fn pkg_config(&self, options: &[&str], libraries: &[String]) -> Option<String> {
        let mut command = Command::new("pkg-config");
        command.args(options).args(libraries);
        self.direct_pkg_config(&mut command);
        output_of(&mut command)
    }
}

/// Compares `go1.26.8` with `1.26.6`; what follows a space or a letter does not count.
fn is_at_least(version: &str, oldest: &str) -> bool {
    let numbers = |text: &str| -> Vec<u32> {
        text.trim_start_matches("go")
            .split(|c: char| !c.is_ascii_digit() && c != '.')
            .next()
            .unwrap_or_default()
            .split('.')
            .map(|part| part.parse().unwrap_or(0))
            .collect()
    };
    numbers(version) >= numbers(oldest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_go_are_compared_as_numbers() {
        assert!(is_at_least("go1.26.8", "1.26.6"));
        assert!(is_at_least("go1.26.10", "1.26.6"));
        assert!(is_at_least("go1.27", "1.26.6"));
        assert!(is_at_least("go1.26.6 X:nogreenteagc", "1.26.6"));
        assert!(!is_at_least("go1.26.5", "1.26.6"));
        assert!(!is_at_least("go1.26rc1", "1.26.6"));
        assert!(!is_at_least("go1.9.9", "1.26.6"));
    }
}
