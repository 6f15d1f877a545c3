//! Statements that a token's secret has signed.
//!
//! What is signed is the very text that is then read, so there is nothing to agree on but bytes.
//! With it are signed what kind of statement it is and the cluster's authority: a statement made
//! for one request or one cluster is none for another.

use data_encoding::BASE64;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{JoinToken, TokenId, TokenRecord};
use crate::record::Fingerprint;

/// What can be stated with a token.
pub trait Statement: Serialize + DeserializeOwned {
    /// Tells one kind from another.
    const KIND: &'static str;
}

/// A statement with its proof.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proven {
    /// Whose secret signed it.
    pub token: TokenId,
    /// JSON, as it was signed.
    pub statement: String,
    /// base64 of the signature.
    pub proof: String,
}

/// Why a statement is not believed.
#[derive(Debug, thiserror::Error)]
pub enum ProofError {
    #[error("it was not signed with the token's secret, or changed on its way")]
    Wrong,
    #[error("it was signed, but cannot be read")]
    Unreadable(#[source] serde_json::Error),
}

impl Proven {
    /// States something as the bearer of a token.
    pub fn state<S: Statement>(
        token: &JoinToken,
        statement: &S,
    ) -> Result<Self, serde_json::Error> {
        let statement = serde_json::to_string(statement)?;
        let proof = token.secret().sign(&signed::<S>(token.authority(), &statement));
        Ok(Self { token: token.id(), statement, proof: BASE64.encode(&proof) })
    }

    /// Reads what the bearer of this token has stated.
    pub fn open<S: Statement>(&self, token: &TokenRecord) -> Result<S, ProofError> {
        let proof = BASE64.decode(self.proof.as_bytes()).map_err(|_| ProofError::Wrong)?;
        let bytes = signed::<S>(&token.authority, &self.statement);
        if token.id != self.token || !token.verifier.verify(&bytes, &proof) {
            return Err(ProofError::Wrong);
        }
        serde_json::from_str(&self.statement).map_err(ProofError::Unreadable)
    }
}

fn signed<S: Statement>(authority: &Fingerprint, statement: &str) -> Vec<u8> {
    let mut bytes = b"skiff-cluster/1\0".to_vec();
    bytes.extend_from_slice(S::KIND.as_bytes());
    bytes.push(0);
    bytes.extend_from_slice(authority.as_bytes());
    bytes.extend_from_slice(statement.as_bytes());
    bytes
}
