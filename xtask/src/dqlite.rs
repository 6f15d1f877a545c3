//! libdqlite as a static library, built from Debian's source package into the cache.
//!
//! The machine's own package may be older than what Skiff needs. A package state of our own asks
//! newer suites of the archive that the machine uses already. Our patches are in `dqlite-sys/recipe`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::apt::{Archive, PrivateApt};
use crate::command::{announce, duration, output_of, run_logged};
use crate::component::BuildLock;
use crate::project::{Arch, Project};
use crate::sysroot::Sysroot;

/// The oldest version whose behaviour the datastore relies on; 1.18.7 is what it is tested with.
const OLDEST: (u32, u32) = (1, 18);
/// Where newer versions appear first. The suites move, so the first that has one is taken.
const SUITES: &[&str] = &["testing", "unstable", "stable"];
const USUAL_SECONDS: u64 = 60;

/// Asserts stay on (the library does not compile without), symbols of a bundled backtrace do not.
const CONFIGURE: &[&str] =
    &["--enable-static", "--disable-shared", "--with-pic", "--disable-backtrace"];

/// Counts up with every change of this recipe or its patches, so that no older build is found.
const REVISION: &str = include_str!("../../dqlite-sys/recipe/revision");

/// Makes sure that a usable libdqlite is in the cache, where `dqlite-sys` finds it, and says where:
/// for this machine, or for the architecture of `sysroot` with the libraries that are there.
pub fn ensure_library(project: &Project, sysroot: Option<&Sysroot>) -> Result<PathBuf> {
    let arch = sysroot.map_or_else(Arch::host, |sysroot| Ok(sysroot.arch))?;
    let shelf = project.cache.join("dqlite").join(REVISION.trim()).join(arch.triplet());
    let shelf = shelf.as_path();
    if let Some(prefix) = find_built(shelf) {
        return Ok(prefix);
    }
    let _lock = BuildLock::take(shelf)?;
    if let Some(prefix) = find_built(shelf) {
        return Ok(prefix);
    }
    announce("building libdqlite", USUAL_SECONDS);
    let started = std::time::Instant::now();
    let work = shelf.join(".unfinished");
    if work.exists() {
        fs::remove_dir_all(&work)?;
    }
    fs::create_dir_all(&work).with_context(|| format!("cannot create {}", work.display()))?;
    let source = fetch(project, &work)?;
    let prefix = build(project, shelf, &work, &source, sysroot)?;
    fs::remove_dir_all(&work)?;
    eprintln!("    libdqlite {} is built, {}", source.version, duration(started.elapsed()));
    Ok(prefix)
}

/// The newest finished build.
fn find_built(shelf: &Path) -> Option<PathBuf> {
    let entries = fs::read_dir(shelf).ok()?;
    entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter_map(|name| Some((parse_version(&name)?, name)))
        .filter(|(version, _)| is_new_enough(version))
        .map(|(version, name)| (version, shelf.join(name).join("prefix")))
        .filter(|(_, prefix)| prefix.join("lib/libdqlite.a").is_file())
        .max()
        .map(|(_, prefix)| prefix)
}

/// A source package that apt has fetched and checked.
struct Source {
    version: String,
    suite: &'static str,
    archive: String,
    folder: PathBuf,
}

fn fetch(project: &Project, work: &Path) -> Result<Source> {
    let archive = Archive::of_machine()?.address;
    let mut reasons = Vec::new();
    for suite in SUITES.iter().copied() {
        let folder = work.join(suite);
        match fetch_from(project, &folder, &archive, suite) {
            Ok(version) => return Ok(Source { version, suite, archive, folder }),
            Err(error) => reasons.push(format!("{suite}: {error:#}")),
        }
    }
    bail!(
        "no source of dqlite {}.{} or newer could be had\n{}",
        OLDEST.0,
        OLDEST.1,
        reasons.join("\n")
    )
}

fn fetch_from(project: &Project, folder: &Path, archive: &str, suite: &str) -> Result<String> {
    let apt = PrivateApt::new(folder, "deb-src", archive, suite, None)?;
    let log = |what: &str| project.logs().join(format!("dqlite-{what}.log"));
    apt.update(&log("update"))?;
    let listing = output_of(apt.command("apt-cache").args(["showsrc", "--only-source", "dqlite"]))
        .context("the suite has no dqlite")?;
    let version = newest_version(&listing).context("the suite has no dqlite")?;
    let parsed = parse_version(&version).context("its version is unreadable")?;
    ensure!(is_new_enough(&parsed), "it has {version} only");
    let source = folder.join("source");
    fs::create_dir_all(&source)?;
    let mut get = apt.command("apt-get");
    get.args(["source", "--download-only", "dqlite"]).current_dir(source);
    run_logged(&mut get, &log("source"))?;
    Ok(version.split('-').next().unwrap_or(&version).to_owned())
}

fn build(
    project: &Project,
    shelf: &Path,
    work: &Path,
    source: &Source,
    sysroot: Option<&Sysroot>,
) -> Result<PathBuf> {
    let files = source.folder.join("source");
    let description = fs::read_dir(&files)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|extension| extension == "dsc"))
        .context("the source package has no description")?;
    let tree = work.join("tree");
    let staged = work.join("entry");
    // The library records the place where it ends up, not where it is staged.
    let entry = shelf.join(&source.version);
    let log = |what: &str| project.logs().join(format!("dqlite-{what}.log"));

    let mut unpack = Command::new("dpkg-source");
    run_logged(unpack.arg("-x").arg(&description).arg(&tree), &log("unpack"))?;
    for patch in patches(project)? {
        let mut apply = Command::new("patch");
        apply.args(["--strip=1", "--fuzz=0", "--input"]).arg(patch).current_dir(&tree);
        run_logged(&mut apply, &log("patch"))?;
    }
    let step = |program: &str, arguments: &[String], what: &str| {
        let mut command = Command::new(program);
        if let Some(sysroot) = sysroot {
            sysroot.direct_pkg_config(&mut command);
        }
        run_logged(command.args(arguments).current_dir(&tree), &log(what))
    };
    step("autoreconf", &["-i".into()], "autoreconf")?;
    let mut options: Vec<String> = CONFIGURE.iter().map(ToString::to_string).collect();
    options.push(format!("--prefix={}", entry.join("prefix").display()));
    options.push(format!("--libdir={}", entry.join("prefix/lib").display()));
    options.extend(sysroot.map(|sysroot| format!("--host={}", sysroot.arch.triplet())));
    step("./configure", &options, "configure")?;
    let jobs = std::thread::available_parallelism().map_or(1, usize::from);
    step("make", &[format!("-j{jobs}")], "make")?;
    let destination = work.join("destination");
    step("make", &["install".into(), format!("DESTDIR={}", destination.display())], "install")?;

    let relative = entry.strip_prefix("/").context("the cache has no absolute path")?;
    fs::rename(destination.join(relative), &staged)?;
    let library = staged.join("prefix/lib/libdqlite.a");
    let strip = sysroot.map_or("strip".into(), |root| format!("{}-strip", root.arch.triplet()));
    run_logged(Command::new(strip).arg("-g").arg(&library), &log("strip"))?;
    fs::write(staged.join("provenance"), provenance(source, &files, &patches(project)?)?)?;
    if entry.exists() {
        fs::remove_dir_all(&entry)?;
    }
    fs::rename(&staged, &entry)?;
    Ok(entry.join("prefix"))
}

/// In the order of their names.
fn patches(project: &Project) -> Result<Vec<PathBuf>> {
    let folder = project.root.join("dqlite-sys/recipe");
    let mut files: Vec<_> =
        fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    files.retain(|path| path.extension().is_some_and(|extension| extension == "patch"));
    files.sort();
    Ok(files)
}

/// What was taken from where, with its checksums.
fn provenance(source: &Source, files: &Path, patches: &[PathBuf]) -> Result<String> {
    let mut names: Vec<_> =
        fs::read_dir(files)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    names.sort();
    names.extend_from_slice(patches);
    let mut text = format!("dqlite {} from {} {}\n", source.version, source.archive, source.suite);
    for path in names {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        text.push_str(&format!("{}  {name}\n", crate::hash::sha256(&fs::read(&path)?)));
    }
    Ok(text)
}

fn newest_version(listing: &str) -> Option<String> {
    listing
        .lines()
        .filter_map(|line| line.strip_prefix("Version: "))
        .filter_map(|version| Some((parse_version(version)?, version.to_owned())))
        .max()
        .map(|(_, version)| version)
}

/// `1.18.7-1` as numbers; none for what is no version.
fn parse_version(text: &str) -> Option<Vec<u32>> {
    let upstream = text.split('-').next()?;
    upstream.split('.').map(|part| part.parse().ok()).collect()
}

fn is_new_enough(version: &[u32]) -> bool {
    version >= &[OLDEST.0, OLDEST.1][..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_usable_build_is_taken() {
        let shelf = tempfile::tempdir().unwrap();
        for version in ["1.17.1", "1.18.7", "1.18.10", "lists"] {
            let lib = shelf.path().join(version).join("prefix/lib");
            fs::create_dir_all(&lib).unwrap();
            fs::write(lib.join("libdqlite.a"), "").unwrap();
        }
        fs::create_dir_all(shelf.path().join("1.19.0/prefix/lib")).unwrap(); // not finished
        assert_eq!(find_built(shelf.path()), Some(shelf.path().join("1.18.10/prefix")));
    }

    #[test]
    fn old_versions_are_refused() {
        assert!(is_new_enough(&parse_version("1.18.0-2").unwrap()));
        assert!(!is_new_enough(&parse_version("1.11.1-1").unwrap()));
        assert_eq!(parse_version("2:x"), None);
    }
}
