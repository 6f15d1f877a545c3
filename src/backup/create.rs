//! Taking an archive: while everything runs, and good only when it was read back.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, TryLockError};
use std::io::{self, BufReader};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};
use skiff_datastore::Listen;
use skiff_datastore::backup::partial::Partial;
use skiff_datastore::backup::take::{TakeOptions, take};
use skiff_datastore::backup::{
    Backup, BackupError, BackupName, Kind, Opening, S3Error, SealError, Sealing, Target,
};
use time::OffsetDateTime;

use super::form::{self, FormError, Writer};
use super::keys::{self, KeyError};
use super::manifest::{FORMAT, Manifest, Member, Part};
use super::part::{self, PartError};
use super::record::{self, RecordError};
use super::secrets::{self, SecretError};
use crate::config::{ChoiceError, Choices, Sources};
use crate::paths::Paths;

/// What is taken, and for whom.
pub struct Options<'a> {
    pub paths: &'a Paths,
    pub sources: &'a Sources,
    pub sealing: Sealing,
    /// What runs, as skiffd says it.
    pub node: String,
    pub kubernetes: String,
}

/// Where an archive goes.
#[derive(Clone, Debug)]
pub enum To {
    /// A file of that name.
    File { dir: PathBuf, name: PathBuf },
    /// A place for many, in which names say when they were taken.
    Place(Target),
}

/// An archive that was proven good.
#[derive(Debug)]
pub struct Created {
    pub path: PathBuf,
    pub is_sealed: bool,
    pub bytes: u64,
    pub manifest: Manifest,
    /// See [`Backup::compared_with_source`].
    pub compared_with_source: bool,
    pub took: Duration,
}

/// Why there is no archive. Nothing is left behind.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    #[error("another archive of this node is being taken")]
    Busy,
    #[error("cannot work in {}", path.display())]
    Scratch { path: PathBuf, source: io::Error },
    #[error(
        "this node's objects are kept in {0}, which is not Skiff's: an archive would be without them"
    )]
    Elsewhere(String),
    #[error(transparent)]
    Choices(#[from] ChoiceError),
    #[error("the datastore cannot be backed up")]
    Datastore(#[source] BackupError),
    #[error(transparent)]
    Part(#[from] PartError),
    #[error("the node's keys do not fit, so an archive with them would be no good")]
    Key(#[from] KeyError),
    #[error("the node's keys do not open its Secrets, so an archive would be no good")]
    Secret(#[from] SecretError),
    #[error(transparent)]
    Record(#[from] RecordError),
    #[error("cannot write to {}", dir.display())]
    Write { dir: PathBuf, source: io::Error },
    #[error("the new archive cannot be opened again")]
    Seal(#[source] SealError),
    #[error("the new archive is not what was written, so it is no good")]
    Proof(#[source] FormError),
    #[error("the new archive cannot be stored")]
    Bucket(#[from] S3Error),
}

/// Takes an archive. It gets its name after it was read back and found to be what was written;
/// until then whatever has that name stays.
pub async fn create(options: &Options<'_>, to: &To) -> Result<Created, CreateError> {
    let began = Instant::now();
    let choices = Choices::read(&options.paths.node())?;
    if let Some(external) = choices.and_then(|choices| choices.datastore) {
        return Err(CreateError::Elsewhere(external));
    }
    let scratch = Scratch::claim(options.paths)?;
    let dir = match to {
        To::File { dir, .. } | To::Place(Target::Directory(dir)) => dir.clone(),
        To::Place(Target::S3(_)) => scratch.subdirectory("upload")?,
    };
    let kube = snapshot(options.paths.datastore_socket(), &scratch.dir, part::KUBE).await?;
    let cluster = options.paths.cluster_database_socket();
    let members = match cluster.exists() {
        true => {
            let taken = snapshot(cluster, &scratch.dir, part::CLUSTER).await?;
            members(&taken.path)?
        }
        false => vec![],
    };
    let parts = part::gather(options.paths, options.sources)?;
    let secrets = scratch.dir.join(part::KUBE);
    let failed = |source| CreateError::Scratch { path: secrets.clone(), source };
    let encryption = parts.get(part::ENCRYPTION).map_or(&b""[..], |bytes| &bytes[..]);
    secrets::check(BufReader::new(File::open(&secrets).map_err(failed)?), encryption)?;
    let manifest = manifest(options, &kube, members, &parts, &scratch.dir)?;
    let written = |source| CreateError::Write { dir: dir.clone(), source };
    let partial = Partial::begin(&dir).map_err(written)?;
    let (handle, sealing) = (partial.handle().map_err(written)?, options.sealing.clone());
    let (from, head) = (scratch.dir.clone(), manifest.clone());
    let writing = move || write(handle, &sealing, &head, &parts, &from);
    let writing = tokio::task::spawn_blocking(writing).await;
    let (bytes, own) = writing.expect("writing an archive does not panic").map_err(written)?;
    read_back(partial.path().to_path_buf(), own, &manifest).await?;
    let is_sealed = options.sealing.is_sealed();
    let name = BackupName { kind: Kind::Cluster, ..BackupName::of(&kube.summary, is_sealed) };
    let name = name.to_string();
    let mut path = match to {
        To::File { name, .. } => dir.join(name),
        To::Place(_) => dir.join(&name),
    };
    partial.keep(&path).map_err(written)?;
    if let To::Place(Target::S3(place)) = to {
        place.put(&path, &name).await?;
        path = place.address_of(&name).into();
    }
    let compared_with_source = kube.compared_with_source;
    Ok(Created { path, is_sealed, bytes, manifest, compared_with_source, took: began.elapsed() })
}

/// Reads what the disk has.
async fn read_back(path: PathBuf, own: Opening, written: &Manifest) -> Result<(), CreateError> {
    let reading = tokio::task::spawn_blocking(move || {
        let file = File::open(path).map_err(FormError::Read).map_err(CreateError::Proof)?;
        let opened = own.open(file).map_err(CreateError::Seal)?;
        form::read(opened, None).map_err(CreateError::Proof)
    });
    let found = reading.await.expect("reading an archive does not panic")?;
    match found.manifest == *written {
        true => Ok(()),
        false => {
            let why = FormError::Damaged("it has another manifest".into());
            Err(CreateError::Proof(why))
        }
    }
}

/// The datastore's own verified backup of the database behind a socket.
async fn snapshot(socket: PathBuf, dir: &Path, name: &str) -> Result<Backup, CreateError> {
    let options = TakeOptions {
        from: Listen::Unix(socket),
        revision: None,
        // The archive around it is sealed; the scratch directory is root's alone.
        sealing: Sealing::Plain,
        scratch: dir.to_path_buf(),
    };
    take(&options, dir, |_| name.into()).await.map_err(CreateError::Datastore)
}

/// Who belongs to the cluster, if there is one.
fn members(snapshot: &Path) -> Result<Vec<Member>, CreateError> {
    let failed = |source| PartError::Read { path: snapshot.to_path_buf(), source };
    let kept = record::read(BufReader::new(File::open(snapshot).map_err(failed)?))?;
    let record = kept.map(|kept| kept.record);
    let living = record.iter().flat_map(|record| record.living());
    let member =
        |member: &microcluster::record::MemberRecord| (member.name.to_string(), member.role);
    Ok(living.map(member).map(|(name, role)| Member { name, role: role.to_string() }).collect())
}

fn manifest(
    options: &Options<'_>,
    kube: &Backup,
    members: Vec<Member>,
    small: &BTreeMap<String, Vec<u8>>,
    scratch: &Path,
) -> Result<Manifest, CreateError> {
    let mut parts = Vec::new();
    for name in [part::KUBE, part::CLUSTER] {
        let path = scratch.join(name);
        if path.exists() {
            let failed = |source| CreateError::Scratch { path: path.clone(), source };
            let (bytes, sha256) = measure(&path).map_err(failed)?;
            parts.push(Part { name: name.into(), bytes, sha256 });
        }
    }
    parts.extend(small.iter().map(|(name, content)| Part {
        name: name.clone(),
        bytes: content.len() as u64,
        sha256: form::sum_of(content),
    }));
    let taken = OffsetDateTime::from(kube.summary.taken());
    Ok(Manifest {
        format: FORMAT,
        skiff: env!("CARGO_PKG_VERSION").into(),
        kubernetes: options.kubernetes.clone(),
        cluster: keys::check(small)?,
        node: options.node.clone(),
        taken: taken.replace_nanosecond(0).unwrap_or(taken),
        revision: kube.summary.revision.0,
        keys: kube.summary.keys,
        leases: kube.summary.leases,
        members,
        parts,
    })
}

fn measure(path: &Path) -> io::Result<(u64, String)> {
    let mut sum = Sha256::new();
    let bytes = io::copy(&mut File::open(path)?, &mut sum)?;
    Ok((bytes, HEXLOWER.encode(&sum.finalize())))
}

/// Writes and syncs everything; answers how much it is, and what opens it again.
fn write(
    file: File,
    sealing: &Sealing,
    manifest: &Manifest,
    small: &BTreeMap<String, Vec<u8>>,
    scratch: &Path,
) -> io::Result<(u64, Opening)> {
    let (seal, own) = sealing.begin();
    let mut writer = Writer::begin(seal.write(file)?, manifest)?;
    for part in &manifest.parts {
        match small.get(&part.name) {
            Some(content) => writer.add(&part.name, part.bytes, &mut &content[..])?,
            None => {
                let mut content = File::open(scratch.join(&part.name))?;
                writer.add(&part.name, part.bytes, &mut content)?;
            }
        }
    }
    let file = writer.finish()?.finish()?;
    file.sync_all()?;
    Ok((file.metadata()?.len(), own))
}

/// A directory of the node for what is not yet an archive; one archive is taken at a time, so that
/// what a killed one left can be removed.
struct Scratch {
    dir: PathBuf,
    _turn: File,
}

impl Scratch {
    fn claim(paths: &Paths) -> Result<Self, CreateError> {
        let dir = paths.node().join("backup");
        let failed = |source| CreateError::Scratch { path: dir.clone(), source };
        let turn = File::create(paths.node().join("backup.lock")).map_err(failed)?;
        match turn.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(CreateError::Busy),
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        match fs::remove_dir_all(&dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        DirBuilder::new().mode(0o700).create(&dir).map_err(failed)?;
        Ok(Self { dir, _turn: turn })
    }

    fn subdirectory(&self, name: &str) -> Result<PathBuf, CreateError> {
        let path = self.dir.join(name);
        let made = DirBuilder::new().mode(0o700).create(&path);
        made.map_err(|source| CreateError::Scratch { path: path.clone(), source })?;
        Ok(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What can't be removed now is removed by the next one.
        let _ = fs::remove_dir_all(&self.dir);
    }
}
