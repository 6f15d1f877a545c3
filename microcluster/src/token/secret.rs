//! A token's secret, and what follows from it.
//!
//! ```text
//!              ┌─> id         public: 8 characters, names the token in lists and messages
//!   secret ────┤
//!              └─> signing key ──> verifier   public: all that the cluster keeps
//! ```
//!
//! The secret never leaves the joiner. It signs what the joiner says, and the cluster checks that
//! with the verifier. A hash of the secret would do for comparing, but then the secret itself would
//! have to travel through the agent, which faces the network and has no privilege: whoever had
//! taken that over could join in the joiner's place, or put its own key where the joiner's stands.
//! Who reads the verifier (in a backup, say) can do nothing with it.

use std::fmt;
use std::str::FromStr;

use data_encoding::{BASE32_NOPAD, BASE64};
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// 128 bits cannot be guessed.
pub const SECRET_BYTES: usize = 16;
const ID_BYTES: usize = 5;

/// Random bytes; whoever makes a token brings them.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret([u8; SECRET_BYTES]);

impl Secret {
    /// From the system's random source, or out of a token.
    pub fn from_bytes(bytes: [u8; SECRET_BYTES]) -> Self {
        Self(bytes)
    }

    /// Only for the token's text.
    pub(super) fn as_bytes(&self) -> &[u8; SECRET_BYTES] {
        &self.0
    }

    /// How the token is called in the open.
    pub fn token_id(&self) -> TokenId {
        let digest = self.derive(b"skiff token id\0");
        let mut id = [0; ID_BYTES];
        id.copy_from_slice(&digest[..ID_BYTES]);
        TokenId(id)
    }

    /// What the cluster keeps.
    pub fn verifier(&self) -> TokenVerifier {
        let mut key = [0; 32];
        key.copy_from_slice(self.key().public_key().as_ref());
        TokenVerifier(key)
    }

    pub(super) fn sign(&self, bytes: &[u8]) -> Vec<u8> {
        self.key().sign(bytes).as_ref().to_vec()
    }

    fn key(&self) -> Ed25519KeyPair {
        let seed = self.derive(b"skiff token key\0");
        Ed25519KeyPair::from_seed_unchecked(&seed).expect("32 bytes are a seed")
    }

    fn derive(&self, what: &[u8]) -> [u8; 32] {
        Sha256::new().chain_update(what).chain_update(self.0).finalize().into()
    }
}

/// Says nothing of the bytes.
impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret(of {})", self.token_id())
    }
}

/// The public name of a token, 8 characters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TokenId([u8; ID_BYTES]);

/// A text that is no id of a token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no id of a token: 8 characters of a-z and 2-7")]
pub struct TokenIdError(String);

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE32_NOPAD.encode(&self.0).to_ascii_lowercase())
    }
}

impl fmt::Debug for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenId({self})")
    }
}

impl FromStr for TokenId {
    type Err = TokenIdError;

    fn from_str(text: &str) -> Result<Self, TokenIdError> {
        let is_lower = !text.chars().any(|c| c.is_ascii_uppercase());
        let upper = text.to_ascii_uppercase();
        let bytes = BASE32_NOPAD.decode(upper.as_bytes()).ok().filter(|_| is_lower);
        let bytes = bytes.and_then(|bytes| <[u8; ID_BYTES]>::try_from(bytes).ok());
        bytes.map(Self).ok_or_else(|| TokenIdError(text.chars().take(20).collect()))
    }
}

impl TryFrom<String> for TokenId {
    type Error = TokenIdError;

    fn try_from(text: String) -> Result<Self, TokenIdError> {
        text.parse()
    }
}

impl From<TokenId> for String {
    fn from(id: TokenId) -> String {
        id.to_string()
    }
}

/// The public half of a token: checks what the secret has signed, and cannot sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TokenVerifier([u8; 32]);

impl TokenVerifier {
    pub(super) fn verify(&self, bytes: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, self.0).verify(bytes, signature).is_ok()
    }
}

impl TryFrom<String> for TokenVerifier {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, &'static str> {
        let bytes = BASE64.decode(text.as_bytes()).ok();
        let bytes = bytes.and_then(|bytes| bytes.try_into().ok());
        bytes.map(Self).ok_or("a token's verifier is 32 bytes in base64")
    }
}

impl From<TokenVerifier> for String {
    fn from(verifier: TokenVerifier) -> String {
        BASE64.encode(&verifier.0)
    }
}
