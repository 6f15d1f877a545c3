//! What a node needs on disk, by component, raw and as a compressed squashfs.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use harness::distribution;

use crate::figure::{Report, Side};

const MIB: f64 = (1 << 20) as f64;

pub fn measure(report: &mut Report) {
    let root = distribution();
    let mut parts: Vec<(String, f64)> = Vec::new();
    for place in ["bin", "cni", "images", "addons"] {
        if place == "bin" || place == "images" {
            for entry in fs::read_dir(root.join(place)).into_iter().flatten().flatten() {
                let name = format!("{place}/{}", entry.file_name().to_string_lossy());
                parts.push((name, size(&entry.path()) as f64 / MIB));
            }
        } else {
            parts.push((place.to_owned(), size(&root.join(place)) as f64 / MIB));
        }
    }
    parts.sort_by(|a, b| b.1.total_cmp(&a.1));
    for (name, mib) in &parts {
        let squashed = squashed(&root.join(name));
        let squashed = squashed.map_or("-".to_owned(), |mib| format!("{mib:.1}"));
        report.note(format!("size: {mib:7.1} MiB raw, {squashed:>6} MiB squashed  {name}"));
    }
    report.add("size on disk, MiB", Side::Skiff, parts.iter().map(|part| part.1).sum());
    match squashed(&root) {
        Some(mib) => report.add("size as squashfs (xz), MiB", Side::Skiff, mib),
        None => report.note("size: no squashfs without mksquashfs (squashfs-tools)".into()),
    }
}

fn size(path: &Path) -> u64 {
    if !path.is_dir() {
        return fs::metadata(path).map_or(0, |data| data.len());
    }
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries.map(|entry| size(&entry.path())).sum()
}

/// With the compression that snaps use by default.
fn squashed(path: &Path) -> Option<f64> {
    let file = tempfile::NamedTempFile::new().ok()?;
    let status = Command::new("mksquashfs")
        .arg(path)
        .arg(file.path())
        .args(["-noappend", "-comp", "xz", "-no-progress"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    status.ok().filter(std::process::ExitStatus::success)?;
    Some(fs::metadata(file.path()).ok()?.len() as f64 / MIB)
}
