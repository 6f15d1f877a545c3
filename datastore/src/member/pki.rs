//! Identities for tests: an authority and a member's certificate in one
//! directory, as `--pki` reads them.

use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use time::{Duration, OffsetDateTime};

use super::tls::{AUTHORITY_FILE, CERTIFICATE_FILE, KEY_FILE, MEMBER_NAME};

/// The authority's key; only needed to make further identities.
const AUTHORITY_KEY_FILE: &str = "ca.key";
/// How long test identities are valid.
const LIFE: Duration = Duration::days(3650);
/// How far back their validity begins: clocks differ.
const BACKDATE: Duration = Duration::days(1);

/// Why no identity was made.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    #[error("can't write {path}")]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{path} is there already: name an empty directory, or keep using this one")]
    Exists { path: PathBuf },
    #[error("can't make a certificate")]
    Generate(#[from] rcgen::Error),
}

/// Makes `ca.crt`, `ca.key`, `member.crt` and `member.key` in `dir`.
pub fn make(dir: &Path) -> Result<(), PkiError> {
    let failed = |source| PkiError::Write { path: dir.to_owned(), source };
    std::fs::create_dir_all(dir).map_err(failed)?;
    let now = OffsetDateTime::now_utc();
    let authority_key = KeyPair::generate()?;
    let mut authority = parameters("skiff datastore test authority", now)?;
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let certificate = authority.self_signed(&authority_key)?;
    let member_key = KeyPair::generate()?;
    let mut member = parameters("skiff datastore member", now)?;
    member.subject_alt_names = vec![rcgen::SanType::DnsName(MEMBER_NAME.try_into()?)];
    member.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    member.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let issuer = Issuer::from_params(&authority, &authority_key);
    let leaf = member.signed_by(&member_key, &issuer)?;
    write(&dir.join(AUTHORITY_FILE), &certificate.pem(), 0o644)?;
    write(&dir.join(AUTHORITY_KEY_FILE), &authority_key.serialize_pem(), 0o600)?;
    write(&dir.join(CERTIFICATE_FILE), &leaf.pem(), 0o644)?;
    write(&dir.join(KEY_FILE), &member_key.serialize_pem(), 0o600)
}

fn parameters(name: &str, now: OffsetDateTime) -> Result<CertificateParams, rcgen::Error> {
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name = rcgen::DistinguishedName::new();
    parameters.distinguished_name.push(DnType::CommonName, name);
    parameters.not_before = now - BACKDATE;
    parameters.not_after = now + LIFE;
    Ok(parameters)
}

/// Never replaces a file: somebody may trust what is there.
fn write(path: &Path, content: &str, mode: u32) -> Result<(), PkiError> {
    let opened = std::fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    let mut file = opened.map_err(|source| match source.kind() {
        io::ErrorKind::AlreadyExists => PkiError::Exists { path: path.to_owned() },
        _ => PkiError::Write { path: path.to_owned(), source },
    })?;
    io::Write::write_all(&mut file, content.as_bytes())
        .map_err(|source| PkiError::Write { path: path.to_owned(), source })
}
