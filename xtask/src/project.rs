//! Where things are: the clone, the cache outside it, the machine's architecture.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// The clone that is worked on and the cache that outlives it.
#[derive(Debug, Clone)]
pub struct Project {
    pub root: PathBuf,
    pub cache: PathBuf,
    pub target: PathBuf,
}

impl Project {
    pub fn find() -> Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"))
            .parent()
            .context("xtask lies in no workspace")?
            .to_path_buf();
        let target =
            env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
        Ok(Self { root, cache: cache_folder()?, target })
    }

    pub fn components(&self) -> PathBuf {
        self.root.join("components")
    }

    /// What a node needs; the command finds it as `dist` beside its own build.
    pub fn dist(&self) -> PathBuf {
        self.target.join("dist")
    }

    /// What only tests and measurements need.
    pub fn dist_test(&self) -> PathBuf {
        self.target.join("dist-test")
    }

    /// What only measurements need.
    pub fn dist_measure(&self) -> PathBuf {
        self.target.join("dist-measure")
    }

    pub fn program(&self) -> PathBuf {
        self.target.join("release/skiff")
    }

    pub fn logs(&self) -> PathBuf {
        self.cache.join("log")
    }
}

/// `$SKIFF_CACHE`, or `skiff` in the user's cache folder.
fn cache_folder() -> Result<PathBuf> {
    if let Some(folder) = set("SKIFF_CACHE") {
        return Ok(folder);
    }
    if let Some(folder) = set("XDG_CACHE_HOME") {
        return Ok(folder.join("skiff"));
    }
    match set("HOME") {
        Some(home) => Ok(home.join(".cache/skiff")),
        None => bail!("no place for the cache: set SKIFF_CACHE, XDG_CACHE_HOME or HOME"),
    }
}

fn set(variable: &str) -> Option<PathBuf> {
    env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// A processor architecture, in the words of Go and OCI.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arch {
    Amd64,
    Arm64,
}

impl Arch {
    pub fn host() -> Result<Self> {
        match env::consts::ARCH {
            "x86_64" => Ok(Self::Amd64),
            "aarch64" => Ok(Self::Arm64),
            other => bail!("architecture {other} is not supported; amd64 and arm64 are"),
        }
    }

    pub fn parse(name: &str) -> Result<Self, String> {
        match name {
            "amd64" => Ok(Self::Amd64),
            "arm64" => Ok(Self::Arm64),
            other => Err(format!("{other} is not supported; amd64 and arm64 are")),
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }

    /// The machine's number in the header of an executable.
    pub fn elf_machine(self) -> u16 {
        match self {
            Self::Amd64 => 62,
            Self::Arm64 => 183,
        }
    }

    /// What Debian names the folders of its libraries, and compilers what they compile for.
    pub fn triplet(self) -> &'static str {
        match self {
            Self::Amd64 => "x86_64-linux-gnu",
            Self::Arm64 => "aarch64-linux-gnu",
        }
    }

    /// What Rust names it.
    pub fn rust_target(self) -> &'static str {
        match self {
            Self::Amd64 => "x86_64-unknown-linux-gnu",
            Self::Arm64 => "aarch64-unknown-linux-gnu",
        }
    }

    /// The C compiler that makes programs for it on this machine.
    pub fn c_compiler(self, host: Self) -> &'static str {
        match self {
            _ if self == host => "gcc",
            Self::Amd64 => "x86_64-linux-gnu-gcc",
            Self::Arm64 => "aarch64-linux-gnu-gcc",
        }
    }

    /// The Debian package of that compiler.
    pub fn c_compiler_package(self, host: Self) -> &'static str {
        match self {
            _ if self == host => "gcc",
            Self::Amd64 => "gcc-x86-64-linux-gnu",
            Self::Arm64 => "gcc-aarch64-linux-gnu",
        }
    }
}
