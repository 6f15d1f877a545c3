//! Mutual TLS between members. Both sides must show a certificate of the
//! authority that carries the members' common name: other certificates of the
//! same authority (a kubelet's, say) are strangers here.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::verify_server_name;
use rustls::crypto::CryptoProvider;
use rustls::server::{ParsedCertificate, VerifierBuilderError, WebPkiClientVerifier};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};

/// The authority's certificate in `--pki`.
pub const AUTHORITY_FILE: &str = "ca.crt";
/// This member's certificate.
pub const CERTIFICATE_FILE: &str = "member.crt";
/// Its key.
pub const KEY_FILE: &str = "member.key";
/// The name in every member's certificate.
pub const MEMBER_NAME: &str = "member.datastore.skiff.internal";
/// Bytes of libdqlite's raft.
pub const ALPN_RAFT: &[u8] = b"skiff-raft/1";
/// Our own protocol, gRPC.
pub const ALPN_PEER: &[u8] = b"skiff-peer/1";
/// Echoes, to measure round trips.
pub const ALPN_PING: &[u8] = b"skiff-ping/1";

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

/// A member's identity, ready to accept and to dial.
#[derive(Clone)]
pub struct Identity {
    pub server: Arc<ServerConfig>,
    pub raft: Arc<ClientConfig>,
    pub peer: Arc<ClientConfig>,
    pub ping: Arc<ClientConfig>,
}

impl Identity {
    /// Reads the identity in `dir`.
    pub fn load(dir: &Path) -> Result<Identity, TlsError> {
        let authority = certificates(&dir.join(AUTHORITY_FILE))?;
        let chain = certificates(&dir.join(CERTIFICATE_FILE))?;
        let path = dir.join(KEY_FILE);
        let key = PrivateKeyDer::from_pem_file(&path)
            .map_err(|source| TlsError::Read { path, source })?;
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
        let client = |protocol: &[u8]| {
            client_config(&provider, &roots, &chain, &key, protocol).map_err(failed)
        };
        let (raft, peer) = (client(ALPN_RAFT)?, client(ALPN_PEER)?);
        let ping = client(ALPN_PING)?;
        Ok(Identity { server: Arc::new(server), raft, peer, ping })
    }
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

/// The name that every member is dialled by.
pub fn member_name() -> ServerName<'static> {
    ServerName::try_from(MEMBER_NAME).expect("the name is a plain one")
}

/// Whether whoever dialled shows a member's certificate. That it is of the
/// authority was verified before.
pub fn is_member(certificates: Option<&[CertificateDer<'_>]>) -> bool {
    let Some(certificate) = certificates.and_then(<[_]>::first) else { return false };
    ParsedCertificate::try_from(certificate)
        .is_ok_and(|parsed| verify_server_name(&parsed, &member_name()).is_ok())
}
