//! A certificate authority: made once, kept for ten years, never silently replaced.

use std::path::{Path, PathBuf};
use std::{fs, io};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, PublicKeyData, SubjectPublicKeyInfo,
};
use time::{Duration, OffsetDateTime};
use x509_parser::pem::Pem;

use super::leaf::common_name;
use super::store::{StoreError, write_private};

/// How long an authority is valid.
const LIFE: Duration = Duration::days(3650);
/// How far back its validity begins: the clock of a machine without a battery may jump by years.
const BACKDATE: Duration = Duration::days(3650);

/// A key that signs, and its certificate.
#[derive(Clone)]
pub struct Authority {
    certificate_pem: String,
    key_pem: String,
}

/// Without the key.
impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").field("certificate_pem", &self.certificate_pem).finish()
    }
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
    #[error("the key of {0} is not here")]
    Keyless(&'static str),
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

    /// One that nobody has seen yet.
    pub fn fresh(common_name: &str, now: OffsetDateTime) -> Result<Self, AuthorityError> {
        let key = KeyPair::generate().map_err(AuthorityError::Generate)?;
        let key_pem = key.serialize_pem();
        let certificate_pem =
            self_signed(&key_pem, common_name, now).map_err(AuthorityError::Generate)?;
        Ok(Self { certificate_pem, key_pem })
    }

    /// The two, when they belong together.
    pub fn of(certificate_pem: &str, key_pem: &str) -> Option<Self> {
        let key = KeyPair::from_pem(key_pem).ok()?;
        let certified = public_key(certificate_pem)?;
        (certified == key.subject_public_key_info()).then(|| Self {
            certificate_pem: certificate_pem.to_owned(),
            key_pem: key_pem.to_owned(),
        })
    }

    /// The certificate that others trust.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// What signs, for whoever may have it.
    pub fn key_pem(&self) -> &str {
        &self.key_pem
    }

    /// This one's name and key as `other` vouches for them: a chain for whoever believes only
    /// `other`. It is good for servers alone, so that it makes no client's certificate believed.
    pub fn crossed(
        &self,
        other: &Self,
        now: OffsetDateTime,
        life: Duration,
    ) -> Result<String, AuthorityError> {
        let key = KeyPair::from_pem(&self.key_pem).map_err(AuthorityError::Generate)?;
        let key = SubjectPublicKeyInfo::from_der(&key.subject_public_key_info());
        let mut params = params(&common_name(&self.certificate_pem).unwrap_or_default());
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        params.not_before = now - BACKDATE;
        params.not_after = now + life;
        let signed = |key: &SubjectPublicKeyInfo| params.signed_by(key, &other.issuer()?);
        let crossed = key.and_then(|key| signed(&key)).map_err(AuthorityError::Generate)?;
        Ok(crossed.pem())
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
    let mut params = params(common_name);
    params.not_before = now - BACKDATE;
    params.not_after = now + LIFE;
    Ok(params.self_signed(&key)?.pem())
}

fn params(common_name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::CrlSign,
        KeyUsagePurpose::DigitalSignature,
    ];
    params
}

/// Of the first certificate.
fn public_key(certificate_pem: &str) -> Option<Vec<u8>> {
    let blocks = Pem::iter_from_buffer(certificate_pem.as_bytes()).filter_map(Result::ok);
    let block = blocks.into_iter().find(|block| block.label == "CERTIFICATE")?;
    Some(block.parse_x509().ok()?.public_key().raw.to_vec())
}
