//! Who asks: what the agent verified, and tells skiffd in headers of its own.

use std::net::SocketAddr;

use data_encoding::BASE64;
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::tls::Standing;

/// From where.
pub const ADDRESS: HeaderName = HeaderName::from_static("skiff-caller-address");
/// The certificate that was shown and verified: base64 of DER.
pub const CERTIFICATE: HeaderName = HeaderName::from_static("skiff-caller-certificate");
/// The same when it has expired. It has a name of its own: whoever does not know of this takes
/// the caller for a stranger.
pub const EXPIRED: HeaderName = HeaderName::from_static("skiff-caller-expired-certificate");
/// The same when it ends in a former authority.
pub const FORMER: HeaderName = HeaderName::from_static("skiff-caller-former-certificate");

/// Why headers do not tell who asks.
#[derive(Debug, thiserror::Error)]
pub enum CallerError {
    #[error("the request has no {0}")]
    Missing(HeaderName),
    #[error("the request has {0} more than once, or together with another")]
    Repeated(HeaderName),
    #[error("the request's {0} can't be read")]
    Unreadable(HeaderName),
}

/// Somebody at the port between nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    pub address: SocketAddr,
    pub certificate: Option<ShownCertificate>,
}

/// A certificate of the authority, whose key the caller has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShownCertificate {
    pub der: Vec<u8>,
    pub standing: Standing,
}

impl Caller {
    /// Whether it showed a certificate that is valid now.
    pub fn is_known(&self) -> bool {
        self.certificate.as_ref().is_some_and(|shown| shown.standing == Standing::Valid)
    }

    /// As headers; others of these names go.
    pub fn write(&self, headers: &mut HeaderMap) {
        for name in [ADDRESS, CERTIFICATE, EXPIRED, FORMER] {
            headers.remove(name);
        }
        let value = |text: String| {
            HeaderValue::try_from(text).expect("addresses and base64 are visible ASCII")
        };
        headers.insert(ADDRESS, value(self.address.to_string()));
        if let Some(shown) = &self.certificate {
            let name = match shown.standing {
                Standing::Valid => CERTIFICATE,
                Standing::Expired => EXPIRED,
                Standing::Former => FORMER,
            };
            headers.insert(name, value(BASE64.encode(&shown.der)));
        }
    }

    /// From headers that the agent wrote.
    pub fn read(headers: &HeaderMap) -> Result<Caller, CallerError> {
        let address = single(headers, ADDRESS)?.ok_or(CallerError::Missing(ADDRESS))?;
        let address = address.parse().map_err(|_| CallerError::Unreadable(ADDRESS))?;
        let mut certificate = None;
        for (name, standing) in [
            (CERTIFICATE, Standing::Valid),
            (EXPIRED, Standing::Expired),
            (FORMER, Standing::Former),
        ] {
            let Some(text) = single(headers, name.clone())? else { continue };
            let der = BASE64.decode(text.as_bytes());
            let der = der.map_err(|_| CallerError::Unreadable(name.clone()))?;
            if certificate.replace(ShownCertificate { der, standing }).is_some() {
                return Err(CallerError::Repeated(name));
            }
        }
        Ok(Caller { address, certificate })
    }
}

fn single(headers: &HeaderMap, name: HeaderName) -> Result<Option<&str>, CallerError> {
    let mut values = headers.get_all(&name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(CallerError::Repeated(name));
    }
    value.to_str().map(Some).map_err(|_| CallerError::Unreadable(name))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn caller(standing: Option<Standing>) -> Caller {
        let certificate =
            standing.map(|standing| ShownCertificate { der: vec![0, 1, 255], standing });
        Caller { address: "[2001:db8::1]:7".parse().unwrap(), certificate }
    }

    #[test]
    fn callers_come_back_as_they_were() {
        let standings = [Standing::Valid, Standing::Expired, Standing::Former].map(Some);
        for standing in standings.into_iter().chain([None]) {
            let mut headers = HeaderMap::new();
            caller(standing).write(&mut headers);
            assert_eq!(Caller::read(&headers).unwrap(), caller(standing));
        }
    }

    #[test]
    fn what_was_there_before_is_gone() {
        let mut headers = HeaderMap::new();
        caller(Some(Standing::Valid)).write(&mut headers);
        caller(None).write(&mut headers);
        assert_eq!(Caller::read(&headers).unwrap(), caller(None));
    }

    #[test]
    fn two_answers_are_none() {
        let mut headers = HeaderMap::new();
        assert!(matches!(Caller::read(&headers), Err(CallerError::Missing(_))));
        caller(Some(Standing::Valid)).write(&mut headers);
        headers.append(CERTIFICATE, HeaderValue::from_static("AAAA"));
        assert!(matches!(Caller::read(&headers), Err(CallerError::Repeated(_))));
        headers.insert(CERTIFICATE, HeaderValue::from_static("?"));
        assert!(matches!(Caller::read(&headers), Err(CallerError::Unreadable(_))));
    }

    proptest! {
        #[test]
        fn no_headers_make_it_panic(
            all in prop::collection::vec((0_usize..4, "[ -~]{0,90}"), 0..5),
        ) {
            let mut headers = HeaderMap::new();
            for (name, value) in &all {
                let name = [ADDRESS, CERTIFICATE, EXPIRED, FORMER][*name].clone();
                headers.append(name, HeaderValue::from_str(value).unwrap());
            }
            if let Ok(caller) = Caller::read(&headers) {
                // Whoever is believed said it once.
                prop_assert!(all.len() <= 2);
                let mut again = HeaderMap::new();
                caller.write(&mut again);
                prop_assert_eq!(Caller::read(&again).unwrap(), caller);
            }
        }

        #[test]
        fn every_caller_comes_back(four: [u8; 4], port: u16, der: Vec<u8>, expired: bool) {
            let standing = if expired { Standing::Expired } else { Standing::Valid };
            let certificate = Some(ShownCertificate { der, standing });
            let caller = Caller { address: (four, port).into(), certificate };
            let mut headers = HeaderMap::new();
            caller.write(&mut headers);
            prop_assert_eq!(Caller::read(&headers).unwrap(), caller);
        }
    }
}
