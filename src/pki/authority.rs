//! A certificate authority: made once, kept for ten years, never silently replaced.

use std::path::{Path, PathBuf};
use std::{fs, io};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair, KeyUsagePurpose};
use time::{Duration, OffsetDateTime};

use super::store::{StoreError, write_private};

/// How long an authority is valid.
const LIFE: Duration = Duration::days(3650);
/// How far back its validity begins: the clock of a machine without a battery may jump by years.
const BACKDATE: Duration = Duration::days(3650);

/// A key that signs, and its certificate.
#[derive(Debug)]
pub struct Authority {
    certificate_pem: String,
    key_pem: String,
}

#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    #[error("cannot read {}", .0.display())]
    Read(PathBuf, #[source] io::Error),
    #[error(
        "{} is there and {} is not: restore it from a backup, or `skiff reset` to begin anew",
        present.display(),
        missing.display()
    )]
    Half { present: PathBuf, missing: PathBuf },
    #[error(
        "{} is damaged: restore it from a backup, or `skiff reset` to begin anew",
        .0.display()
    )]
    Damaged(PathBuf, #[source] rcgen::Error),
    #[error("cannot make a certificate authority")]
    Generate(#[source] rcgen::Error),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Authority {
    /// Reads `<dir>/<name>.crt` and `.key`, or makes them when neither is there.
    pub fn ensure(
        dir: &Path,
        name: &str,
        common_name: &str,
        now: OffsetDateTime,
    ) -> Result<Self, AuthorityError> {
        let certificate = dir.join(format!("{name}.crt"));
        let key = dir.join(format!("{name}.key"));
        match (read(&certificate)?, read(&key)?) {
            (Some(certificate_pem), Some(key_pem)) => {
                let authority = Self { certificate_pem, key_pem };
                authority.issuer().map_err(|e| AuthorityError::Damaged(certificate, e))?;
                Ok(authority)
            }
            (None, None) => {
                let fresh = KeyPair::generate().map_err(AuthorityError::Generate)?;
                let pem = fresh.serialize_pem();
                // The key first: a crash in between loses nothing, see the next case.
                write_private(&key, pem.as_bytes(), 0o600, (0, 0))?;
                Self::certify(&certificate, pem, common_name, now)
            }
            // The same key under a new certificate of the same name vouches for the same leaves.
            (None, Some(key_pem)) => Self::certify(&certificate, key_pem, common_name, now),
            (Some(_), None) => Err(AuthorityError::Half { present: certificate, missing: key }),
        }
    }

    fn certify(
        path: &Path,
        key_pem: String,
        common_name: &str,
        now: OffsetDateTime,
    ) -> Result<Self, AuthorityError> {
        let certificate_pem =
            self_signed(&key_pem, common_name, now).map_err(AuthorityError::Generate)?;
        write_private(path, certificate_pem.as_bytes(), 0o644, (0, 0))?;
        Ok(Self { certificate_pem, key_pem })
    }

    /// The certificate that others trust.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// What signs with its key.
    pub fn issuer(&self) -> Result<rcgen::Issuer<'static, KeyPair>, rcgen::Error> {
        let key = KeyPair::from_pem(&self.key_pem)?;
        rcgen::Issuer::from_ca_cert_pem(&self.certificate_pem, key)
    }
}

fn read(path: &Path) -> Result<Option<String>, AuthorityError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(AuthorityError::Read(path.to_path_buf(), e)),
    }
}

fn self_signed(
    key_pem: &str,
    common_name: &str,
    now: OffsetDateTime,
) -> Result<String, rcgen::Error> {
    let key = KeyPair::from_pem(key_pem)?;
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::CrlSign,
        KeyUsagePurpose::DigitalSignature,
    ];
    params.not_before = now - BACKDATE;
    params.not_after = now + LIFE;
    Ok(params.self_signed(&key)?.pem())
}
