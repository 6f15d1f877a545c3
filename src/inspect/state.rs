//! What skiffd says, and what lies below the node's root: names and times, never keys.

use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use skiff_api::Client;

use crate::paths::Paths;
use crate::pki;

/// Questions to skiffd.
pub const REQUESTS: [(&str, &str); 4] = [
    ("status", "/v1/status"),
    ("services", "/v1/services"),
    ("version", "/v1/version"),
    ("settings", "/v1/settings"),
];
/// How much of the end of a file is taken, in bytes.
const TAIL_BYTES: u64 = 1 << 20;
/// Most files of one kind, and most lines of a listing.
const FILES_MAX: usize = 40;
const LISTING_MAX: usize = 2000;

pub async fn ask(paths: &Paths, path: &str) -> Result<String, String> {
    let client = Client::new(paths.skiffd_socket());
    let answer: serde_json::Value = client.get(path).await.map_err(|e| e.to_string())?;
    serde_json::to_string_pretty(&answer).map_err(|e| e.to_string())
}

/// Files that are taken as they are: logs of daemons, generated configuration, settings.
pub fn texts(paths: &Paths) -> Vec<(String, PathBuf)> {
    let mut found = vec![("skiff/skiff.toml".into(), paths.config())];
    for path in entries(&paths.log()) {
        let name = name_of(&path);
        if name.ends_with(".log") || name.ends_with(".log.1") {
            found.push((format!("logs/{name}"), path));
        }
    }
    for daemon in entries(&paths.root().join("etc")) {
        for path in entries(&daemon) {
            let name = name_of(&path);
            if is_plain(&name) {
                found.push((format!("etc/{}/{name}", name_of(&daemon)), path));
            }
        }
    }
    for path in entries(&paths.cni_config()) {
        found.push((format!("etc/cni/{}", name_of(&path)), path));
    }
    found.retain(|(name, _)| name.len() < 80);
    found.truncate(FILES_MAX);
    found
}

/// Configuration that holds no credentials by its nature.
fn is_plain(name: &str) -> bool {
    let known = [".json", ".yaml", ".toml", ".conf", ".conflist"];
    let secret = ["kubeconfig", "encryption", "token", "secret", "key"];
    known.iter().any(|end| name.ends_with(end)) && !secret.iter().any(|word| name.contains(word))
}

/// The end of a file.
pub fn read(path: &Path) -> Result<String, String> {
    let failed = |e: std::io::Error| format!("{}: {e}", path.display());
    let mut file = fs::File::open(path).map_err(failed)?;
    let size = file.metadata().map_err(failed)?.len();
    let mut text = Vec::new();
    // Files of the kernel say that they are empty.
    if size > TAIL_BYTES {
        file.seek(SeekFrom::Start(size - TAIL_BYTES)).map_err(failed)?;
    }
    file.take(TAIL_BYTES).read_to_end(&mut text).map_err(failed)?;
    let text = String::from_utf8_lossy(&text).into_owned();
    if size <= TAIL_BYTES {
        return Ok(text);
    }
    // What the first line said is not known: it was cut.
    Ok(text.split_once('\n').map(|(_, rest)| rest.to_owned()).unwrap_or_default())
}

/// Owners, modes and sizes below the root, two levels deep: contents are not read.
pub fn files(paths: &Paths) -> Result<String, String> {
    let mut out = String::new();
    let mut lines = 0;
    list(paths.root(), 3, &mut out, &mut lines);
    Ok(out)
}

fn list(path: &Path, depth: u8, out: &mut String, lines: &mut usize) {
    if *lines >= LISTING_MAX {
        return;
    }
    *lines += 1;
    let Ok(meta) = fs::symlink_metadata(path) else {
        out.push_str(&format!("cannot be read: {}\n", path.display()));
        return;
    };
    let (mode, uid, gid) = (meta.mode(), meta.uid(), meta.gid());
    out.push_str(&format!("{mode:06o} {uid}:{gid} {} {}\n", meta.len(), path.display()));
    if meta.is_dir() && depth > 0 {
        entries(path).iter().for_each(|entry| list(entry, depth - 1, out, lines));
    }
}

/// Whose certificates lie there and until when they are valid.
pub fn leaves(paths: &Paths) -> Result<String, String> {
    let mut out = String::new();
    let dirs = entries(&paths.pki()).into_iter().chain([paths.node()]);
    let leaves = dirs.flat_map(|dir| entries(&dir)).filter(|path| name_of(path).ends_with(".pem"));
    for path in leaves.take(FILES_MAX) {
        match pki::inspect(&path) {
            Some(leaf) => out.push_str(&format!(
                "{}: {} {:?} from {} to {}\n",
                path.display(),
                leaf.common_name,
                leaf.organisations,
                leaf.not_before,
                leaf.not_after
            )),
            None => out.push_str(&format!("{}: cannot be read as a leaf\n", path.display())),
        }
    }
    Ok(out)
}

fn entries(dir: &Path) -> Vec<PathBuf> {
    let listing = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = listing.map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_kubeconfigs_and_tokens_are_not_taken() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::new(dir.path());
        let etc = paths.daemon_etc("kube-node");
        fs::create_dir_all(&etc).unwrap();
        fs::create_dir_all(paths.log()).unwrap();
        for name in ["kubelet.yaml", "kubelet.kubeconfig", "encryption.yaml", "a.key", "token.json"]
        {
            fs::write(etc.join(name), "x").unwrap();
        }
        fs::write(paths.daemon_log("kube-node"), "x").unwrap();
        let names: Vec<_> = texts(&paths).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["skiff/skiff.toml", "logs/kube-node.log", "etc/kube-node/kubelet.yaml"]);
    }

    #[test]
    fn of_a_long_log_the_end_is_taken_from_a_whole_line_on() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.log");
        let line = format!("{}\n", "x".repeat(99));
        let count = usize::try_from(TAIL_BYTES).unwrap() / 50;
        fs::write(&path, line.repeat(count) + "last\n").unwrap();
        let text = read(&path).unwrap();
        assert!(text.starts_with(&line) && text.ends_with("\nlast\n"));
        assert!(text.len() <= usize::try_from(TAIL_BYTES).unwrap());
    }
}
