//! One address of a member, to the end of the TLS handshake, and what can be wrong with it.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::{AlertDescription, CertificateError, ClientConfig, OtherError};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::race::race;
use crate::tls::{ALPN_CLUSTER, PinError, ValidityError, control_plane_name};

/// A connection to a member who was verified.
pub type Connection = TlsStream<TcpStream>;

/// Addresses of one name that are tried: more are a mistake or an attack.
const ADDRESSES_OF_NAME_MAX: usize = 8;
/// Of several addresses of a name the next one begins so much later.
const STAGGER: Duration = Duration::from_millis(300);
/// How long a name may take: resolvers that do not answer take five seconds each.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection may take: the kernel sends again after one and after three seconds.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// What is wrong with an address.
#[derive(Debug, thiserror::Error)]
pub enum DialFailure {
    #[error("the name is not known ({0})")]
    Name(io::Error),
    #[error("the name has no address")]
    NoAddress,
    #[error("nobody listens there")]
    Refused,
    #[error("no answer within {0:?}")]
    Silent(Duration),
    #[error("there is no way to it ({0})")]
    Unreachable(io::Error),
    #[error("it does not speak TLS")]
    NotTls,
    #[error("it closed the connection in the handshake")]
    Closed,
    #[error("it is no member of a Skiff cluster: it speaks another protocol")]
    OtherProtocol,
    /// Also what somebody looks like who sits between.
    #[error("its certificate is not of this cluster's authority")]
    OtherAuthority {
        /// The sha256 of what it showed instead, where it is known.
        found: Option<[u8; 32]>,
    },
    #[error("its certificate is not that of a control-plane member")]
    NotControlPlane,
    #[error(transparent)]
    Time(ValidityError),
    #[error("its certificate is not valid at this time, or the clock of this machine is wrong")]
    Expired,
    #[error("it refused the handshake ({0:?})")]
    Alert(AlertDescription),
    #[error("the handshake failed ({0})")]
    Handshake(rustls::Error),
    /// It is a member whose node daemon could not be asked.
    #[error("its node daemon is not running")]
    Away,
}

/// Connects to `HOST:PORT` and shakes hands.
pub async fn dial(address: &str, config: Arc<ClientConfig>) -> Result<Connection, DialFailure> {
    let resolved = timeout(RESOLVE_TIMEOUT, lookup_host(address)).await;
    let resolved =
        resolved.map_err(|_| DialFailure::Silent(RESOLVE_TIMEOUT))?.map_err(DialFailure::Name)?;
    let attempts = resolved.take(ADDRESSES_OF_NAME_MAX).map(|each| dial_one(each, config.clone()));
    // The last failure is of the address that was tried longest ago of all that are worth it:
    // of a name, one reason has to do.
    let raced = race(attempts, STAGGER).await;
    raced.map_err(|failures| failures.into_iter().reduce(telling).unwrap_or(DialFailure::NoAddress))
}

/// Which of two reasons tells more: somebody who answered wrongly rather than nobody.
fn telling(one: DialFailure, other: DialFailure) -> DialFailure {
    use DialFailure::{Refused, Silent, Unreachable};
    if matches!(one, Refused | Silent(_) | Unreachable(_)) { other } else { one }
}

async fn dial_one(
    address: SocketAddr,
    config: Arc<ClientConfig>,
) -> Result<Connection, DialFailure> {
    let stream = timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await;
    let stream =
        stream.map_err(|_| DialFailure::Silent(CONNECT_TIMEOUT))?.map_err(connect_failure)?;
    stream.set_nodelay(true).map_err(DialFailure::Unreachable)?;
    let connect = TlsConnector::from(config).connect(control_plane_name(), stream);
    let stream = timeout(HANDSHAKE_TIMEOUT, connect).await;
    let stream =
        stream.map_err(|_| DialFailure::Silent(HANDSHAKE_TIMEOUT))?.map_err(handshake_failure)?;
    match stream.get_ref().1.alpn_protocol() {
        Some(ALPN_CLUSTER) => Ok(stream),
        _ => Err(DialFailure::OtherProtocol),
    }
}

fn connect_failure(error: io::Error) -> DialFailure {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => DialFailure::Refused,
        io::ErrorKind::TimedOut => DialFailure::Silent(CONNECT_TIMEOUT),
        _ => DialFailure::Unreachable(error),
    }
}

fn handshake_failure(error: io::Error) -> DialFailure {
    let kind = error.kind();
    let inner = error.into_inner().and_then(|inner| inner.downcast::<rustls::Error>().ok());
    match inner.map(|inner| *inner) {
        Some(error) => tls_failure(error),
        None if kind == io::ErrorKind::TimedOut => DialFailure::Silent(HANDSHAKE_TIMEOUT),
        None => DialFailure::Closed,
    }
}

fn tls_failure(error: rustls::Error) -> DialFailure {
    use rustls::Error::{AlertReceived, InvalidCertificate, InvalidMessage, NoApplicationProtocol};
    match error {
        InvalidMessage(_) => DialFailure::NotTls,
        NoApplicationProtocol => DialFailure::OtherProtocol,
        AlertReceived(AlertDescription::NoApplicationProtocol) => DialFailure::OtherProtocol,
        AlertReceived(alert) => DialFailure::Alert(alert),
        InvalidCertificate(error) => certificate_failure(error),
        other => DialFailure::Handshake(other),
    }
}

fn certificate_failure(error: CertificateError) -> DialFailure {
    use CertificateError as E;
    match error {
        E::UnknownIssuer | E::BadSignature => DialFailure::OtherAuthority { found: None },
        E::NotValidForName | E::NotValidForNameContext { .. } => DialFailure::NotControlPlane,
        E::InvalidPurpose | E::InvalidPurposeContext { .. } => DialFailure::NotControlPlane,
        E::Expired | E::ExpiredContext { .. } | E::NotValidYet | E::NotValidYetContext { .. } => {
            DialFailure::Expired
        }
        E::Other(OtherError(ref other)) => match other.downcast_ref::<PinError>() {
            Some(PinError::OtherAuthority { found }) => {
                DialFailure::OtherAuthority { found: Some(*found) }
            }
            Some(PinError::NotSigned(_)) => DialFailure::OtherAuthority { found: None },
            Some(PinError::NotControlPlane) => DialFailure::NotControlPlane,
            Some(PinError::Time(doubt)) => DialFailure::Time(*doubt),
            None => DialFailure::Handshake(E::clone(&error).into()),
        },
        other => DialFailure::Handshake(other.into()),
    }
}
