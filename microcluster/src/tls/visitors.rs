//! Whose certificates the listener believes: any of the authority's, and none at all.
//!
//! A node that was off for a month comes with a certificate that has expired, and must get a new
//! one without a token. It is let in with it: that it has the key, and that the authority signed,
//! is verified all the same. Its standing says so, and whoever decides must ask for it by name. The
//! same goes for one that was off while the authority was replaced: its certificate is of a former one.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore,
    SignatureScheme,
};
use rustls_pki_types::{CertificateDer, UnixTime};

use super::validity::Validity;
use super::{TlsError, provider};

/// How good a certificate is that was let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    Valid,
    /// It was good once: enough to ask for a new one, and for nothing else.
    Expired,
    /// It ends in a former authority, of which somebody else may have the key: as [`Self::Expired`].
    Former,
}

/// Believes certificates of the authority, also those that have expired.
#[derive(Debug)]
pub struct Visitors {
    strict: Arc<dyn ClientCertVerifier>,
    former: Option<Arc<dyn ClientCertVerifier>>,
}

impl Visitors {
    /// Certificates of these authorities, which were read from `path`, and of former ones.
    pub fn new(
        roots: Arc<RootCertStore>,
        path: &Path,
        former: Option<Arc<RootCertStore>>,
    ) -> Result<Visitors, TlsError> {
        let verifier = |roots| {
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider())
                .allow_unauthenticated()
                .build();
            verifier.map_err(|source| TlsError::Authority { path: path.to_owned(), source })
        };
        Ok(Visitors { strict: verifier(roots)?, former: former.map(verifier).transpose()? })
    }

    /// How good the certificate is with which somebody was let in.
    pub fn standing(&self, chain: &[CertificateDer<'_>], now: UnixTime) -> Option<Standing> {
        let (leaf, others) = chain.split_first()?;
        self.verify(leaf, others, now).ok().map(|(_, standing)| standing)
    }

    fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(ClientCertVerified, Standing), Error> {
        let refused = match verify(&*self.strict, leaf, others, now) {
            Err(error) => error,
            believed => return believed,
        };
        let former = self.former.as_deref().and_then(|former| {
            let (verified, _) = verify(former, leaf, others, now).ok()?;
            Some((verified, Standing::Former))
        });
        former.ok_or(refused)
    }
}

/// Whether somebody believes it, by its own time if that is over.
fn verify(
    believes: &dyn ClientCertVerifier,
    leaf: &CertificateDer<'_>,
    others: &[CertificateDer<'_>],
    now: UnixTime,
) -> Result<(ClientCertVerified, Standing), Error> {
    let refused = match believes.verify_client_cert(leaf, others, now) {
        Err(error) if is_expired(&error) => error,
        other => return other.map(|verified| (verified, Standing::Valid)),
    };
    let Some(validity) = Validity::of(leaf) else { return Err(refused) };
    let then = UnixTime::since_unix_epoch(Duration::from_secs(validity.not_before_s));
    let verified = believes.verify_client_cert(leaf, others, then)?;
    Ok((verified, Standing::Expired))
}

fn is_expired(error: &Error) -> bool {
    use CertificateError::{Expired, ExpiredContext};
    matches!(error, Error::InvalidCertificate(Expired | ExpiredContext { .. }))
}

impl ClientCertVerifier for Visitors {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.strict.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.verify(leaf, others, now).map(|(verified, _)| verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.strict.verify_tls12_signature(message, leaf, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.strict.verify_tls13_signature(message, leaf, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.strict.supported_verify_schemes()
    }
}
