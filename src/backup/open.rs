//! Opening an archive: everything is read and compared before anything of it is believed.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File};
use std::io::{self, BufReader};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use skiff_datastore::Database;
use skiff_datastore::backup::build::{BuildError, build_and_compare};
use skiff_datastore::backup::{Opening, SealError};

use super::form::{self, FormError};
use super::keys::{self, KeyError};
use super::manifest::Manifest;
use super::part;
use super::record::{self, Kept, RecordError};
use super::secrets::{self, SecretError};
use crate::config::Choices;

/// Why an archive is of no use.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot open {}", path.display())]
    Seal { path: PathBuf, source: SealError },
    #[error("{} is no good archive", path.display())]
    Form { path: PathBuf, source: FormError },
    #[error("the keys in {} do not fit", path.display())]
    Key { path: PathBuf, source: KeyError },
    #[error("the keys in {} are not those of its Secrets", path.display())]
    Secret { path: PathBuf, source: SecretError },
    #[error("{} is of cluster {said}, and its keys are of {found}", path.display())]
    Cluster { path: PathBuf, said: String, found: String },
    #[error("{} does not say how its node was begun", path.display())]
    Choices { path: PathBuf, source: serde_json::Error },
    #[error(transparent)]
    Record(#[from] RecordError),
    #[error("cannot work in {}", path.display())]
    Scratch { path: PathBuf, source: io::Error },
    #[error("the objects in {} cannot be brought back", path.display())]
    Build { path: PathBuf, source: BuildError },
}

/// An archive that is whole: what it says and what it holds go together.
#[derive(Debug)]
pub struct Opened {
    pub manifest: Manifest,
    pub bytes: u64,
    pub is_sealed: bool,
    /// Secrets that its keys open: all of them.
    pub secrets: u64,
    /// All parts but the snapshots.
    pub small: BTreeMap<String, Vec<u8>>,
    pub began: Choices,
    /// None of a node that was alone.
    pub record: Option<Kept>,
    path: PathBuf,
    /// Where the snapshots are.
    dir: PathBuf,
}

/// Opens the archive at `path`; `dir`, which is made, gets its snapshots.
pub async fn open(path: &Path, opening: &Opening, dir: &Path) -> Result<Opened, OpenError> {
    let (path, opening, dir) = (path.to_path_buf(), opening.clone(), dir.to_path_buf());
    let opening = tokio::task::spawn_blocking(move || open_now(path, &opening, dir));
    opening.await.expect("reading an archive does not panic")
}

fn open_now(path: PathBuf, opening: &Opening, dir: PathBuf) -> Result<Opened, OpenError> {
    let unreadable = |source| OpenError::Read { path: path.clone(), source };
    let file = File::open(&path).map_err(unreadable)?;
    let bytes = file.metadata().map_err(unreadable)?.len();
    let opened = opening.open(file);
    let opened = opened.map_err(|source| OpenError::Seal { path: path.clone(), source })?;
    let made = DirBuilder::new().mode(0o700).create(&dir);
    made.map_err(|source| OpenError::Scratch { path: dir.clone(), source })?;
    let contents = form::read(opened, Some(&dir));
    let contents = contents.map_err(|source| OpenError::Form { path: path.clone(), source })?;
    let form::Contents { manifest, small } = contents;
    let found = keys::check(&small);
    let found = found.map_err(|source| OpenError::Key { path: path.clone(), source })?;
    if found != manifest.cluster {
        return Err(OpenError::Cluster { path, said: manifest.cluster, found });
    }
    let kube = dir.join(part::KUBE);
    let snapshot = File::open(&kube);
    let snapshot = snapshot.map_err(|source| OpenError::Read { path: kube, source })?;
    let encryption = small.get(part::ENCRYPTION).map_or(&b""[..], |bytes| &bytes[..]);
    let secrets = secrets::check(BufReader::new(snapshot), encryption);
    let secrets = secrets.map_err(|source| OpenError::Secret { path: path.clone(), source })?;
    let began = small.get(part::CHOICES).map_or(&b""[..], |bytes| &bytes[..]);
    let began = serde_json::from_slice(began);
    let began = began.map_err(|source| OpenError::Choices { path: path.clone(), source })?;
    let record = match File::open(dir.join(part::CLUSTER)) {
        Ok(file) => record::read(BufReader::new(file))?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(source) => return Err(OpenError::Read { path: dir.join(part::CLUSTER), source }),
    };
    let is_sealed = is_sealed(&path).map_err(unreadable)?;
    Ok(Opened { manifest, bytes, is_sealed, secrets, small, began, record, path, dir })
}

/// What a reader sees of a file that age wrote.
fn is_sealed(path: &Path) -> io::Result<bool> {
    let mut begin = Vec::new();
    let file = File::open(path)?;
    io::Read::read_to_end(&mut io::Read::take(file, 16), &mut begin)?;
    Ok(begin.starts_with(b"age-encryption"))
}

impl Opened {
    /// Kubernetes' objects.
    pub fn kube(&self) -> PathBuf {
        self.dir.join(part::KUBE)
    }

    /// Makes a datastore of each snapshot, loads it, compares it, and throws it away.
    pub async fn prove(&self) -> Result<(), OpenError> {
        let cluster = self.dir.join(part::CLUSTER);
        for (file, scratch) in [(self.kube(), "of-kube"), (cluster, "of-cluster")] {
            let scratch = self.dir.join(scratch);
            let snapshot = match File::open(&file) {
                Ok(snapshot) => snapshot,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(source) => return Err(OpenError::Read { path: file, source }),
            };
            // A snapshot is one whatever the database is called.
            build_and_compare(&scratch, Database::Kube, snapshot, 0)
                .await
                .map_err(|source| OpenError::Build { path: self.path.clone(), source })?;
            fs::remove_dir_all(&scratch)
                .map_err(|source| OpenError::Scratch { path: scratch.clone(), source })?;
        }
        Ok(())
    }
}
