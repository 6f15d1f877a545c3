//! A datastore that somebody else runs: hands what it needs to the daemon that connects, and asks it
//! how it is.
//!
//! It is asked as the API server asks, for one key: an etcd without a quorum does not answer that,
//! nor does kine without its database.

mod occupied;

use std::error::Error;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use std::{fs, iter};

use sha2::{Digest, Sha256};
use skiff_datastore::Listen;
use skiff_datastore::probe;
use skiff_datastore::proto::RangeRequest;
use skiff_datastore::proto::kv_client::KvClient;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint as Address, Identity};

pub use self::occupied::{DoubtError, OCCUPIED_HINT, doubt, held_back};
use super::account::Accounts;
use super::core::Node;
use super::layout::{self, LayoutError};
use super::observed::DatastoreView;
use crate::config::{Config, Database, Endpoint, EtcdServer, host_port};
use crate::daemons::external::Files;
use crate::daemons::{External, Kept, kine};
use crate::paths::Paths;
use crate::pki::{StoreError, write_private};

/// How often it is asked.
const INTERVAL: Duration = Duration::from_secs(5);
/// What an answer may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);
/// Asked for: kine has it, and an etcd may well not.
const KEY: &str = "/registry/health";
/// More than a certificate or a password ever is.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Of the end of kine's log: its last words are in there.
const LOG_BYTES: usize = 8 << 10;

#[derive(Debug, thiserror::Error)]
pub enum ExternalError {
    #[error("cannot read what {key} names, {}", path.display())]
    Read { key: &'static str, path: PathBuf, source: io::Error },
    #[error(
        "what {key} names may be read by others, and is a secret: sudo chmod 600 {}",
        path.display()
    )]
    Open { key: &'static str, path: PathBuf },
    #[error("what datastore.password-file names holds no password: {}", .0.display())]
    NoPassword(PathBuf),
    #[error(transparent)]
    Layout(#[from] LayoutError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Puts what the settings name where the daemon that connects may read it. Safe to repeat.
pub fn prepare(
    paths: &Paths,
    config: &Config,
    accounts: &Accounts,
) -> Result<Option<External>, ExternalError> {
    let settings = &config.datastore;
    let Some(endpoint) = settings.endpoint() else { return Ok(None) };
    let mut external = External {
        endpoint,
        has_authority: settings.ca_file.is_some(),
        has_certificate: settings.cert_file.is_some(),
        digest: String::new(),
    };
    if external.kept() == Kept::Database {
        layout::ensure_kine(paths, accounts)?;
    }
    let mut digest = Sha256::new();
    for content in copy(paths, config, &external, accounts)? {
        digest.update(content);
    }
    if let Endpoint::Database(database) = &external.endpoint {
        let password = settings.password_file.as_deref().map(read_password).transpose()?;
        let text = kine::settings(paths, &external, database, password.as_deref());
        let owner = (accounts.datastore.uid, accounts.datastore.gid);
        write_private(&kine::config(paths), text.as_bytes(), 0o600, owner)?;
        digest.update(text);
    }
    external.digest = data_encoding::HEXLOWER.encode(&digest.finalize());
    Ok(Some(external))
}

/// Copies certificates and keys that are not there yet; answers all of them.
fn copy(
    paths: &Paths,
    config: &Config,
    external: &External,
    accounts: &Accounts,
) -> Result<Vec<Vec<u8>>, ExternalError> {
    /// Some tools give keys to a group of their own.
    const OF_STRANGERS: u32 = 0o007;
    let account = match external.kept() {
        Kept::Database => accounts.datastore,
        Kept::Here | Kept::Etcd => accounts.control,
    };
    let Files { authority, certificate, key } = external.files(paths);
    let mut contents = Vec::new();
    for ((setting, from), (to, forbidden)) in config.datastore.files().into_iter().zip([
        (authority, 0),
        (certificate, 0),
        (key, OF_STRANGERS),
    ]) {
        let Some(from) = from else { continue };
        let content = read(setting, from, forbidden)?;
        if fs::read(&to).ok().as_ref() != Some(&content) {
            write_private(&to, &content, 0o600, (account.uid, account.gid))?;
        }
        contents.push(content);
    }
    Ok(contents)
}

fn read_password(path: &Path) -> Result<String, ExternalError> {
    const OF_OTHERS: u32 = 0o077;
    let bytes = read("datastore.password-file", path, OF_OTHERS)?;
    let text = String::from_utf8(bytes).unwrap_or_default();
    match text.trim_end_matches(['\r', '\n']) {
        "" => Err(ExternalError::NoPassword(path.into())),
        password => Ok(password.to_owned()),
    }
}

/// The file, unless one of these permissions is given.
fn read(key: &'static str, path: &Path, forbidden: u32) -> Result<Vec<u8>, ExternalError> {
    let failed = |source| ExternalError::Read { key, path: path.into(), source };
    let file = fs::File::open(path).map_err(failed)?;
    if file.metadata().map_err(failed)?.permissions().mode() & forbidden != 0 {
        return Err(ExternalError::Open { key, path: path.into() });
    }
    let mut content = Vec::new();
    file.take(FILE_BYTES_MAX).read_to_end(&mut content).map_err(failed)?;
    Ok(content)
}

/// Asks for as long as skiffd lives, tells the board, and follows certificates that were renewed.
pub async fn watch(node: Arc<Node>) {
    let (paths, context) = (node.paths(), node.context());
    let Some(external) = context.external else { return };
    let mut told = None;
    loop {
        // kine reads them when it starts, the API server whenever it connects.
        let copied = match external.kept() {
            Kept::Etcd => copy(&paths, &node.config(), &external, &context.accounts).map(drop),
            Kept::Here | Kept::Database => Ok(()),
        };
        let failure = match copied {
            Ok(()) => match ask(&paths, &external).await {
                Ok(()) if occupied::is_in_doubt(&node) => {
                    occupied::end_doubt(&node, &external).await.err()
                }
                asked => asked.err(),
            },
            Err(error) => Some(chain(&error)),
        };
        if told.as_ref() != Some(&failure) {
            match &failure {
                Some(reason) => tracing::warn!(reason, "the external datastore does not answer"),
                None => tracing::info!("the external datastore answers"),
            }
            told = Some(failure.clone());
        }
        let view = DatastoreView { failure, ..DatastoreView::of(&external) };
        node.board.update(|observed| observed.external = Some(view));
        tokio::time::sleep(INTERVAL).await;
    }
}

/// Whether it answers, or why not.
async fn ask(paths: &Paths, external: &External) -> Result<(), String> {
    match &external.endpoint {
        Endpoint::Etcd(servers) => {
            let mut reasons = Vec::new();
            for server in servers {
                match etcd(server, &external.files(paths)).await {
                    Ok(()) => return Ok(()),
                    Err(reason) => reasons.push(format!("{server}: {reason}")),
                }
            }
            Err(reasons.join("; "))
        }
        Endpoint::Database(database) => {
            let Ok(channel) = probe::connect(&Listen::Unix(paths.kine_socket())).await else {
                return Err(unconnected(paths, database).await);
            };
            get(channel).await
        }
    }
}

async fn etcd(server: &EtcdServer, files: &Files) -> Result<(), String> {
    get(connect(server, files).await?).await
}

async fn connect(server: &EtcdServer, files: &Files) -> Result<Channel, String> {
    let address = address(server, files).map_err(|error| innermost(&*error))?;
    match timeout(ANSWER_TIMEOUT, address.connect()).await {
        Ok(Ok(channel)) => Ok(channel),
        Ok(Err(error)) => Err(innermost(&error)),
        Err(_) => Err(silence()),
    }
}

fn address(
    server: &EtcdServer,
    files: &Files,
) -> Result<Address, Box<dyn Error + Send + Sync + 'static>> {
    let address = Address::from_shared(server.to_string())?;
    if !server.tls {
        return Ok(address);
    }
    let mut tls = ClientTlsConfig::new();
    tls = tls.ca_certificate(Certificate::from_pem(fs::read(&files.authority)?));
    // Only where the settings name one.
    if let (Ok(certificate), Ok(key)) = (fs::read(&files.certificate), fs::read(&files.key)) {
        tls = tls.identity(Identity::from_pem(certificate, key));
    }
    Ok(address.tls_config(tls)?)
}

async fn get(channel: Channel) -> Result<(), String> {
    let request = RangeRequest { key: KEY.into(), ..RangeRequest::default() };
    match timeout(ANSWER_TIMEOUT, KvClient::new(channel).range(request)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(status)) if status.source().is_some() => Err(innermost(&status)),
        Ok(Err(status)) => Err(status.message().to_owned()),
        Err(_) => Err(silence()),
    }
}

/// Why kine does not serve: its database is not there, or does not want it.
async fn unconnected(paths: &Paths, database: &Database) -> String {
    let place = host_port(&database.host, database.port);
    let dialled = TcpStream::connect((database.host.as_str(), database.port));
    match timeout(ANSWER_TIMEOUT, dialled).await {
        Err(_) => format!("{place}: {}", silence()),
        Ok(Err(error)) => format!("{place}: {error}"),
        Ok(Ok(_)) => {
            let log = fs::read(paths.daemon_log(kine::NAME)).unwrap_or_default();
            let end = &log[log.len().saturating_sub(LOG_BYTES)..];
            match last_words(&String::from_utf8_lossy(end)) {
                Some(words) => format!("kine says: {words}"),
                None => "kine is about to connect; `skiff logs kine` says more".into(),
            }
        }
    }
}

/// The last error in a log of kine: `time="…" level=error msg="…"`.
fn last_words(log: &str) -> Option<String> {
    let is_bad =
        |line: &&str| ["error", "fatal"].iter().any(|l| line.contains(&format!("level={l}")));
    let line = log.lines().rev().find(is_bad)?;
    let (_, message) = line.split_once("msg=")?;
    let message = message.trim().trim_matches('"').replace("\\\"", "\"");
    Some(message.replace("\\n", " ").replace("\\t", "").trim().to_owned())
}

fn silence() -> String {
    format!("no answer within {} s", ANSWER_TIMEOUT.as_secs())
}

/// "connection refused" says more than "transport error".
fn innermost(error: &(dyn Error + 'static)) -> String {
    let causes = iter::successors(Some(error), |error| Error::source(*error));
    causes.last().map(ToString::to_string).unwrap_or_default()
}

fn chain(error: &dyn Error) -> String {
    let causes = iter::successors(Some(error), |error| Error::source(*error));
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Sources;
    use crate::node::account::Account;

    /// Settings of a file below `dir`, with `DIR` for it.
    fn config(dir: &Path, text: &str) -> Config {
        let file = dir.join("skiff.toml");
        fs::write(&file, text.replace("DIR", &dir.display().to_string())).unwrap();
        Config::load(&Sources { file, snap: None }).unwrap()
    }

    fn accounts() -> Accounts {
        // Whoever runs the tests.
        let own = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
        let account = Account { uid: own.0, gid: own.1 };
        Accounts { datastore: account, control: account, skiff_gid: own.1 }
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_password_that_others_may_read_is_refused_and_one_that_is_kept_reaches_kine_alone() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::new(dir.path().join("root"));
        let text = "[datastore]\nendpoint = \"postgres://skiff@db/kube\"\n\
                    password-file = \"DIR/password\"\n";
        let config = config(dir.path(), text);
        let file = dir.path().join("password");
        let prepare = || prepare(&paths, &config, &accounts());

        assert!(matches!(prepare(), Err(ExternalError::Read { .. })));
        fs::write(&file, "hunter2\n").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        let error = prepare().unwrap_err().to_string();
        assert!(error.ends_with(&format!("sudo chmod 600 {}", file.display())), "{error}");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();

        let first = prepare().unwrap().unwrap();
        let settings = kine::config(&paths);
        assert_eq!(mode(&settings), 0o600);
        assert!(fs::read_to_string(&settings).unwrap().contains("skiff:hunter2@db:5432/kube"));
        assert!(!format!("{first:?}").contains("hunter2"));
        assert_eq!(prepare().unwrap().unwrap(), first);

        fs::write(&file, "hunter3").unwrap();
        assert_ne!(prepare().unwrap().unwrap().digest, first.digest, "kine starts again");
        fs::write(&file, "\n").unwrap();
        assert!(matches!(prepare(), Err(ExternalError::NoPassword(_))));
    }

    #[test]
    fn what_an_etcd_is_shown_lies_where_the_api_server_may_read_it() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::new(dir.path().join("root"));
        let text = "[datastore]\nendpoint = \"https://etcd\"\nca-file = \"DIR/ca\"\n\
                    cert-file = \"DIR/cert\"\nkey-file = \"DIR/key\"\n";
        let config = config(dir.path(), text);
        for name in ["ca", "cert", "key"] {
            fs::write(dir.path().join(name), name).unwrap();
        }
        fs::set_permissions(dir.path().join("key"), fs::Permissions::from_mode(0o600)).unwrap();
        fs::create_dir_all(paths.daemon_pki("kube-control")).unwrap();
        let external = prepare(&paths, &config, &accounts()).unwrap().unwrap();
        let files = external.files(&paths);
        for (path, content) in [(&files.authority, "ca"), (&files.key, "key")] {
            assert_eq!((fs::read_to_string(path).unwrap().as_str(), mode(path)), (content, 0o600));
        }
        // Renewed by whoever renews it.
        fs::write(dir.path().join("cert"), "another").unwrap();
        copy(&paths, &config, &external, &accounts()).unwrap();
        assert_eq!(fs::read_to_string(&files.certificate).unwrap(), "another");
    }

    #[test]
    fn the_last_error_of_kine_is_told_in_its_own_words() {
        let log = "time=\"2026-11-27T10:00:00Z\" level=info msg=hello\n\
                   time=\"2026-11-27T10:00:01Z\" level=error msg=\"Failed to ping: failed to connect \
                   to `user=skiff`:\\n\\t10.0.0.1:5432: role \\\"skiff\\\" is unknown\"\n\
                   time=\"2026-11-27T10:00:02Z\" level=info msg=bye\n";
        assert_eq!(
            last_words(log).unwrap(),
            "Failed to ping: failed to connect to `user=skiff`: 10.0.0.1:5432: role \"skiff\" is \
             unknown"
        );
        assert_eq!(last_words("nothing of the kind"), None);
    }
}
