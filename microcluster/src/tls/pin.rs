//! Whom a joiner believes: it knows nothing but the sha256 of the authority's certificate.
//!
//! Believed is a chain that ends in a certificate with exactly this sha256, whose leaf has the
//! name of control-plane members, whatever address was dialled. The listener sends the
//! authority's certificate along for that.
//!
//! The joiner's clock may be years off (no battery, no network time yet), and then nobody here
//! can tell an old certificate from a wrong clock. So both are one refusal that tells both sides,
//! and nothing secret is sent: who got hold of an old key of a removed member, and sits between,
//! would collect the secret of a token otherwise. [`Pin::told`] is for looking only, with nothing
//! secret in the request: there everything but the time is verified, and what the certificate
//! says of the time is kept for whoever asks, to say how far off the clock is.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls13_signature};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, DigitallySignedStruct, Error, OtherError, PeerIncompatible, RootCertStore,
    SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use sha2::{Digest, Sha256};

use super::validity::{Validity, ValidityError};
use super::{control_plane_name, provider};

/// Certificates of a chain that are looked at: the leaf, and two authorities while one follows
/// the other.
const CHAIN_MAX: usize = 8;

/// Why a chain is not believed.
#[derive(Debug, thiserror::Error)]
pub enum PinError {
    #[error("it belongs to another cluster: its authority's fingerprint is {}", hex(found))]
    OtherAuthority { found: [u8; 32] },
    #[error("its certificate was not signed by the cluster's authority")]
    NotSigned(#[source] Error),
    #[error("its certificate is not that of a control-plane member")]
    NotControlPlane,
    #[error(transparent)]
    Time(#[from] ValidityError),
}

/// Believes one authority by its sha256.
#[derive(Debug)]
pub struct Pin {
    sha256: [u8; 32],
    algorithms: WebPkiSupportedAlgorithms,
    /// Whether a certificate must be valid by our clock.
    strict: bool,
    doubt: Mutex<Option<ValidityError>>,
}

impl Pin {
    /// Believes nothing that is not valid now.
    pub fn strict(sha256: [u8; 32]) -> Arc<Pin> {
        Pin::new(sha256, true)
    }

    /// For requests without secrets: a certificate that is not valid by our clock is told by
    /// [`Pin::doubt`] and not refused.
    pub fn told(sha256: [u8; 32]) -> Arc<Pin> {
        Pin::new(sha256, false)
    }

    fn new(sha256: [u8; 32], strict: bool) -> Arc<Pin> {
        let algorithms = provider().signature_verification_algorithms;
        Arc::new(Pin { sha256, algorithms, strict, doubt: Mutex::default() })
    }

    /// What was wrong about the time of the last certificate.
    pub fn doubt(&self) -> Option<ValidityError> {
        *self.doubt.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), PinError> {
        let others = &others[..others.len().min(CHAIN_MAX)];
        let Some(authority) = others.iter().find(|other| fingerprint(other) == self.sha256) else {
            let last = others.last().unwrap_or(leaf);
            return Err(PinError::OtherAuthority { found: fingerprint(last) });
        };
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone().into_owned()).map_err(PinError::NotSigned)?;
        let parsed = ParsedCertificate::try_from(leaf).map_err(PinError::NotSigned)?;
        let unreadable = || PinError::NotSigned(CertificateError::BadEncoding.into());
        let validity = Validity::of(leaf).ok_or_else(unreadable)?;
        let above = Validity::of(authority).ok_or_else(unreadable)?;
        // At a moment at which both were valid everything but the time is told apart.
        let then = Duration::from_secs(validity.not_before_s.max(above.not_before_s));
        let then = UnixTime::since_unix_epoch(then);
        let algorithms = self.algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&parsed, &roots, others, then, algorithms)
            .map_err(chain_error)?;
        verify_server_name(&parsed, &control_plane_name())
            .map_err(|_| PinError::NotControlPlane)?;
        let doubt = validity.check(now).and(above.check(now)).err();
        *self.doubt.lock().unwrap_or_else(PoisonError::into_inner) = doubt;
        match doubt {
            Some(doubt) if self.strict => Err(doubt.into()),
            _ => Ok(()),
        }
    }
}

impl ServerCertVerifier for Pin {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        _dialled: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let other = |error| CertificateError::Other(OtherError(Arc::new(error)));
        self.verify(leaf, others, now).map_err(other)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _leaf: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::ServerDoesNotSupportTls12Or13.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, leaf, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// A certificate for clients only is of the authority all right, and not of who should listen.
fn chain_error(error: Error) -> PinError {
    use CertificateError::{InvalidPurpose, InvalidPurposeContext};
    match error {
        Error::InvalidCertificate(InvalidPurpose | InvalidPurposeContext { .. }) => {
            PinError::NotControlPlane
        }
        error => PinError::NotSigned(error),
    }
}

/// What a token has of an authority.
pub fn fingerprint(certificate: &CertificateDer<'_>) -> [u8; 32] {
    Sha256::digest(certificate).into()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
