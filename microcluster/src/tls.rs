//! The identities of members, and who believes whom at the port between nodes.
//!
//! | who | shows | believes |
//! |---|---|---|
//! | control-plane member, listening | its certificate and the authority's | any certificate of the authority, or none: [`Visitors`] tells which |
//! | joiner | nothing | a control-plane member's certificate of the one authority that its token names: [`Pin`] |
//! | member, dialling | its certificate | a control-plane member's certificate of the authority: [`Identity`] |
//!
//! Sessions are never resumed: what was verified once may be refused the next time.

mod identity;
mod pin;
mod validity;
mod visitors;

use std::path::PathBuf;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::server::VerifierBuilderError;
use rustls_pki_types::ServerName;

pub use identity::{Identity, IdentityFiles, Made};
pub use pin::{Pin, PinError, fingerprint};
pub use validity::{Validity, ValidityError};
pub use visitors::{Standing, Visitors};

/// Joining, and everything else between nodes that is not the datastore's.
pub const ALPN_CLUSTER: &[u8] = b"skiff-cluster/1";
/// What is the datastore's at the same port: raft's bytes, its own protocol, measuring.
pub const ALPN_DATASTORE: [&[u8]; 3] = [b"skiff-raft/1", b"skiff-peer/1", b"skiff-ping/1"];
/// The name in the certificates with which control-plane members listen. Other certificates of
/// the same authority, such as a kubelet's, do not have it: only the record puts names there.
pub const CONTROL_PLANE_NAME: &str = "control-plane.skiff.internal";
/// A name that every API server's certificate has.
const API_SERVER_NAME: &str = "kubernetes.default.svc";

/// Why an identity could not be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("can't read {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: rustls_pki_types::pem::Error,
    },
    #[error("the identity in {} is not usable", path.display())]
    Identity {
        path: PathBuf,
        #[source]
        source: rustls::Error,
    },
    #[error("the authorities in {} are not usable", path.display())]
    Authority {
        path: PathBuf,
        #[source]
        source: VerifierBuilderError,
    },
}

/// The name that control-plane members are dialled by, wherever they are.
pub fn control_plane_name() -> ServerName<'static> {
    ServerName::try_from(CONTROL_PLANE_NAME).expect("the name is a plain one")
}

/// The name that API servers are dialled by.
pub fn api_server_name() -> ServerName<'static> {
    ServerName::try_from(API_SERVER_NAME).expect("the name is a plain one")
}

/// What a joiner dials with: it has no certificate, and believes the authority of its token.
pub fn joiner(pin: Arc<Pin>) -> Result<Arc<ClientConfig>, rustls::Error> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(pin)
        .with_no_client_auth();
    config.alpn_protocols = vec![ALPN_CLUSTER.to_vec()];
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}
