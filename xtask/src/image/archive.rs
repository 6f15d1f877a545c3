//! One layer, one configuration, one manifest, one index: an image as an OCI archive.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::tar::TarWriter;
use crate::hash::sha256 as digest;
use crate::table::Image;

/// Where a content of the image comes from on this machine.
#[derive(Debug)]
pub struct ImageFile {
    pub source: PathBuf,
    /// Inside the image, without a leading slash.
    pub to: String,
}

/// Writes the archive of `image` for `arch` to `path`.
pub fn build_archive(image: &Image, files: &[ImageFile], arch: &str, path: &Path) -> Result<()> {
    let layer = layer(image, files)?;
    let config = serde_json::to_vec(&configuration(image, arch, &digest(&layer)))?;
    let manifest = serde_json::to_vec(&json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
        // Not compressed: a node unpacks it at its first start, and the
        // package around it is compressed as a whole.
        "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", &layer)],
    }))?;
    let index = serde_json::to_vec(&index(image, arch, &manifest))?;

    let file =
        fs::File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
    let mut tar = TarWriter::new(std::io::BufWriter::new(file));
    tar.file("oci-layout", 0o644, br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    tar.file("index.json", 0o644, &index)?;
    tar.folder("blobs", 0o755)?;
    tar.folder("blobs/sha256", 0o755)?;
    for blob in [&manifest, &config, &layer] {
        tar.file(&format!("blobs/sha256/{}", digest(blob)), 0o644, blob)?;
    }
    tar.finish()?.flush()?;
    Ok(())
}

/// The digest under which an archive of ours holds its image.
pub fn image_digest(path: &Path) -> Result<String> {
    const BLOCK: usize = 512;
    /// The table of contents is the second file, behind one of a single block.
    const HEADER: usize = 2 * BLOCK;
    const INDEX: usize = HEADER + BLOCK;
    let mut start = Vec::new();
    fs::File::open(path)?.take(64 << 10).read_to_end(&mut start)?;
    let damaged = || format!("{} is not an archive of ours", path.display());
    ensure!(start.get(HEADER..INDEX).is_some_and(|h| h.starts_with(b"index.json\0")), damaged());
    let size = String::from_utf8_lossy(&start[HEADER + 124..HEADER + 135]).into_owned();
    let size = usize::from_str_radix(&size, 8).with_context(damaged)?;
    let index = start.get(INDEX..INDEX + size).with_context(damaged)?;
    let index: Value = serde_json::from_slice(index).with_context(damaged)?;
    index["manifests"][0]["digest"].as_str().map(str::to_owned).with_context(damaged)
}

/// The file system of the image: folders first, then files, then links.
fn layer(image: &Image, files: &[ImageFile]) -> Result<Vec<u8>> {
    let mut tar = TarWriter::new(Vec::new());
    let mut folders: BTreeSet<String> = image.folders.iter().cloned().collect();
    let linked = image.links.iter().map(|links| format!("{}/x", links.folder));
    for path in files.iter().map(|file| file.to.clone()).chain(linked) {
        let ancestors = Path::new(&path).ancestors().skip(1);
        folders
            .extend(ancestors.filter_map(Path::to_str).filter(|f| !f.is_empty()).map(String::from));
    }
    for folder in &folders {
        let mode = if folder == "tmp" || folder.ends_with("/tmp") { 0o1777 } else { 0o755 };
        tar.folder(folder, mode)?;
    }
    let mut sorted: Vec<_> = files.iter().collect();
    sorted.sort_by(|a, b| a.to.cmp(&b.to));
    for file in sorted {
        let data = fs::read(&file.source)
            .with_context(|| format!("cannot read {}", file.source.display()))?;
        tar.file(&file.to, 0o755, &data)?;
    }
    if let Some(links) = &image.links {
        for name in links.names.iter().collect::<BTreeSet<_>>() {
            tar.link(&format!("{}/{name}", links.folder), &links.to)?;
        }
    }
    Ok(tar.finish()?)
}

fn configuration(image: &Image, arch: &str, layer_digest: &str) -> Value {
    let ports: serde_json::Map<String, Value> =
        image.ports.iter().map(|port| (port.clone(), json!({}))).collect();
    json!({
        "architecture": arch,
        "os": "linux",
        "config": {
            "User": image.user,
            "Entrypoint": image.entrypoint,
            "Cmd": image.command,
            "Env": image.environment,
            "ExposedPorts": ports,
            "WorkingDir": "/",
        },
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{layer_digest}")] },
    })
}

/// The annotations are what gives the image its name when it is imported.
fn index(image: &Image, arch: &str, manifest: &[u8]) -> Value {
    let mut entry = descriptor("application/vnd.oci.image.manifest.v1+json", manifest);
    entry["platform"] = json!({ "architecture": arch, "os": "linux" });
    entry["annotations"] = json!({
        "io.containerd.image.name": image.reference,
        "org.opencontainers.image.ref.name": image.reference,
    });
    json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [entry],
    })
}

fn descriptor(media_type: &str, blob: &[u8]) -> Value {
    json!({
        "mediaType": media_type,
        "digest": format!("sha256:{}", digest(blob)),
        "size": blob.len(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::Table;

    fn build(folder: &Path) -> Vec<u8> {
        let table = Table::parse(include_str!("../../../components/components.toml")).unwrap();
        let image = table.images.iter().find(|image| image.name == "agnhost").unwrap();
        let source = folder.join("program");
        fs::write(&source, b"a program").unwrap();
        let files = [ImageFile { source, to: "bin/program".into() }];
        let path = folder.join("image.tar");
        build_archive(image, &files, "arm64", &path).unwrap();
        fs::read(path).unwrap()
    }

    #[test]
    fn the_digest_of_an_archive_is_that_of_its_manifest() {
        let folder = tempfile::tempdir().unwrap();
        let bytes = build(folder.path());
        let found = image_digest(&folder.path().join("image.tar")).unwrap();
        let blob = format!("blobs/sha256/{}", found.strip_prefix("sha256:").unwrap());
        assert!(bytes.windows(blob.len()).any(|window| window == blob.as_bytes()));
        fs::write(folder.path().join("image.tar"), &bytes[..1600]).unwrap();
        assert!(image_digest(&folder.path().join("image.tar")).is_err());
    }

    #[test]
    fn the_same_contents_give_the_same_bytes() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        assert_eq!(build(one.path()), build(two.path()));
    }

    #[test]
    fn the_index_names_the_image_and_the_architecture() {
        let folder = tempfile::tempdir().unwrap();
        let archive = build(folder.path());
        let text = String::from_utf8_lossy(&archive);
        assert!(text.contains(r#""io.containerd.image.name":"skiff.local/agnhost:"#));
        assert!(text.contains(r#""architecture":"arm64""#));
    }
}
