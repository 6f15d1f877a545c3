//! Images of the distribution in the runtime's store: imported when missing, never pulled.

use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tokio::process::Command;

use crate::distribution::Image;

/// Longest time for a question to the runtime.
const ASK_TIMEOUT: Duration = Duration::from_secs(20);
/// Longest time for one import: the largest images take seconds, slow disks and emulated
/// machines a minute or two.
const IMPORT_TIMEOUT: Duration = Duration::from_secs(300);
/// The namespace of Kubernetes' containers in containerd.
const NAMESPACE: &str = "k8s.io";
/// What keeps the kubelet's garbage collection away.
const PINNED: &str = "io.cri-containerd.pinned=pinned";
/// Largest table of contents of an archive, in bytes.
const INDEX_BYTES_MAX: u64 = 1 << 20;

#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    #[error("cannot read {}", .0.display())]
    Archive(PathBuf, #[source] io::Error),
    #[error("{} is not an image archive", .0.display())]
    Damaged(PathBuf),
    #[error("{} holds no image {reference}", archive.display())]
    Absent { archive: PathBuf, reference: String },
    #[error("{} holds {found}, and {wanted} belongs to this build", archive.display())]
    Other { archive: PathBuf, found: String, wanted: String },
    #[error("cannot run {}", .0.display())]
    Run(PathBuf, #[source] io::Error),
    #[error("{what}: no answer within {} s", bound.as_secs())]
    Timeout { what: String, bound: Duration },
    #[error("{what}: {message}")]
    Failed { what: String, message: String },
}

/// What is to be done about an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Plan {
    Nothing,
    Pin,
    Import,
}

/// The image store of one node's containerd.
#[derive(Clone, Debug)]
pub struct ImageStore {
    ctr: PathBuf,
    socket: PathBuf,
}

impl ImageStore {
    pub fn new(ctr: impl Into<PathBuf>, containerd_socket: impl Into<PathBuf>) -> Self {
        Self { ctr: ctr.into(), socket: containerd_socket.into() }
    }

    /// Makes an image of the distribution in `folder` be there under its reference, pinned. An
    /// archive that holds another image than the distribution says is not touched: containerd
    /// checks by the digest what is below it. `true`: it was not there.
    pub async fn ensure(&self, image: &Image, folder: &Path) -> Result<bool, ImageError> {
        let (reference, archive) = (&*image.reference, folder.join(&image.file));
        let digest = digest_of(&archive, reference)?;
        if let Some(wanted) = image.digest.as_ref().filter(|wanted| **wanted != digest) {
            return Err(ImageError::Other { archive, found: digest, wanted: wanted.clone() });
        }
        match self.look(reference, &digest).await? {
            Plan::Nothing => Ok(false),
            Plan::Pin => {
                let what = format!("pinning image {reference}");
                self.run(&what, &["label", reference, PINNED], ASK_TIMEOUT).await?;
                Ok(false)
            }
            Plan::Import => {
                let what = format!("importing image {reference}");
                let archive = archive.to_string_lossy();
                let arguments = ["import", "--local", "--label", PINNED, &archive];
                self.run(&what, &arguments, IMPORT_TIMEOUT).await?;
                match self.look(reference, &digest).await? {
                    Plan::Import => {
                        let message = "the runtime does not list it afterwards".into();
                        Err(ImageError::Failed { what, message })
                    }
                    Plan::Pin | Plan::Nothing => Ok(true),
                }
            }
        }
    }

    async fn look(&self, reference: &str, digest: &str) -> Result<Plan, ImageError> {
        let filter = format!("name=={reference}");
        let what = format!("looking for image {reference}");
        let listing = self.run(&what, &["list", &filter], ASK_TIMEOUT).await?;
        Ok(plan(&listing, reference, digest))
    }

    async fn run(
        &self,
        what: &str,
        arguments: &[&str],
        bound: Duration,
    ) -> Result<String, ImageError> {
        let mut command = Command::new(&self.ctr);
        command
            .arg("--address")
            .arg(&self.socket)
            .args(["--namespace", NAMESPACE, "images"])
            .args(arguments)
            .stdin(Stdio::null())
            .env_clear()
            .kill_on_drop(true);
        let output = tokio::time::timeout(bound, command.output())
            .await
            .map_err(|_| ImageError::Timeout { what: what.into(), bound })?
            .map_err(|e| ImageError::Run(self.ctr.clone(), e))?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let text = String::from_utf8_lossy(&output.stderr);
        let message = text.lines().last().unwrap_or("no reason given").trim().to_owned();
        Err(ImageError::Failed { what: what.into(), message })
    }
}

/// Decides by the runtime's table, whose columns are reference, type, digest, size, platforms and
/// labels.
fn plan(listing: &str, reference: &str, digest: &str) -> Plan {
    let columns = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let found = listing.lines().map(columns).find(|columns| {
        columns.first().is_some_and(|name| name == reference)
            && columns.get(2).is_some_and(|found| found == digest)
    });
    match found {
        None => Plan::Import,
        Some(columns) => {
            let labels = columns.last().map(String::as_str).unwrap_or_default();
            let pinned = labels.split(',').any(|label| label == PINNED);
            if pinned { Plan::Nothing } else { Plan::Pin }
        }
    }
}

/// The digest under which an archive's `index.json` holds the reference.
fn digest_of(archive: &Path, reference: &str) -> Result<String, ImageError> {
    let failed = |e| ImageError::Archive(archive.to_path_buf(), e);
    let mut file = std::fs::File::open(archive).map_err(failed)?;
    let index = read_entry(&mut file, "index.json").map_err(failed)?;
    let damaged = || ImageError::Damaged(archive.to_path_buf());
    let index: Value =
        index.and_then(|bytes| serde_json::from_slice(&bytes).ok()).ok_or_else(damaged)?;
    let entries = index["manifests"].as_array().map(Vec::as_slice).unwrap_or_default();
    let named = |entry: &&Value| {
        entry.pointer("/annotations/io.containerd.image.name").and_then(Value::as_str)
            == Some(reference)
    };
    let absent =
        || ImageError::Absent { archive: archive.to_path_buf(), reference: reference.into() };
    let entry = entries.iter().find(named).ok_or_else(absent)?;
    entry["digest"].as_str().map(str::to_owned).ok_or_else(damaged)
}

/// Reads one file out of a tar archive, by its headers only.
fn read_entry(file: &mut std::fs::File, wanted: &str) -> io::Result<Option<Vec<u8>>> {
    const BLOCK: u64 = 512;
    let mut header = [0u8; BLOCK as usize];
    loop {
        match file.read_exact(&mut header) {
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            other => other?,
        }
        if header[0] == 0 {
            return Ok(None);
        }
        let field = |range: std::ops::Range<usize>| {
            let bytes = &header[range];
            let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
            String::from_utf8_lossy(&bytes[..end]).trim().to_owned()
        };
        let name = field(0..100);
        let size = u64::from_str_radix(&field(124..136), 8)
            .map_err(|_| io::Error::other("the archive is damaged"))?;
        if name.trim_start_matches("./") == wanted {
            if size > INDEX_BYTES_MAX {
                return Err(io::Error::other(format!("{wanted} is larger than it can be")));
            }
            let mut bytes = Vec::new();
            file.take(size).read_to_end(&mut bytes)?;
            return Ok(Some(bytes));
        }
        let padded = i64::try_from(size.next_multiple_of(BLOCK))
            .map_err(|_| io::Error::other("the archive is damaged"))?;
        file.seek(SeekFrom::Current(padded))?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REFERENCE: &str = "skiff.local/coredns:1.15.0";
    const HEAD: &str = "REF TYPE DIGEST SIZE PLATFORMS LABELS\n";

    fn line(digest: &str, labels: &str) -> String {
        format!(
            "{HEAD}{REFERENCE} application/vnd.oci.image.manifest.v1+json {digest} 59.6 MiB \
             linux/amd64 {labels}\n"
        )
    }

    #[test]
    fn what_is_missing_or_another_build_is_imported() {
        assert_eq!(plan(HEAD, REFERENCE, "sha256:a"), Plan::Import);
        assert_eq!(plan(&line("sha256:b", "-"), REFERENCE, "sha256:a"), Plan::Import);
    }

    #[test]
    fn what_is_there_is_pinned_once() {
        assert_eq!(plan(&line("sha256:a", "-"), REFERENCE, "sha256:a"), Plan::Pin);
        let labels = "io.cri-containerd.image=managed,io.cri-containerd.pinned=pinned";
        assert_eq!(plan(&line("sha256:a", labels), REFERENCE, "sha256:a"), Plan::Nothing);
    }

    /// An archive with this table of contents.
    fn archive(folder: &Path, index: &str) -> PathBuf {
        for (name, content) in [("oci-layout", "{}"), ("index.json", index)] {
            std::fs::write(folder.join(name), content).unwrap();
        }
        let status = std::process::Command::new("tar")
            .args(["cf", "a.tar", "oci-layout", "index.json"])
            .current_dir(folder)
            .status()
            .unwrap();
        assert!(status.success());
        folder.join("a.tar")
    }

    #[test]
    fn the_digest_is_found_behind_other_entries() {
        let dir = tempfile::tempdir().unwrap();
        let index = format!(
            r#"{{"manifests":[{{"digest":"sha256:x"}},{{"digest":"sha256:y","annotations":{{"io.containerd.image.name":"{REFERENCE}"}}}}]}}"#
        );
        let archive = archive(dir.path(), &index);
        assert_eq!(digest_of(&archive, REFERENCE).unwrap(), "sha256:y");
        let error = digest_of(&archive, "skiff.local/other:1").unwrap_err();
        assert!(error.to_string().ends_with("a.tar holds no image skiff.local/other:1"), "{error}");
    }

    #[tokio::test]
    async fn an_image_whose_digest_differs_is_refused_before_the_runtime_is_asked() {
        let dir = tempfile::tempdir().unwrap();
        let index = format!(
            r#"{{"manifests":[{{"digest":"sha256:y","annotations":{{"io.containerd.image.name":"{REFERENCE}"}}}}]}}"#
        );
        archive(dir.path(), &index);
        let image = |digest: &str| Image {
            name: "dns".into(),
            reference: REFERENCE.into(),
            file: "a.tar".into(),
            digest: Some(digest.into()),
        };
        let store = ImageStore::new("/nonexistent/ctr", "/nonexistent");
        let error = store.ensure(&image("sha256:z"), dir.path()).await.unwrap_err();
        let sentence = "a.tar holds sha256:y, and sha256:z belongs to this build";
        assert!(error.to_string().ends_with(sentence), "{error}");
        let error = store.ensure(&image("sha256:y"), dir.path()).await.unwrap_err();
        assert!(matches!(error, ImageError::Run(..)), "the right one is looked for: {error}");
    }

    #[test]
    fn an_archive_that_is_none_is_told_by_its_path() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.tar");
        std::fs::write(&path, [0; 1024]).unwrap();
        let error = digest_of(&path, REFERENCE).unwrap_err();
        assert!(error.to_string().ends_with("a.tar is not an image archive"), "{error}");
    }
}
