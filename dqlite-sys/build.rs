//! Finds libdqlite and tells the linker. It builds and downloads nothing: `cargo xtask setup` does.
//!
//! Looked at, in this order: `DQLITE_PREFIX`, the newest version in Skiff's cache
//! (`dqlite/<recipe's revision>/<architecture>/<version>/prefix`), pkg-config. dqlite itself is always linked statically (its SONAME does not change with its symbols);
//! uv, sqlite3 and lz4 are linked statically where their archives exist.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

/// 1.11 loses large transactions, lacks handover and answers prepare from a stale schema.
const MINIMUM: (u32, u32) = (1, 18);

fn main() {
    for name in [
        "DQLITE_PREFIX",
        "SKIFF_CACHE",
        "XDG_CACHE_HOME",
        "HOME",
        "DQLITE_DYNAMIC_DEPS",
        "DQLITE_DEPS",
    ] {
        println!("cargo::rerun-if-env-changed={name}");
    }
    match find() {
        Ok(found) => link(&found),
        Err(reason) => {
            println!("cargo::error=libdqlite >= 1.18 not found: {reason}");
            println!("cargo::error=run `cargo xtask setup`, which builds it into Skiff's cache");
        }
    }
}

const REVISION: &str = include_str!("recipe/revision");

/// Where the library is and which version its header names.
struct Found {
    lib: PathBuf,
    version: String,
}

fn find() -> Result<Found, String> {
    if let Some(prefix) = env::var_os("DQLITE_PREFIX") {
        return in_prefix(Path::new(&prefix)).map_err(|e| format!("DQLITE_PREFIX: {e}"));
    }
    let mut reasons = Vec::new();
    match cache() {
        Some(cache) => {
            let shelf = cache.join("dqlite").join(REVISION.trim()).join(triplet());
            match newest(&shelf) {
                Some(prefix) => match in_prefix(&prefix) {
                    Ok(found) => return Ok(found),
                    Err(e) => reasons.push(e),
                },
                None => reasons.push(format!("nothing in {}", shelf.display())),
            }
        }
        None => reasons.push("none of SKIFF_CACHE, XDG_CACHE_HOME, HOME is set".to_string()),
    }
    match pkg_config() {
        Ok(found) => return Ok(found),
        Err(e) => reasons.push(e),
    }
    Err(reasons.join("; "))
}

/// `x86_64-linux-gnu`: what Debian names the architecture that is built for.
fn triplet() -> String {
    let of = |name| env::var(name).unwrap_or_default();
    format!("{}-linux-{}", of("CARGO_CFG_TARGET_ARCH"), of("CARGO_CFG_TARGET_ENV"))
}

fn cache() -> Option<PathBuf> {
    let set = |name| env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    set("SKIFF_CACHE")
        .or_else(|| set("XDG_CACHE_HOME").map(|p| p.join("skiff")))
        .or_else(|| set("HOME").map(|p| p.join(".cache/skiff")))
}

/// The highest version below `dir` that holds an installed library.
fn newest(dir: &Path) -> Option<PathBuf> {
    println!("cargo::rerun-if-changed={}", dir.display());
    std::fs::read_dir(dir)
        .ok()?
        .flatten()
        .filter_map(|entry| {
            let version: Option<Vec<u32>> =
                entry.file_name().to_str()?.split('.').map(|part| part.parse().ok()).collect();
            let prefix = entry.path().join("prefix");
            prefix.join("lib/libdqlite.a").exists().then_some((version?, prefix))
        })
        .max()
        .map(|(_, prefix)| prefix)
}

fn in_prefix(prefix: &Path) -> Result<Found, String> {
    let archive = prefix.join("lib/libdqlite.a");
    if !archive.exists() {
        return Err(format!("no {}", archive.display()));
    }
    println!("cargo::rerun-if-changed={}", archive.display());
    let header = prefix.join("include/dqlite.h");
    let text =
        std::fs::read_to_string(&header).map_err(|e| format!("{}: {e}", header.display()))?;
    let number = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(&format!("#define {name} ")))?;
        line.split_whitespace().nth(2)?.parse::<u32>().ok()
    };
    let parts = (
        number("DQLITE_VERSION_MAJOR"),
        number("DQLITE_VERSION_MINOR"),
        number("DQLITE_VERSION_RELEASE"),
    );
    let (Some(major), Some(minor), Some(release)) = parts else {
        return Err(format!("no version in {}", header.display()));
    };
    if (major, minor) < MINIMUM {
        return Err(format!("{} is version {major}.{minor}.{release}", prefix.display()));
    }
    Ok(Found { lib: prefix.join("lib"), version: format!("{major}.{minor}.{release}") })
}

fn pkg_config() -> Result<Found, String> {
    let ask = |arguments: &[&str]| {
        let output = Command::new("pkg-config").args(arguments).output();
        let output = output.map_err(|e| format!("pkg-config: {e}"))?;
        if !output.status.success() {
            return Err("pkg-config does not know dqlite >= 1.18".to_string());
        }
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_string())
    };
    ask(&["--exists", "dqlite >= 1.18"])?;
    let lib = PathBuf::from(ask(&["--variable=libdir", "dqlite"])?);
    let version = ask(&["--modversion", "dqlite"])?;
    if !lib.join("libdqlite.a").exists() {
        return Err(format!("{} has no libdqlite.a", lib.display()));
    }
    Ok(Found { lib, version })
}

fn link(found: &Found) {
    println!("cargo::rustc-link-search=native={}", found.lib.display());
    println!("cargo::rustc-link-lib=static=dqlite");
    let target = Target::read();
    for (archive, shared) in [("uv_a", "uv"), ("sqlite3", "sqlite3"), ("lz4", "lz4")] {
        match target.directory_of(&found.lib, archive) {
            Some(dir) => {
                println!("cargo::rustc-link-search=native={}", dir.display());
                println!("cargo::rustc-link-lib=static={archive}");
            }
            None => println!("cargo::rustc-link-lib=dylib={shared}"),
        }
    }
    println!("cargo::rustc-link-lib=dylib=m");
    println!("cargo::rustc-env=DQLITE_LINKED_VERSION={}", found.version);
    println!("cargo::metadata=version={}", found.version);
}

/// Where archives of the target's libraries live.
struct Target {
    directories: Vec<PathBuf>,
}

impl Target {
    fn read() -> Target {
        // Where another architecture's libraries are, when they are not the machine's own.
        let given = env::var_os("DQLITE_DEPS").map(PathBuf::from);
        let mut directories: Vec<PathBuf> = given.into_iter().collect();
        directories.push(PathBuf::from(format!("/usr/lib/{}", triplet())));
        if env::var("HOST").ok() == env::var("TARGET").ok() {
            directories.extend(["/usr/lib64", "/usr/lib"].map(PathBuf::from));
        }
        Target { directories }
    }

    fn directory_of(&self, prefix: &Path, archive: &str) -> Option<PathBuf> {
        if env::var_os("DQLITE_DYNAMIC_DEPS").is_some() {
            return None;
        }
        let file = format!("lib{archive}.a");
        let mut all = vec![prefix.to_path_buf()];
        all.extend(self.directories.iter().cloned());
        all.into_iter().find(|dir| dir.join(&file).exists())
    }
}
