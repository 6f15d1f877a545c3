//! A member's own identity, as it is on disk at the moment.
//!
//! Leaves are renewed while everything runs, and authorities follow each other. Whoever needs the
//! identity looks at its files, at most once a second, and gets what is there now: connections
//! that were made before go on, and nothing wakes up for it while there are none. Files that do
//! not fit together, such as a certificate whose key comes a moment later, change nothing.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustls::client::Resumption;
use rustls::server::NoServerSessionStorage;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tracing::{info, warn};

use super::visitors::Visitors;
use super::{ALPN_CLUSTER, TlsError, provider};

/// The files are not looked at more often.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// What API servers speak that are asked for their health.
const ALPN_HTTP: &[u8] = b"http/1.1";

/// Where an identity is.
#[derive(Clone, Debug)]
pub struct IdentityFiles {
    /// The certificate; the key may be in the same file.
    pub certificate: PathBuf,
    pub key: PathBuf,
    /// The certificates of the authorities that are believed.
    pub authority: PathBuf,
    /// Those of former ones, which the listener lets in to ask for another certificate. There need not
    /// be such a file, or anything in it.
    pub former: Option<PathBuf>,
}

/// An identity that follows its files.
pub struct Identity {
    files: IdentityFiles,
    state: Mutex<State>,
}

struct State {
    looked: Instant,
    /// The files from which `made` was made.
    stamps: Stamps,
    /// The files that were told not to be usable.
    told: Option<Stamps>,
    made: Made,
}

/// What tells one state of the files from another.
type Stamps = [Option<(u64, i64, i64, u64)>; 4];

/// Ready to accept and to dial.
#[derive(Clone)]
pub struct Made {
    /// For the listener.
    pub server: Arc<ServerConfig>,
    pub visitors: Arc<Visitors>,
    /// For dialling control-plane members.
    pub member: Arc<ClientConfig>,
    /// For asking API servers for their health.
    pub api_server: Arc<ClientConfig>,
}

impl Identity {
    /// Reads the files.
    pub fn load(files: IdentityFiles) -> Result<Identity, TlsError> {
        let stamps = stamps(&files);
        let made = make(&files)?;
        let state = State { looked: Instant::now(), stamps, told: None, made };
        Ok(Identity { files, state: Mutex::new(state) })
    }

    /// The identity as it is now.
    pub fn now(&self) -> Made {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.looked.elapsed() >= LOOK_INTERVAL {
            state.looked = Instant::now();
            self.follow(&mut state);
        }
        state.made.clone()
    }

    fn follow(&self, state: &mut State) {
        let found = stamps(&self.files);
        if found == state.stamps {
            return;
        }
        match make(&self.files) {
            Ok(made) => {
                info!(certificate = %self.files.certificate.display(), "the identity is a new one");
                state.made = made;
                state.stamps = found;
                state.told = None;
            }
            Err(_) if state.told == Some(found) => {}
            Err(error) => {
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                warn!(%error, cause, "the new identity is not usable; going on with the former one");
                state.told = Some(found);
            }
        }
    }
}

fn stamps(files: &IdentityFiles) -> Stamps {
    let IdentityFiles { certificate, key, authority, former } = files;
    [Some(certificate), Some(key), Some(authority), former.as_ref()].map(|path| {
        let data = std::fs::metadata(path?).ok()?;
        Some((data.ino(), data.mtime(), data.mtime_nsec(), data.len()))
    })
}

fn make(files: &IdentityFiles) -> Result<Made, TlsError> {
    let path = files.certificate.clone();
    let failed = |source| TlsError::Identity { path: path.clone(), source };
    let chain = certificates(&files.certificate)?;
    let authorities = certificates(&files.authority)?;
    let path = files.key.clone();
    let key = PrivateKeyDer::from_pem_file(&path)
        .map_err(|source| TlsError::Read { path: path.clone(), source })?;
    let mut roots = RootCertStore::empty();
    for authority in &authorities {
        roots.add(authority.clone()).map_err(failed)?;
    }
    let roots = Arc::new(roots);
    let former = files.former.as_deref().and_then(former_roots);
    let visitors = Arc::new(Visitors::new(roots.clone(), &files.authority, former)?);
    // A joiner knows the authority by its sha256 only: it is sent along.
    let mut shown = chain.clone();
    shown.extend(authorities.into_iter().filter(|authority| !chain.contains(authority)));
    let mut server = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(failed)?
        .with_client_cert_verifier(visitors.clone())
        .with_single_cert(shown, key.clone_key())
        .map_err(failed)?;
    server.alpn_protocols = vec![ALPN_CLUSTER.to_vec()];
    server.session_storage = Arc::new(NoServerSessionStorage {});
    server.send_tls13_tickets = 0;
    let client = |protocol: &[u8]| client(&roots, &chain, &key, protocol).map_err(failed);
    let (member, api_server) = (client(ALPN_CLUSTER)?, client(ALPN_HTTP)?);
    Ok(Made { server: Arc::new(server), visitors, member, api_server })
}

fn client(
    roots: &Arc<RootCertStore>,
    chain: &[CertificateDer<'static>],
    key: &PrivateKeyDer<'static>,
    protocol: &[u8],
) -> Result<Arc<ClientConfig>, rustls::Error> {
    let mut client = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots.clone())
        .with_client_auth_cert(chain.to_vec(), key.clone_key())?;
    client.alpn_protocols = vec![protocol.to_vec()];
    client.resumption = Resumption::disabled();
    Ok(Arc::new(client))
}

/// Those that can be used: nobody is kept out for want of others.
fn former_roots(path: &Path) -> Option<Arc<RootCertStore>> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(certificates(path).ok()?);
    (!roots.is_empty()).then(|| Arc::new(roots))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let failed = |source| TlsError::Read { path: path.to_owned(), source };
    let found: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path).map_err(failed)?.collect();
    let found = found.map_err(failed)?;
    if found.is_empty() {
        return Err(failed(rustls_pki_types::pem::Error::NoItemsFound));
    }
    Ok(found)
}
