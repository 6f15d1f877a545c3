//! TLS towards clients, by etcd's options. Members have their own, in `member::tls`.

use std::path::{Path, PathBuf};

use tonic::transport::{Certificate, Identity, ServerTlsConfig};

use crate::options::Options;

/// Why TLS can't be spoken.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("can't read {path}")]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("certificate, key or authorities are not usable, or do not belong together")]
    Unusable(#[source] tonic::transport::Error),
}

/// What the options ask for; nothing without a certificate.
pub fn server_config(options: &Options) -> Result<Option<ServerTlsConfig>, TlsError> {
    let (Some(certificate), Some(key)) = (&options.cert_file, &options.key_file) else {
        return Ok(None);
    };
    let identity = Identity::from_pem(read(certificate)?, read(key)?);
    let config = ServerTlsConfig::new().identity(identity);
    let Some(authorities) = &options.trusted_ca_file else { return Ok(Some(config)) };
    let authorities = Certificate::from_pem(read(authorities)?);
    let optional = !options.client_cert_auth;
    Ok(Some(config.client_ca_root(authorities).client_auth_optional(optional)))
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|source| TlsError::Read { path: path.to_owned(), source })
}
