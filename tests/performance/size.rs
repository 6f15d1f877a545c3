//! What a node needs on disk, by component, raw and compressed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use harness::{distribution, target};
use serde::{Deserialize, Serialize};

use crate::namespace::is_interrupted;

/// Between two looks at whether the packing has ended.
const LOOK_PAUSE: Duration = Duration::from_millis(50);

/// One component's bytes.
#[derive(Clone, Debug, Serialize)]
pub struct Size {
    pub name: String,
    pub raw_bytes: u64,
    /// As a squashfs of its own; absent in the short form, and without `mksquashfs`.
    pub squashfs_bytes: Option<u64>,
}

#[derive(Deserialize)]
struct Contents {
    #[serde(rename = "component")]
    components: Vec<Component>,
    #[serde(rename = "image", default)]
    images: Vec<Image>,
}

#[derive(Deserialize)]
struct Component {
    name: String,
    files: Vec<PathBuf>,
}

#[derive(Deserialize)]
struct Image {
    name: String,
    file: PathBuf,
}

/// Every part of the distribution, the largest first, and `all` at the end: in one squashfs,
/// which is less than the sum. The peer's own part is listed as `etcd`. Packing takes minutes.
pub fn measure(pack: bool) -> Result<Vec<Size>> {
    let pack = pack && has_squashfs();
    let dist = distribution();
    let text = fs::read_to_string(dist.join("components.toml"))?;
    let contents: Contents = toml::from_str(&text)?;
    let mut parts: Vec<(String, Vec<PathBuf>)> = vec![
        ("skiff".into(), vec![dist.join("bin/skiff")]),
        ("addons".into(), vec![dist.join("addons")]),
    ];
    for component in contents.components.into_iter().filter(|c| !c.files.is_empty()) {
        let files = component.files.iter().map(|file| dist.join(file)).collect();
        parts.push((component.name, files));
    }
    for image in contents.images {
        parts.push((format!("image {}", image.name), vec![dist.join(image.file)]));
    }
    let mut sizes = parts.iter().map(|(n, f)| size(n, f, pack)).collect::<Result<Vec<_>>>()?;
    sizes.sort_by_key(|size| std::cmp::Reverse(size.raw_bytes));
    sizes.push(size("all", &[dist], pack)?);
    let etcd = target().join("dist-test/bin/etcd");
    if etcd.is_file() {
        sizes.push(size("(peer) etcd", &[etcd], pack)?);
    }
    Ok(sizes)
}

fn has_squashfs() -> bool {
    Command::new("mksquashfs").arg("-version").stdout(Stdio::null()).status().is_ok()
}

fn size(name: &str, files: &[PathBuf], pack: bool) -> Result<Size> {
    let raw_bytes = files.iter().map(|file| bytes(file)).sum::<Result<u64>>()?;
    let squashfs_bytes = if pack { Some(squashfs(files)?) } else { None };
    Ok(Size { name: name.into(), raw_bytes, squashfs_bytes })
}

fn bytes(path: &Path) -> Result<u64> {
    let data = fs::metadata(path).with_context(|| format!("cannot read {}", path.display()))?;
    if data.is_dir() {
        return fs::read_dir(path)?.map(|entry| bytes(&entry?.path())).sum();
    }
    Ok(data.len())
}

fn squashfs(files: &[PathBuf]) -> Result<u64> {
    let folder = tempfile::tempdir_in(target())?;
    let image = folder.path().join("squashfs");
    let mut command = Command::new("mksquashfs");
    command.args(files).arg(&image);
    command.args(["-comp", "xz", "-noappend", "-no-progress", "-quiet", "-all-root"]);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn()?;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if is_interrupted() {
            let _ = child.kill();
        }
        std::thread::sleep(LOOK_PAUSE);
    };
    ensure!(!is_interrupted(), "interrupted");
    ensure!(status.success(), "mksquashfs failed ({status})");
    bytes(&image)
}
