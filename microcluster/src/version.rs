//! Which versions work together. Pure.
//!
//! Ours: members one minor release apart. Kubernetes' own rule (its version skew policy):
//!
//! ```text
//!   API servers of one cluster: one minor release apart at most
//!   kubelet: never newer than the oldest API server, up to three minor releases older than the
//!            newest
//! ```

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Minor releases between members that work together.
pub const RELEASES_APART_MAX: u64 = 1;
/// Minor releases between API servers of one cluster.
pub const API_SERVERS_APART_MAX: u64 = 1;
/// Minor releases that a kubelet may be older than an API server.
pub const KUBELET_BEHIND_MAX: u64 = 3;

/// `1.36.3`, `v1.36.3`, `0.2.0-beta.1+g123`: what stands behind the three numbers does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Version {
    pub major: u32,
    pub minor: u32,
    pub patch: u32,
}

/// A text that is no version.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no version like 1.36.3")]
pub struct VersionError(String);

/// Why two versions do not work together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SkewError {
    #[error(
        "Skiff {theirs} and Skiff {ours} do not work together: \
         members are one minor release apart at most"
    )]
    Releases { ours: Version, theirs: Version },
    #[error(
        "an API server {new} and one of {old} do not work together: \
         they are one minor release apart at most"
    )]
    ApiServers { new: Version, old: Version },
    #[error("a kubelet {kubelet} is newer than the cluster's oldest API server, {api_server}")]
    KubeletNewer { kubelet: Version, api_server: Version },
    #[error(
        "a kubelet {kubelet} is more than {KUBELET_BEHIND_MAX} minor releases older than \
         the cluster's newest API server, {api_server}"
    )]
    KubeletOlder { kubelet: Version, api_server: Version },
}

impl Version {
    /// Three numbers.
    pub const fn new(major: u32, minor: u32, patch: u32) -> Self {
        Self { major, minor, patch }
    }

    /// Minor releases between two; nothing when the major numbers differ.
    fn apart(self, other: Self) -> Option<u64> {
        (self.major == other.major).then(|| u64::from(self.minor.abs_diff(other.minor)))
    }

    fn is_newer_release(self, other: Self) -> bool {
        (self.major, self.minor) > (other.major, other.minor)
    }
}

/// Whether two releases of Skiff work together.
pub fn check_releases(ours: Version, theirs: Version) -> Result<(), SkewError> {
    match ours.apart(theirs) {
        Some(0..=RELEASES_APART_MAX) => Ok(()),
        _ => Err(SkewError::Releases { ours, theirs }),
    }
}

/// Whether a kubelet works with every API server of the cluster.
pub fn check_kubelet(kubelet: Version, api_servers: &[Version]) -> Result<(), SkewError> {
    for &api_server in api_servers {
        if kubelet.is_newer_release(api_server) {
            return Err(SkewError::KubeletNewer { kubelet, api_server });
        }
        if kubelet.apart(api_server).is_none_or(|apart| apart > KUBELET_BEHIND_MAX) {
            return Err(SkewError::KubeletOlder { kubelet, api_server });
        }
    }
    Ok(())
}

/// Whether another API server works with those that are there, and with every kubelet.
pub fn check_api_server(
    new: Version,
    api_servers: &[Version],
    kubelets: &[Version],
) -> Result<(), SkewError> {
    for &old in api_servers {
        if new.apart(old).is_none_or(|apart| apart > API_SERVERS_APART_MAX) {
            return Err(SkewError::ApiServers { new, old });
        }
    }
    kubelets.iter().try_for_each(|kubelet| check_kubelet(*kubelet, &[new]))
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

impl FromStr for Version {
    type Err = VersionError;

    fn from_str(text: &str) -> Result<Self, VersionError> {
        let failed = || VersionError(text.chars().take(40).collect());
        let plain = text.strip_prefix('v').unwrap_or(text);
        let numbers = plain.split(['-', '+']).next().unwrap_or_default();
        let number = |text: &str| {
            let is_plain =
                (1..=6).contains(&text.len()) && text.chars().all(|c| c.is_ascii_digit());
            text.parse::<u32>().ok().filter(|_| is_plain).ok_or_else(failed)
        };
        match numbers.split('.').collect::<Vec<_>>()[..] {
            [major, minor, patch] => Ok(Self::new(number(major)?, number(minor)?, number(patch)?)),
            _ => Err(failed()),
        }
    }
}

impl TryFrom<String> for Version {
    type Error = VersionError;

    fn try_from(text: String) -> Result<Self, VersionError> {
        text.parse()
    }
}

impl From<Version> for String {
    fn from(version: Version) -> String {
        version.to_string()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn v(text: &str) -> Version {
        text.parse().unwrap()
    }

    #[test]
    fn versions_read_back() {
        assert_eq!(v("v1.36.3"), Version::new(1, 36, 3));
        assert_eq!(v("0.2.0-beta.1+g123").to_string(), "0.2.0");
        for text in ["", "1", "1.2", "1.2.3.4", "1.+2.3", "1..3", "a.b.c", "1.2.99999999"] {
            assert!(text.parse::<Version>().is_err(), "{text}");
        }
    }

    #[test]
    fn members_one_minor_release_apart_work_together_and_two_do_not() {
        for (ours, theirs, works) in [
            ("0.2.0", "0.2.9", true),
            ("0.2.0", "0.1.0", true),
            ("0.2.0", "0.3.0", true),
            ("0.2.0", "0.4.0", false),
            ("1.0.0", "0.9.0", false),
        ] {
            assert_eq!(check_releases(v(ours), v(theirs)).is_ok(), works, "{ours} {theirs}");
        }
        let error = check_releases(v("0.2.0"), v("0.4.1")).unwrap_err();
        assert!(error.to_string().starts_with("Skiff 0.4.1 and Skiff 0.2.0 do not work together"));
    }

    #[test]
    fn a_kubelet_is_never_newer_than_an_api_server_and_at_most_three_older() {
        let servers = [v("1.36.3"), v("1.35.0")];
        for (kubelet, works) in
            [("1.35.9", true), ("1.33.0", true), ("1.32.9", false), ("1.36.0", false)]
        {
            assert_eq!(check_kubelet(v(kubelet), &servers).is_ok(), works, "{kubelet}");
        }
        assert_eq!(
            check_kubelet(v("1.36.9"), &servers),
            Err(SkewError::KubeletNewer { kubelet: v("1.36.9"), api_server: v("1.35.0") })
        );
        assert!(check_kubelet(v("2.0.0"), &servers).is_err());
        assert!(check_kubelet(v("0.36.0"), &servers).is_err());
    }

    #[test]
    fn api_servers_are_one_minor_release_apart_and_not_older_than_a_kubelet() {
        let servers = [v("1.36.3")];
        assert!(check_api_server(v("1.37.0"), &servers, &[v("1.36.0")]).is_ok());
        assert!(check_api_server(v("1.35.0"), &servers, &[v("1.35.0")]).is_ok());
        assert!(check_api_server(v("1.38.0"), &servers, &[]).is_err());
        assert!(check_api_server(v("1.35.0"), &servers, &[v("1.36.0")]).is_err());
        assert!(check_api_server(v("1.37.0"), &servers, &[v("1.33.0")]).is_err());
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".*", numbers in "[0-9.v+-]*") {
            let _ = text.parse::<Version>();
            let _ = numbers.parse::<Version>();
        }
    }
}
