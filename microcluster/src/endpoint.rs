//! Where a member is reached: `10.0.0.5:7443`, `[fd00::5]:7443`, `alpha.example:7443`.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A name is no longer (RFC 1035).
const HOST_LENGTH_MAX: usize = 253;
/// Nor is a part of one between dots.
const PART_LENGTH_MAX: usize = 63;

/// An address or a name, and a port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Endpoint {
    host: Host,
    port: u16,
}

/// The part before the port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Host {
    Address(IpAddr),
    /// Resolved when it is dialled, so it may move.
    Name(String),
}

/// Why a text is no place to reach a member at.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    #[error("{0:?} has no port: write it like 10.0.0.5:7443, [fd00::5]:7443 or alpha.example:7443")]
    NoPort(String),
    #[error("{0:?} has no port from 1 to 65535 behind its last colon")]
    Port(String),
    #[error("{0:?} is an IPv6 address without brackets: write it like [fd00::5]:7443")]
    Brackets(String),
    #[error("{0:?} is neither an address nor a name")]
    Host(String),
    #[error("{0} cannot be reached from another machine")]
    Unreachable(IpAddr),
}

impl Endpoint {
    /// Puts one together.
    pub fn new(host: Host, port: u16) -> Result<Self, EndpointError> {
        match &host {
            Host::Address(address) if !is_reachable(*address) => {
                return Err(EndpointError::Unreachable(*address));
            }
            Host::Name(name) if !is_host_name(name) => {
                return Err(EndpointError::Host(shown(name)));
            }
            _ if port == 0 => return Err(EndpointError::Port(":0".into())),
            _ => {}
        }
        Ok(Self { host, port })
    }

    pub fn host(&self) -> &Host {
        &self.host
    }

    pub fn port(&self) -> u16 {
        self.port
    }
}

/// Whether others can reach a node there: not loopback, not everybody, not "any"; and IPv6's
/// link-local addresses mean nothing without an interface, which is another one elsewhere.
pub fn is_reachable(address: IpAddr) -> bool {
    let special = match address {
        IpAddr::V4(four) => four.is_broadcast() || four.octets()[0] == 0,
        IpAddr::V6(six) => six.is_unicast_link_local() || six.to_ipv4_mapped().is_some(),
    };
    !(special || address.is_loopback() || address.is_unspecified() || address.is_multicast())
}

fn is_host_name(name: &str) -> bool {
    let known = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let part = |part: &str| {
        (1..=PART_LENGTH_MAX).contains(&part.len())
            && part.chars().all(known)
            && !part.starts_with('-')
            && !part.ends_with('-')
    };
    // A name whose last part is a number is a mistyped address (RFC 1123 2.1).
    let last = name.rsplit('.').next().unwrap_or_default();
    let is_number = last.chars().all(|c| c.is_ascii_digit());
    name.len() <= HOST_LENGTH_MAX && name.split('.').all(part) && !is_number
}

/// What a mistake shows of the text.
fn shown(text: &str) -> String {
    text.chars().take(80).collect()
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Address(IpAddr::V6(six)) => write!(f, "[{six}]:{}", self.port),
            Host::Address(IpAddr::V4(four)) => write!(f, "{four}:{}", self.port),
            Host::Name(name) => write!(f, "{name}:{}", self.port),
        }
    }
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        if text.parse::<Ipv6Addr>().is_ok() {
            return Err(EndpointError::Brackets(shown(text)));
        }
        let no_port = || EndpointError::NoPort(shown(text));
        let (host, port) = text.rsplit_once(':').ok_or_else(no_port)?;
        if host.starts_with('[') && !host.ends_with(']') {
            return Err(no_port());
        }
        let digits = port.chars().all(|c| c.is_ascii_digit());
        let port = port.parse::<u16>().ok().filter(|port| digits && *port != 0);
        let port = port.ok_or_else(|| EndpointError::Port(shown(text)))?;
        let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let host = match bracketed {
            Some(six) => Host::Address(IpAddr::V6(
                six.parse().map_err(|_| EndpointError::Host(shown(text)))?,
            )),
            None => match host.parse::<IpAddr>() {
                Ok(IpAddr::V6(_)) => return Err(EndpointError::Brackets(shown(text))),
                Ok(four) => Host::Address(four),
                Err(_) => Host::Name(host.to_ascii_lowercase()),
            },
        };
        Self::new(host, port)
    }
}

impl TryFrom<String> for Endpoint {
    type Error = EndpointError;

    fn try_from(text: String) -> Result<Self, EndpointError> {
        text.parse()
    }
}

impl From<Endpoint> for String {
    fn from(endpoint: Endpoint) -> String {
        endpoint.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_names_read_back() {
        for text in ["10.0.0.5:7443", "[fd00::5]:7443", "alpha.example:7443", "alpha:1"] {
            assert_eq!(text.parse::<Endpoint>().unwrap().to_string(), text);
        }
        assert_eq!("Alpha:7443".parse::<Endpoint>().unwrap().to_string(), "alpha:7443");
    }

    #[test]
    fn each_mistake_has_its_sentence() {
        for (text, why) in [
            ("10.0.0.5", "has no port: write it like"),
            ("[fd00::5]", "has no port: write it like"),
            ("alpha:", "has no port from 1 to 65535"),
            ("alpha:0", "has no port from 1 to 65535"),
            ("alpha:+1", "has no port from 1 to 65535"),
            ("alpha:65536", "has no port from 1 to 65535"),
            ("fd00::5", "is an IPv6 address without brackets"),
            ("10.0.0.256:7443", "is neither an address nor a name"),
            ("a b:7443", "is neither an address nor a name"),
            ("[fe80::1%eth0]:7443", "is neither an address nor a name"),
            (":7443", "is neither an address nor a name"),
            ("127.0.0.1:7443", "cannot be reached from another machine"),
            ("[::]:7443", "cannot be reached from another machine"),
            ("[fe80::1]:7443", "cannot be reached from another machine"),
        ] {
            let error = text.parse::<Endpoint>().unwrap_err().to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
