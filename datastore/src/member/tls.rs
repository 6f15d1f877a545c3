//! Mutual TLS between members. Both sides must show a certificate of the
//! authority that carries the members' common name: other certificates of the
//! same authority (a kubelet's, say) are strangers here. A certificate may name
//! the node too, of which it is, and then it is that node alone that may show it.
//!
//! Certificates are renewed while everything runs: the files are looked at when
//! the identity is needed, at most once a second.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustls::client::{Resumption, verify_server_name};
use rustls::crypto::CryptoProvider;
use rustls::server::{
    NoServerSessionStorage, ParsedCertificate, VerifierBuilderError, WebPkiClientVerifier,
};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tracing::{info, warn};

use super::nodes::Nodes;

/// The authority's certificate in `--pki`.
pub const AUTHORITY_FILE: &str = "ca.crt";
/// This member's certificate.
pub const CERTIFICATE_FILE: &str = "member.crt";
/// Its key.
pub const KEY_FILE: &str = "member.key";
/// Both of them in one, which changes as a whole: where it is, the others do not count.
pub const IDENTITY_FILE: &str = "member.pem";
/// The name in every member's certificate.
pub const MEMBER_NAME: &str = "member.datastore.skiff.internal";
/// Bytes of libdqlite's raft.
pub const ALPN_RAFT: &[u8] = b"skiff-raft/1";
/// Our own protocol, gRPC.
pub const ALPN_PEER: &[u8] = b"skiff-peer/1";
/// Echoes, to measure round trips.
pub const ALPN_PING: &[u8] = b"skiff-ping/1";

/// The files are not looked at more often.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Why an identity could not be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("can't read {path}")]
    Read {
        path: PathBuf,
        #[source]
        source: rustls_pki_types::pem::Error,
    },
    #[error("the identity in {dir} is not usable")]
    Identity {
        dir: PathBuf,
        #[source]
        source: rustls::Error,
    },
    #[error("the authority in {dir} is not usable")]
    Authority {
        dir: PathBuf,
        #[source]
        source: VerifierBuilderError,
    },
}

/// A member's identity, and whose it believes. Cheap to clone.
#[derive(Clone)]
pub struct Identity(Arc<Inner>);

struct Inner {
    dir: PathBuf,
    nodes: Nodes,
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

/// What a stream between members carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Raft,
    Peer,
    Ping,
}

/// Ready to accept and to dial.
#[derive(Clone)]
pub struct Made {
    pub server: Arc<ServerConfig>,
    raft: Arc<ClientConfig>,
    peer: Arc<ClientConfig>,
    ping: Arc<ClientConfig>,
}

impl Made {
    /// What dials for a protocol.
    pub fn client(&self, protocol: Protocol) -> Arc<ClientConfig> {
        match protocol {
            Protocol::Raft => self.raft.clone(),
            Protocol::Peer => self.peer.clone(),
            Protocol::Ping => self.ping.clone(),
        }
    }
}

impl Identity {
    /// Reads the identity in `dir`.
    pub fn load(dir: &Path, nodes: Nodes) -> Result<Identity, TlsError> {
        let stamps = stamps(dir);
        let made = make(dir)?;
        let state = State { looked: Instant::now(), stamps, told: None, made };
        Ok(Identity(Arc::new(Inner { dir: dir.to_owned(), nodes, state: Mutex::new(state) })))
    }

    /// Whose members may be peers.
    pub fn nodes(&self) -> &Nodes {
        &self.0.nodes
    }

    /// The identity as it is now. Files that do not fit together change nothing.
    pub fn now(&self) -> Made {
        let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.looked.elapsed() >= LOOK_INTERVAL {
            state.looked = Instant::now();
            self.follow(&mut state);
        }
        state.made.clone()
    }

    fn follow(&self, state: &mut State) {
        let found = stamps(&self.0.dir);
        if found == state.stamps {
            return;
        }
        match make(&self.0.dir) {
            Ok(made) => {
                info!("the identity of this member is a new one");
                state.made = made;
                state.stamps = found;
                state.told = None;
            }
            Err(_) if state.told == Some(found) => {}
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                warn!(error, "the new identity is not usable; going on with the former one");
                state.told = Some(found);
            }
        }
    }
}

fn stamps(dir: &Path) -> Stamps {
    [AUTHORITY_FILE, CERTIFICATE_FILE, KEY_FILE, IDENTITY_FILE].map(|name| {
        let data = std::fs::metadata(dir.join(name)).ok()?;
        Some((data.ino(), data.mtime(), data.mtime_nsec(), data.len()))
    })
}

fn make(dir: &Path) -> Result<Made, TlsError> {
    let authority = certificates(&dir.join(AUTHORITY_FILE))?;
    let both = dir.join(IDENTITY_FILE);
    let (certificate, path) = match both.exists() {
        true => (both.clone(), both),
        false => (dir.join(CERTIFICATE_FILE), dir.join(KEY_FILE)),
    };
    let chain = certificates(&certificate)?;
    let key =
        PrivateKeyDer::from_pem_file(&path).map_err(|source| TlsError::Read { path, source })?;
    let failed = |source| TlsError::Identity { dir: dir.to_owned(), source };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    for certificate in authority {
        roots.add(certificate).map_err(failed)?;
    }
    let roots = Arc::new(roots);
    let verifier = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone())
        .build()
        .map_err(|source| TlsError::Authority { dir: dir.to_owned(), source })?;
    let mut server = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(failed)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain.clone(), key.clone_key())
        .map_err(failed)?;
    server.alpn_protocols = vec![ALPN_RAFT.to_vec(), ALPN_PEER.to_vec(), ALPN_PING.to_vec()];
    // What was verified once may be refused the next time.
    server.session_storage = Arc::new(NoServerSessionStorage {});
    server.send_tls13_tickets = 0;
    let client =
        |protocol: &[u8]| client_config(&provider, &roots, &chain, &key, protocol).map_err(failed);
    let (raft, peer, ping) = (client(ALPN_RAFT)?, client(ALPN_PEER)?, client(ALPN_PING)?);
    Ok(Made { server: Arc::new(server), raft, peer, ping })
}

fn client_config(
    provider: &Arc<CryptoProvider>,
    roots: &Arc<RootCertStore>,
    chain: &[CertificateDer<'static>],
    key: &PrivateKeyDer<'static>,
    protocol: &[u8],
) -> Result<Arc<ClientConfig>, rustls::Error> {
    let mut client = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots.clone())
        .with_client_auth_cert(chain.to_vec(), key.clone_key())?;
    client.alpn_protocols = vec![protocol.to_vec()];
    client.resumption = Resumption::disabled();
    Ok(Arc::new(client))
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

/// The name by which a member is dialled: its node's, where that is known.
pub fn member_name(node: &str) -> io::Result<ServerName<'static>> {
    let name = match node {
        "" => MEMBER_NAME.to_owned(),
        node => format!("{node}.{MEMBER_NAME}"),
    };
    ServerName::try_from(name).map_err(io::Error::other)
}

/// Whether whoever dialled shows a member's certificate. That it is of the
/// authority was verified before.
pub fn is_member(certificates: Option<&[CertificateDer<'_>]>) -> bool {
    is_node(certificates, "")
}

/// Whether it is that of this node's member.
pub fn is_node(certificates: Option<&[CertificateDer<'_>]>, node: &str) -> bool {
    let Some(certificate) = certificates.and_then(<[_]>::first) else { return false };
    let Ok(name) = member_name(node) else { return false };
    ParsedCertificate::try_from(certificate)
        .is_ok_and(|parsed| verify_server_name(&parsed, &name).is_ok())
}
