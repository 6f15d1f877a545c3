//! Secrets that are not certificates: the key of service-account tokens and the key under which
//! Kubernetes Secrets are stored.

use std::path::Path;
use std::{fs, io};

use rcgen::{KeyPair, PublicKeyData};

use super::authority::AuthorityError;
use super::store::write_private;

/// The pair that signs service-account tokens (ES256), `<dir>/service-account.key` and `.pub`.
/// Answers the private key.
pub fn service_account_key(dir: &Path) -> Result<KeyPair, AuthorityError> {
    let path = dir.join("service-account.key");
    let key = match read(&path)? {
        Some(pem) => KeyPair::from_pem(&pem).map_err(|e| AuthorityError::Damaged(path, e))?,
        None => {
            let key = KeyPair::generate().map_err(AuthorityError::Generate)?;
            write_private(&path, key.serialize_pem().as_bytes(), 0o600, (0, 0))?;
            key
        }
    };
    let public = service_account_public(&key);
    write_private(&dir.join("service-account.pub"), public.as_bytes(), 0o644, (0, 0))?;
    Ok(key)
}

/// The half that API servers verify with.
pub fn service_account_public(key: &KeyPair) -> String {
    pem("PUBLIC KEY", &key.subject_public_key_info())
}

/// The API server's EncryptionConfiguration, made once: Secrets are never stored in the clear.
pub fn encryption_config(dir: &Path) -> Result<String, AuthorityError> {
    let path = dir.join("encryption.yaml");
    if let Some(text) = read(&path)? {
        return Ok(text);
    }
    // A fresh P-256 private key is 32 bytes from the system's random source.
    let key = KeyPair::generate().map_err(AuthorityError::Generate)?;
    use sha2::{Digest, Sha256};
    let secret = base64(&Sha256::digest(key.serialize_der()));
    let text = format!(
        "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n\
         - resources: [secrets]\n  providers:\n  - secretbox:\n      keys:\n      - name: key1\n\
         \x20       secret: {secret}\n  - identity: {{}}\n"
    );
    write_private(&path, text.as_bytes(), 0o600, (0, 0))?;
    Ok(text)
}

fn read(path: &Path) -> Result<Option<String>, AuthorityError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(AuthorityError::Read(path.to_path_buf(), e)),
    }
}

fn pem(label: &str, der: &[u8]) -> String {
    let body = base64(der);
    let lines: Vec<&str> =
        body.as_bytes().chunks(64).map(|c| std::str::from_utf8(c).unwrap_or_default()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

/// RFC 4648 with padding.
pub fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let word = (u32::from(chunk[0]) << 16)
            | (u32::from(chunk.get(1).copied().unwrap_or(0)) << 8)
            | u32::from(chunk.get(2).copied().unwrap_or(0));
        for (i, shift) in [18, 12, 6, 0].into_iter().enumerate() {
            let symbol = ALPHABET[(word >> shift) as usize & 63];
            out.push(if i <= chunk.len() { symbol as char } else { '=' });
        }
    }
    out
}
