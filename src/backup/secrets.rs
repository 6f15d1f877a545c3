//! Whether Secrets open with the keys beside them: an archive with the wrong ones would give a
//! cluster back that cannot read its own passwords.
//!
//! Kubernetes stores them by NaCl's secretbox. Here only the seal is compared; nothing is read.
//!
//! ```text
//!   k8s:enc:secretbox:v1:NAME:  nonce 24 | seal 16 | what is sealed
//! ```

use std::collections::BTreeMap;
use std::io::Read;

use poly1305::Poly1305;
use poly1305::universal_hash::KeyInit;
use salsa20::XSalsa20;
use salsa20::cipher::{KeyIvInit, StreamCipher};
use serde::Deserialize;
use skiff_datastore::batch::Entry;
use skiff_datastore::snapshot::{self, SnapshotError};

const SECRETS: &[u8] = b"/registry/secrets/";
const SECRETBOX: &[u8] = b"k8s:enc:secretbox:v1:";
const NONCE_BYTES: usize = 24;
const SEAL_BYTES: usize = 16;

/// Why Secrets could not be read.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    #[error("pki/encryption.yaml is damaged")]
    Keys,
    #[error("the Secret {name} does not open with the keys of pki/encryption.yaml")]
    Sealed { name: String },
}

/// Tries every Secret of a snapshot; answers how many there are.
pub fn check(snapshot: impl Read, encryption: &[u8]) -> Result<u64, SecretError> {
    let keys = keys(encryption)?;
    let (mut count, mut sealed) = (0, None);
    snapshot::read(snapshot, |entry| {
        let Entry::Changes(records) = entry else { return };
        for record in records.iter().filter(|record| record.key.starts_with(SECRETS)) {
            count += 1;
            if sealed.is_none() && !opens(&record.value, &keys) {
                let name = &record.key[SECRETS.len()..];
                sealed = Some(String::from_utf8_lossy(name).into_owned());
            }
        }
    })?;
    match sealed {
        None => Ok(count),
        Some(name) => Err(SecretError::Sealed { name }),
    }
}

type Key = [u8; 32];

/// The keys of the configuration, by their names.
fn keys(encryption: &[u8]) -> Result<BTreeMap<String, Key>, SecretError> {
    #[derive(Deserialize)]
    struct Configuration {
        resources: Vec<Resource>,
    }
    #[derive(Deserialize)]
    struct Resource {
        providers: Vec<Provider>,
    }
    #[derive(Deserialize)]
    struct Provider {
        secretbox: Option<Secretbox>,
    }
    #[derive(Deserialize)]
    struct Secretbox {
        keys: Vec<Named>,
    }
    #[derive(Deserialize)]
    struct Named {
        name: String,
        secret: String,
    }
    let damaged = |_| SecretError::Keys;
    let configuration: Configuration = serde_yaml::from_slice(encryption).map_err(damaged)?;
    let providers = configuration.resources.into_iter().flat_map(|resource| resource.providers);
    let named = providers.filter_map(|provider| provider.secretbox).flat_map(|boxed| boxed.keys);
    let key = |named: Named| {
        let bytes = data_encoding::BASE64.decode(named.secret.as_bytes()).ok()?;
        Some((named.name, bytes.try_into().ok()?))
    };
    named.map(key).collect::<Option<_>>().ok_or(SecretError::Keys)
}

/// What is stored in the clear, or by other means than ours, is not judged.
fn opens(value: &[u8], keys: &BTreeMap<String, Key>) -> bool {
    let Some(rest) = value.strip_prefix(SECRETBOX) else { return true };
    let Some(end) = rest.iter().position(|byte| *byte == b':') else { return false };
    let name = String::from_utf8_lossy(&rest[..end]);
    keys.get(&*name).is_some_and(|key| is_sealed_by(&rest[end + 1..], key))
}

fn is_sealed_by(sealed: &[u8], key: &Key) -> bool {
    if sealed.len() < NONCE_BYTES + SEAL_BYTES {
        return false;
    }
    let (nonce, rest) = sealed.split_at(NONCE_BYTES);
    let (seal, content) = rest.split_at(SEAL_BYTES);
    // The first bytes of the stream are the key of the seal.
    let mut first = [0; 32];
    XSalsa20::new(key.into(), nonce.into()).apply_keystream(&mut first);
    Poly1305::new((&first).into()).compute_unpadded(content)[..] == *seal
}

#[cfg(test)]
mod tests {
    use data_encoding::HEXLOWER;

    use super::*;

    /// NaCl's own vector.
    const KEY: &str = "1b27556473e985d462cd51197a9a46c76009549eac6474f206c4ee0844f68389";
    const SEALED: &str = "69696ee955b62b73cd62bda875fc73d68219e0036b7a0b37\
        f3ffc7703f9400e52a7dfb4b3d3305d9\
        8e993b9f48681273c29650ba32fc76ce48332ea7164d96a4476fb8c531a1186a\
        c0dfc17c98dce87b4da7f011ec48c97271d2c20f9b928fe2270d6fb863d51738\
        b48eeee314a7cc8ab932164548e526ae90224368517acfeabd6bb3732bc0e9da\
        99832b61ca01b6de56244a9e88d5f9b37973f622a43d14a6599b1f654cb45a74e355a5";

    fn configuration(name: &str) -> String {
        let secret = data_encoding::BASE64.encode(&HEXLOWER.decode(KEY.as_bytes()).unwrap());
        format!(
            "kind: EncryptionConfiguration\nresources:\n- resources: [secrets]\n  providers:\n  \
             - secretbox: {{keys: [{{name: {name}, secret: {secret}}}]}}\n  - identity: {{}}\n"
        )
    }

    fn value(name: &str) -> Vec<u8> {
        let sealed = HEXLOWER.decode(SEALED.as_bytes()).unwrap();
        [SECRETBOX, name.as_bytes(), b":", &sealed].concat()
    }

    #[test]
    fn a_secret_opens_with_its_own_key_alone() {
        let right = keys(configuration("key1").as_bytes()).unwrap();
        assert!(opens(&value("key1"), &right));
        assert!(opens(b"in the clear", &right));
        assert!(!opens(&value("key2"), &right));
        let mut wrong = right.clone();
        wrong.get_mut("key1").unwrap()[0] ^= 1;
        assert!(!opens(&value("key1"), &wrong));
        for at in SECRETBOX.len() + 5..value("key1").len() {
            let mut changed = value("key1");
            changed[at] ^= 1;
            assert!(!opens(&changed, &right), "byte {at}");
        }
        assert!(!opens(&value("key1")[..40], &right));
    }

    #[test]
    fn keys_that_are_none_are_told() {
        for text in [
            "",
            "resources: 7",
            "resources: [{providers: [{secretbox: {keys: [{name: a, secret: b}]}}]}]",
        ] {
            assert!(matches!(keys(text.as_bytes()), Err(SecretError::Keys)), "{text}");
        }
    }
}
