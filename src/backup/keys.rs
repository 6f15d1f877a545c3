//! Whether authorities and keys are whole and belong to each other: an archive without them gives
//! objects back that nobody can read and a cluster that nobody believes. Pure.

use std::collections::BTreeMap;

use microcluster::record::Fingerprint;
use rcgen::{KeyPair, PublicKeyData};
use x509_parser::pem::Pem;

use super::part::PKI;

/// Each certificate with its key.
const AUTHORITIES: [(&str, &str); 2] =
    [("ca.crt", "ca.key"), ("front-proxy-ca.crt", "front-proxy-ca.key")];
const SERVICE_ACCOUNT: (&str, &str) = ("service-account.pub", "service-account.key");
const ENCRYPTION: &str = "encryption.yaml";

/// Why the keys are of no use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    #[error("pki/{0} is missing")]
    Missing(&'static str),
    #[error("pki/{0} is damaged")]
    Damaged(&'static str),
    #[error("pki/{key} is not the key of pki/{of}")]
    Foreign { key: &'static str, of: &'static str },
}

/// Looks at all of them; answers what names the cluster.
pub fn check(parts: &BTreeMap<String, Vec<u8>>) -> Result<String, KeyError> {
    let text = |name: &'static str| {
        let bytes = parts.get(&format!("{PKI}{name}")).ok_or(KeyError::Missing(name))?;
        std::str::from_utf8(bytes).map_err(|_| KeyError::Damaged(name))
    };
    let public_half = |name: &'static str| {
        let key = KeyPair::from_pem(text(name)?).map_err(|_| KeyError::Damaged(name))?;
        Ok(key.subject_public_key_info())
    };
    for (certificate, key) in AUTHORITIES {
        let held = certified(text(certificate)?).ok_or(KeyError::Damaged(certificate))?;
        if !held.contains(&public_half(key)?) {
            return Err(KeyError::Foreign { key, of: certificate });
        }
    }
    let (public, key) = SERVICE_ACCOUNT;
    if !blocks(text(public)?, "PUBLIC KEY").contains(&public_half(key)?) {
        return Err(KeyError::Foreign { key, of: public });
    }
    let encryption: serde_json::Value =
        serde_yaml::from_str(text(ENCRYPTION)?).map_err(|_| KeyError::Damaged(ENCRYPTION))?;
    if encryption["kind"] != "EncryptionConfiguration" || !encryption["resources"].is_array() {
        return Err(KeyError::Damaged(ENCRYPTION));
    }
    let first = blocks(text("ca.crt")?, "CERTIFICATE").into_iter().next();
    let first = first.ok_or(KeyError::Damaged("ca.crt"))?;
    Ok(Fingerprint::of(&first).to_string().chars().take(16).collect())
}

/// The public keys of a bundle's certificates: there are two while an authority is replaced.
fn certified(pem: &str) -> Option<Vec<Vec<u8>>> {
    let key = |der: Vec<u8>| {
        let (_, certificate) = x509_parser::parse_x509_certificate(&der).ok()?;
        Some(certificate.public_key().raw.to_vec())
    };
    let keys: Vec<_> = blocks(pem, "CERTIFICATE").into_iter().map(key).collect::<Option<_>>()?;
    (!keys.is_empty()).then_some(keys)
}

fn blocks(pem: &str, label: &str) -> Vec<Vec<u8>> {
    let blocks = Pem::iter_from_buffer(pem.as_bytes()).filter_map(Result::ok);
    blocks.filter(|block| block.label == label).map(|block| block.contents).collect()
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;
    use crate::node::authorities::Authorities;
    use crate::pki::encryption_config;

    fn parts() -> BTreeMap<String, Vec<u8>> {
        let dir = tempfile::tempdir().unwrap();
        Authorities::ensure(dir.path(), datetime!(2026-11-27 12:00 UTC)).unwrap();
        encryption_config(dir.path()).unwrap();
        let files = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap());
        files
            .map(|file| {
                let name = file.file_name().into_string().unwrap();
                (format!("{PKI}{name}"), std::fs::read(file.path()).unwrap())
            })
            .collect()
    }

    #[test]
    fn keys_that_a_node_makes_fit_and_name_the_cluster() {
        let (parts, others) = (parts(), parts());
        assert_eq!(parts.len(), 7);
        let name = check(&parts).unwrap();
        assert_eq!(name.len(), 16);
        assert_ne!(check(&others).unwrap(), name);
    }

    #[test]
    fn each_file_that_is_missing_damaged_or_of_another_is_named() {
        let (parts, others) = (parts(), parts());
        for name in parts.keys().cloned() {
            let mut without = parts.clone();
            without.remove(&name);
            let error = check(&without).unwrap_err().to_string();
            assert_eq!(error, format!("{name} is missing"));
            let mut damaged = parts.clone();
            damaged.insert(name.clone(), b"rubbish".to_vec());
            assert!(check(&damaged).is_err(), "{name}");
            if name != format!("{PKI}{ENCRYPTION}") {
                let mut mixed = parts.clone();
                mixed.insert(name.clone(), others[&name].clone());
                let error = check(&mixed).unwrap_err();
                assert!(matches!(error, KeyError::Foreign { .. }), "{name}: {error}");
            }
        }
    }
}
