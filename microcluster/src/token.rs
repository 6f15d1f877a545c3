//! What a machine joins with: one line of text that a person carries from a member to it.
//!
//! ```text
//! skiff1.  base64url( checksum 4 | length 2 | authority 32 | secret 16 | count 1 | addresses )
//!                                                       address: 4 | 4 bytes      | port 2
//!                                                                6 | 16 bytes     | port 2
//!                                                                n | length, name | port 2
//! ```
//!
//! The length tells a token that was cut from one that was mistyped. The checksum (CRC-32) covers
//! all that follows it, and finds every change of one character and any run of five.

mod proof;
mod record;
mod secret;

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use data_encoding::BASE64URL_NOPAD;

pub use proof::{ProofError, Proven, Statement};
pub use record::{
    ATTEMPTS_PER_USE, TOKEN_TTL_MAX, TOKEN_TTL_MIN, TOKEN_USES_MAX, TokenRecord, TokenState,
};
pub use secret::{SECRET_BYTES, Secret, TokenId, TokenIdError, TokenVerifier};

use crate::endpoint::{Endpoint, EndpointError, Host};
use crate::record::Fingerprint;

/// What a token of this form begins with.
const PREFIX: &str = "skiff1.";
/// What tokens of every form begin with.
const PREFIX_ANY: &str = "skiff";
/// Addresses that a token carries: one member has a few, and one living member is enough.
pub const TOKEN_ADDRESSES_MAX: usize = 16;
/// Sixteen names of the greatest length would be this long; more is no token.
const TEXT_LENGTH_MAX: usize = 6000;
const CHECKSUM_BYTES: usize = 4;
const LENGTH_BYTES: usize = 2;

/// A token as it is printed and typed. Its text is a secret until it has been used.
///
/// ```
/// use microcluster::record::Fingerprint;
/// use microcluster::token::{JoinToken, Secret, TokenError};
///
/// let addresses = vec!["10.0.0.5:7443".parse().unwrap(), "[fd00::5]:7443".parse().unwrap()];
/// let authority = Fingerprint::of(b"the certificate's DER");
/// let token = JoinToken::new(addresses, authority, Secret::from_bytes([7; 16])).unwrap();
///
/// let text = token.to_string();
/// assert!(text.starts_with("skiff1."));
/// assert_eq!(text.parse(), Ok(token));
/// let cut = text[..text.len() - 8].parse::<JoinToken>();
/// assert_eq!(cut, Err(TokenError::Cut { missing: 6 }));
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    addresses: Vec<Endpoint>,
    authority: Fingerprint,
    secret: Secret,
}

/// Why a text is no token. Told before anything is dialled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    #[error("the token is empty")]
    Empty,
    #[error("this is no token: a token begins with \"{PREFIX}\"")]
    NoToken,
    #[error(
        "the token is of form {found:?}, this version knows \"{PREFIX}\": another Skiff made it"
    )]
    AnotherForm { found: String },
    #[error("the token is cut: its end is missing ({missing} bytes)")]
    Cut { missing: usize },
    #[error("the token is too long: something stands behind its end")]
    TooLong,
    #[error("the token is mistyped: {character:?} at position {position} cannot be in one")]
    Character { character: char, position: usize },
    #[error("the token is mistyped: its checksum is wrong")]
    Checksum,
    #[error("the token has no address of a member")]
    NoAddress,
    #[error("the token has {count} addresses, and {TOKEN_ADDRESSES_MAX} are possible")]
    Addresses { count: usize },
    #[error("the token has an address that cannot be used")]
    Address(#[source] EndpointError),
    #[error("the token's inside makes no sense, though its checksum is right")]
    Inside,
}

impl JoinToken {
    /// Puts one together; at least one address.
    pub fn new(
        addresses: Vec<Endpoint>,
        authority: Fingerprint,
        secret: Secret,
    ) -> Result<Self, TokenError> {
        match addresses.len() {
            0 => Err(TokenError::NoAddress),
            1..=TOKEN_ADDRESSES_MAX => Ok(Self { addresses, authority, secret }),
            count => Err(TokenError::Addresses { count }),
        }
    }

    /// Where control-plane members are reached; all are tried.
    pub fn addresses(&self) -> &[Endpoint] {
        &self.addresses
    }

    /// What the chain of whoever answers there must end in.
    pub fn authority(&self) -> &Fingerprint {
        &self.authority
    }

    /// What proves that its bearer may join.
    pub fn secret(&self) -> &Secret {
        &self.secret
    }

    /// How the cluster calls it, in the open.
    pub fn id(&self) -> TokenId {
        self.secret.token_id()
    }

    fn body(&self) -> Vec<u8> {
        let mut body = Vec::new();
        body.extend_from_slice(self.authority.as_bytes());
        body.extend_from_slice(self.secret.as_bytes());
        body.push(self.addresses.len() as u8);
        for address in &self.addresses {
            match address.host() {
                Host::Address(IpAddr::V4(four)) => {
                    body.push(b'4');
                    body.extend_from_slice(&four.octets());
                }
                Host::Address(IpAddr::V6(six)) => {
                    body.push(b'6');
                    body.extend_from_slice(&six.octets());
                }
                Host::Name(name) => {
                    body.extend_from_slice(&[b'n', name.len() as u8]);
                    body.extend_from_slice(name.as_bytes());
                }
            }
            body.extend_from_slice(&address.port().to_be_bytes());
        }
        body
    }
}

/// The text, secret included: it is made to be shown once.
impl fmt::Display for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let body = self.body();
        let mut rest = (body.len() as u16).to_be_bytes().to_vec();
        rest.extend_from_slice(&body);
        let mut bytes = crc32fast::hash(&rest).to_be_bytes().to_vec();
        bytes.extend_from_slice(&rest);
        write!(f, "{PREFIX}{}", BASE64URL_NOPAD.encode(&bytes))
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinToken")
            .field("id", &self.id())
            .field("addresses", &self.addresses)
            .field("authority", &self.authority)
            .finish_non_exhaustive()
    }
}

impl FromStr for JoinToken {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let text = text.trim();
        let encoded = strip_prefix(text)?;
        if encoded.len() > TEXT_LENGTH_MAX {
            return Err(TokenError::TooLong);
        }
        check_length(encoded)?;
        // What can be wrong now are bits behind the last byte that are not zero.
        let bytes = BASE64URL_NOPAD.decode(encoded.as_bytes()).map_err(|_| TokenError::Checksum)?;
        let (checksum, rest) =
            bytes.split_first_chunk::<CHECKSUM_BYTES>().ok_or(TokenError::Inside)?;
        if crc32fast::hash(rest).to_be_bytes() != *checksum {
            return Err(TokenError::Checksum);
        }
        let body = rest.get(LENGTH_BYTES..).ok_or(TokenError::Inside)?;
        read_body(body)
    }
}

fn strip_prefix(text: &str) -> Result<&str, TokenError> {
    if text.is_empty() {
        return Err(TokenError::Empty);
    }
    if let Some(encoded) = text.strip_prefix(PREFIX) {
        return Ok(encoded);
    }
    let form = text.split_once('.').map(|(form, _)| form).unwrap_or_default();
    let number = form.strip_prefix(PREFIX_ANY).unwrap_or_default();
    if (1..=3).contains(&number.len()) && number.chars().all(|c| c.is_ascii_digit()) {
        return Err(TokenError::AnotherForm { found: form.to_owned() });
    }
    // Somebody who copies too little copies the beginning.
    if PREFIX.starts_with(text) {
        return Err(TokenError::Cut { missing: CHECKSUM_BYTES + LENGTH_BYTES });
    }
    Err(TokenError::NoToken)
}

/// Whether all of it is there, by the length that stands at its beginning.
fn check_length(encoded: &str) -> Result<(), TokenError> {
    let is_known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if let Some((at, character)) = encoded.chars().enumerate().find(|(_, c)| !is_known(*c)) {
        let position = PREFIX.len() + at + 1;
        return Err(TokenError::Character { character, position });
    }
    // Four characters are three bytes.
    let present = encoded.len() * 3 / 4;
    let head = CHECKSUM_BYTES + LENGTH_BYTES;
    let begin = encoded
        .get(..head * 4 / 3)
        .ok_or_else(|| TokenError::Cut { missing: head.saturating_sub(present) })?;
    let begin = BASE64URL_NOPAD.decode(begin.as_bytes()).map_err(|_| TokenError::Checksum)?;
    let length = begin.last_chunk::<LENGTH_BYTES>().ok_or(TokenError::Inside)?;
    let stated = head + usize::from(u16::from_be_bytes(*length));
    if present < stated {
        return Err(TokenError::Cut { missing: stated - present });
    }
    match encoded.len() == (stated * 4).div_ceil(3) {
        true => Ok(()),
        false => Err(TokenError::TooLong),
    }
}

/// What is left to read.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], TokenError> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(TokenError::Inside)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], TokenError> {
        self.take(N)?.try_into().map_err(|_| TokenError::Inside)
    }

    fn byte(&mut self) -> Result<u8, TokenError> {
        Ok(self.array::<1>()?[0])
    }
}

fn read_body(body: &[u8]) -> Result<JoinToken, TokenError> {
    let mut rest = Rest(body);
    let authority = Fingerprint::from_bytes(rest.array()?);
    let secret = Secret::from_bytes(rest.array::<SECRET_BYTES>()?);
    let count = rest.byte()?;
    let mut addresses = Vec::new();
    for _ in 0..count {
        let host = match rest.byte()? {
            b'4' => Host::Address(IpAddr::from(rest.array::<4>()?)),
            b'6' => Host::Address(IpAddr::from(rest.array::<16>()?)),
            b'n' => {
                let length = usize::from(rest.byte()?);
                let name = std::str::from_utf8(rest.take(length)?);
                Host::Name(name.map_err(|_| TokenError::Inside)?.to_owned())
            }
            _ => return Err(TokenError::Inside),
        };
        let port = u16::from_be_bytes(rest.array()?);
        addresses.push(Endpoint::new(host, port).map_err(TokenError::Address)?);
    }
    if !rest.0.is_empty() {
        return Err(TokenError::Inside);
    }
    JoinToken::new(addresses, authority, secret)
}

#[cfg(test)]
#[path = "token_test.rs"]
mod tests;
