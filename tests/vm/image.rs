//! The machine's disk, made once and kept.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

/// What `image/build.sh` copies, and itself: a change makes a new disk.
const RECIPE: &[(&str, &str)] = &[
    ("build.sh", include_str!("image/build.sh")),
    ("machine-agent", include_str!("image/machine-agent")),
    ("machine-agent.service", include_str!("image/machine-agent.service")),
    ("uplink.network", include_str!("image/uplink.network")),
    ("journald.conf", include_str!("image/journald.conf")),
];

/// The Debian that the machine runs, whatever this computer runs.
const SUITE: &str = "bookworm";

/// How many bytes of key are enough to tell recipes apart.
const KEY_BYTES: usize = 8;

/// A disk with its kernel. Machines write to overlays, never here.
#[derive(Clone, Debug)]
pub struct Image {
    pub disk: PathBuf,
    pub kernel: PathBuf,
    pub initrd: PathBuf,
}

impl Image {
    /// The kept one, or a new one (2 minutes, more on a busy computer).
    pub fn ensure() -> Result<Self> {
        let place = cache()?.join("vm").join(key());
        let image = Self {
            disk: place.join("disk.raw"),
            kernel: place.join("kernel"),
            initrd: place.join("initrd"),
        };
        fs::create_dir_all(place.parent().expect("the place was joined to a folder"))?;
        let lock = File::create(place.with_extension("lock"))?;
        lock.lock().with_context(|| format!("cannot lock {}", place.display()))?;
        if !place.is_dir() {
            let draft = place.with_extension("draft");
            build(&draft)?;
            fs::rename(&draft, &place)?;
        }
        Ok(image)
    }
}

fn build(draft: &Path) -> Result<()> {
    if draft.exists() {
        fs::remove_dir_all(draft)?;
    }
    fs::create_dir_all(draft)?;
    let log = draft.with_extension("log");
    let output = File::create(&log)?;
    eprintln!("making the machine's disk, once (usually 2 min)");
    // A mount namespace of its own: what debootstrap mounts goes with it, even when it is killed.
    let status = Command::new("unshare")
        .args(["--mount", "sh"])
        .arg(recipe().join("build.sh"))
        .args([&archive()?, SUITE, architecture()?])
        .args([&recipe(), draft])
        .stdin(Stdio::null())
        .stderr(output.try_clone()?)
        .stdout(output)
        .status()
        .context("cannot run unshare")?;
    if !status.success() {
        bail!("making the machine's disk failed ({status}): see {}", log.display());
    }
    Ok(())
}

/// Where this computer takes its Debian packages from: its settings hold for the machine as well.
fn archive() -> Result<String> {
    let listed = Command::new("apt-get")
        .args(["indextargets", "--format", "$(REPO_URI) $(RELEASE) $(COMPONENT)"])
        .arg("Created-By: Packages")
        .stderr(Stdio::null())
        .output()
        .context("cannot ask apt-get for its archives")?;
    let text = String::from_utf8_lossy(&listed.stdout);
    let found = choose_archive(&text).with_context(|| {
        format!("no archive of {SUITE} main is among apt's sources; add one to make the machine")
    })?;
    Ok(found.to_owned())
}

fn choose_archive(listed: &str) -> Option<&str> {
    listed.lines().find_map(|line| {
        let mut words = line.split(' ');
        let address = words.next()?;
        (words.next()? == SUITE && words.next()? == "main").then_some(address)
    })
}

fn key() -> String {
    let mut digest = Sha256::new();
    digest.update(SUITE);
    digest.update(std::env::consts::ARCH);
    for (name, text) in RECIPE {
        digest.update(format!("{name} {}\n{text}", text.len()));
    }
    let bytes = digest.finalize();
    let hex: String = bytes.iter().take(KEY_BYTES).map(|byte| format!("{byte:02x}")).collect();
    format!("{SUITE}-{hex}")
}

fn recipe() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../vm/image")
}

/// Debian's word for this computer's processor.
fn architecture() -> Result<&'static str> {
    match std::env::consts::ARCH {
        "x86_64" => Ok("amd64"),
        "aarch64" => Ok("arm64"),
        other => bail!("there is no machine for {other}"),
    }
}

fn cache() -> Result<PathBuf> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("SKIFF_CACHE")
        .or_else(|| set("XDG_CACHE_HOME").map(|folder| folder.join("skiff")))
        .or_else(|| set("HOME").map(|folder| folder.join(".cache/skiff")))
        .context("neither SKIFF_CACHE nor HOME is set")
}

#[test]
fn the_archive_is_the_one_with_the_suite_itself() {
    let listed = "http://a/security bookworm-security main\nhttp://b/x trixie main\n\
                  http://c/debian bookworm contrib\nhttp://d/debian bookworm main\n";
    assert_eq!(choose_archive(listed), Some("http://d/debian"));
    assert_eq!(choose_archive("http://a/debian trixie main\n"), None);
}
