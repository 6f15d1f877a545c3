//! A client of the API server whose credentials may be renewed at any time.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use std::{fs, io};

use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Client, Config};
use tokio::sync::Mutex;

/// Longest time until the API server's port answers: it is on this machine or one hop away.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Gives out a client, a new one whenever the files behind the credentials were replaced.
///
/// A client reads its certificate once, and ours live for hours: whoever works for longer than a
/// request asks here again instead of keeping the client.
#[derive(Clone, Debug)]
pub struct ClientSource {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    kubeconfig: PathBuf,
    /// Whether a request is made again by itself when the server asks for patience.
    retries: bool,
    current: Mutex<Option<Current>>,
    /// How many clients were made so far.
    generation: AtomicU64,
}

struct Current {
    client: Client,
    files: Vec<(PathBuf, Stamp)>,
}

impl std::fmt::Debug for Current {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Current").field("files", &self.files).finish_non_exhaustive()
    }
}

/// What tells one content of a file from the next: files are replaced by rename.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified_ns: i128,
}

#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("cannot read {}", .0.display())]
    Read(PathBuf, #[source] io::Error),
    #[error("the credentials in {} cannot be used", .0.display())]
    Credentials(PathBuf, #[source] Box<KubeconfigError>),
    #[error("no client can be made of {}", .0.display())]
    Build(PathBuf, #[source] Box<kube::Error>),
}

impl ClientSource {
    /// Nothing is read before the first client is asked for.
    pub fn new(kubeconfig: impl Into<PathBuf>) -> Self {
        Self::of(kubeconfig.into(), true)
    }

    /// Whose requests are made once: an eviction that a budget refuses is answered, not waited for.
    pub fn impatient(kubeconfig: impl Into<PathBuf>) -> Self {
        Self::of(kubeconfig.into(), false)
    }

    fn of(kubeconfig: PathBuf, retries: bool) -> Self {
        let inner =
            Inner { kubeconfig, retries, current: Mutex::new(None), generation: AtomicU64::new(0) };
        Self { inner: Arc::new(inner) }
    }

    /// Changes whenever a new client was made: whoever holds an old one asks for it again.
    pub fn generation(&self) -> u64 {
        self.inner.generation.load(Ordering::Relaxed)
    }

    /// The client for the credentials that lie there now.
    pub async fn client(&self) -> Result<Client, ClientError> {
        let mut current = self.inner.current.lock().await;
        if let Some(current) = current.as_ref()
            && current.files.iter().all(|(path, stamp)| stamp_of(path).ok() == Some(*stamp))
        {
            return Ok(current.client.clone());
        }
        let fresh = build(&self.inner.kubeconfig, self.inner.retries).await?;
        self.inner.generation.fetch_add(1, Ordering::Relaxed);
        Ok(current.insert(fresh).client.clone())
    }
}

async fn build(path: &Path, retries: bool) -> Result<Current, ClientError> {
    let credentials = |e| ClientError::Credentials(path.to_path_buf(), Box::new(e));
    // Stamps before contents: a file that is replaced in between is read again next time.
    let stamp = stamped(path)?;
    let kubeconfig = Kubeconfig::read_from(path).map_err(credentials)?;
    let mut files = vec![stamp];
    for name in files_of(&kubeconfig) {
        files.push(stamped(Path::new(&name))?);
    }
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .map_err(credentials)?;
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    // On one machine compression costs more than it saves.
    config.disable_compression = true;
    config.default_retry &= retries;
    let client = Client::try_from(config)
        .map_err(|e| ClientError::Build(path.to_path_buf(), Box::new(e)))?;
    Ok(Current { client, files })
}

/// Every file whose content the client takes into memory.
fn files_of(kubeconfig: &Kubeconfig) -> Vec<String> {
    let authorities = kubeconfig
        .clusters
        .iter()
        .filter_map(|named| named.cluster.as_ref())
        .filter_map(|cluster| cluster.certificate_authority.clone());
    let leaves = kubeconfig
        .auth_infos
        .iter()
        .filter_map(|named| named.auth_info.as_ref())
        .flat_map(|user| [user.client_certificate.clone(), user.client_key.clone()])
        .flatten();
    let mut names: Vec<String> = authorities.chain(leaves).collect();
    names.sort();
    names.dedup();
    names
}

fn stamped(path: &Path) -> Result<(PathBuf, Stamp), ClientError> {
    match stamp_of(path) {
        Ok(stamp) => Ok((path.to_path_buf(), stamp)),
        Err(source) => Err(ClientError::Read(path.to_path_buf(), source)),
    }
}

fn stamp_of(path: &Path) -> io::Result<Stamp> {
    let meta = fs::metadata(path)?;
    Ok(Stamp {
        device: meta.dev(),
        inode: meta.ino(),
        size: meta.size(),
        modified_ns: i128::from(meta.mtime()) * 1_000_000_000 + i128::from(meta.mtime_nsec()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A kubeconfig that names a certificate file which is also the key.
    fn write(dir: &Path, leaf: &str) -> PathBuf {
        fs::write(dir.join("leaf.pem"), leaf).unwrap();
        let authority = leaf.split_inclusive("-----END CERTIFICATE-----\n").next().unwrap();
        fs::write(dir.join("ca.crt"), authority).unwrap();
        let path = dir.join("kubeconfig");
        let text = "apiVersion: v1\nkind: Config\nclusters:\n- name: c\n  cluster:\n    server: \
                    https://127.0.0.1:1\n    certificate-authority: ca.crt\nusers:\n- name: u\n  \
                    user:\n    client-certificate: leaf.pem\n    client-key: leaf.pem\ncontexts:\n\
                    - name: x\n  context:\n    cluster: c\n    user: u\ncurrent-context: x\n";
        fs::write(&path, text).unwrap();
        path
    }

    fn leaf() -> String {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec!["leaf".into()]).unwrap();
        format!("{}{}", params.self_signed(&key).unwrap().pem(), key.serialize_pem())
    }

    #[tokio::test]
    async fn a_renewed_leaf_makes_a_new_client_and_an_old_one_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let source = ClientSource::new(write(dir.path(), &leaf()));
        source.client().await.unwrap();
        let stamps = async || source.inner.current.lock().await.as_ref().unwrap().files.clone();
        let before = stamps().await;
        assert_eq!(before.len(), 3);
        source.client().await.unwrap();
        assert_eq!(stamps().await, before);
        fs::write(dir.path().join("new"), leaf()).unwrap();
        fs::rename(dir.path().join("new"), dir.path().join("leaf.pem")).unwrap();
        source.client().await.unwrap();
        assert_ne!(stamps().await, before);
    }

    #[tokio::test]
    async fn a_missing_kubeconfig_is_named() {
        let error = ClientSource::new("/nonexistent/kubeconfig").client().await.err().unwrap();
        assert_eq!(error.to_string(), "cannot read /nonexistent/kubeconfig");
    }
}
