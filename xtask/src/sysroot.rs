//! C libraries of another architecture, to link with: Debian's own packages, unpacked into the
//! cache. The machine's packages stay as they are; adding a foreign architecture to dpkg would be
//! a change that a build has no business to make.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::apt::{Archive, PrivateApt};
use crate::command::{announce, run_logged};
use crate::component::BuildLock;
use crate::project::{Arch, Project};

/// Headers and static libraries that our components and libdqlite link with.
const PACKAGES: &[&str] = &["liblz4-dev", "libseccomp-dev", "libsqlite3-dev", "libuv1-dev"];
const USUAL_SECONDS: u64 = 20;
/// pkg-config files name absolute places; this is where they are now.
const PKG_CONFIG: &str = "usr/lib";

/// A tree as of a machine of another architecture.
#[derive(Clone, Debug)]
pub struct Sysroot {
    pub folder: PathBuf,
    pub arch: Arch,
}

impl Sysroot {
    pub fn at(project: &Project, arch: Arch) -> Self {
        Self { folder: project.cache.join("sysroot").join(arch.name()), arch }
    }

    pub fn is_there(&self) -> bool {
        self.complete().is_file()
    }

    /// Makes it once; later calls find it.
    pub fn ensure(&self, project: &Project) -> Result<()> {
        if self.is_there() {
            return Ok(());
        }
        let parent = self.folder.parent().context("a sysroot lies below the cache")?;
        fs::create_dir_all(parent)?;
        let _lock = BuildLock::take(parent)?;
        if self.is_there() {
            return Ok(());
        }
        announce(&format!("fetching C libraries for {}", self.arch.name()), USUAL_SECONDS);
        for stale in [&self.folder, &self.work()] {
            if stale.exists() {
                fs::remove_dir_all(stale)?;
            }
        }
        let log = |what: &str| project.logs().join(format!("sysroot-{what}.log"));
        let archive = Archive::of_machine()?;
        let name = Some(self.arch.name());
        let apt = PrivateApt::new(&self.work(), "deb", &archive.address, &archive.suite, name)?;
        apt.update(&log("update"))?;
        for package in apt.download(PACKAGES, &log("download"))? {
            let mut unpack = Command::new("dpkg-deb");
            unpack.arg("--extract").arg(&package).arg(&self.folder);
            run_logged(&mut unpack, &log("unpack"))?;
        }
        fs::remove_dir_all(self.work())?;
        fs::write(self.complete(), PACKAGES.join("\n"))?;
        Ok(())
    }

    /// Makes pkg-config, and whoever calls it, find these libraries and no others.
    pub fn direct_pkg_config(&self, command: &mut Command) {
        command
            .env("PKG_CONFIG_LIBDIR", self.libraries().join("pkgconfig"))
            .env("PKG_CONFIG_SYSROOT_DIR", &self.folder)
            .env("PKG_CONFIG_ALLOW_CROSS", "1");
    }

    /// Where the libraries are.
    pub fn libraries(&self) -> PathBuf {
        self.folder.join(PKG_CONFIG).join(self.arch.triplet())
    }

    fn complete(&self) -> PathBuf {
        self.folder.join(".complete")
    }

    fn work(&self) -> PathBuf {
        self.folder.with_extension("unfinished")
    }
}
