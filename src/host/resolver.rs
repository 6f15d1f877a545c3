//! Which resolvers of the machine are of use to pods.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// Where resolver configurations lie: the machine's own, and those behind the stubs of
/// systemd-resolved and NetworkManager.
const PLACES: [&str; 3] = [
    "/etc/resolv.conf",
    "/run/systemd/resolve/resolv.conf",
    "/run/NetworkManager/no-stub-resolv.conf",
];

/// The first configuration with a resolver that pods can reach; the machine's own when none has
/// one (a cellar): never a public resolver that nobody asked for.
pub fn choose() -> PathBuf {
    let of_use =
        |place: &&&str| std::fs::read_to_string(place).is_ok_and(|text| !usable(&text).is_empty());
    Path::new(PLACES.iter().find(of_use).unwrap_or(&PLACES[0])).to_path_buf()
}

/// The name servers of a resolver configuration (resolv.conf(5)) that a pod can reach: a stub on
/// loopback is the machine's own.
pub fn usable(text: &str) -> Vec<IpAddr> {
    text.lines()
        .filter_map(|line| line.trim().strip_prefix("nameserver"))
        .filter(|rest| rest.starts_with([' ', '\t']))
        .filter_map(|rest| rest.trim().split('%').next()?.parse().ok())
        .filter(|address: &IpAddr| !address.is_loopback())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stubs_on_loopback_are_of_no_use_to_pods() {
        let text = "# a comment\nnameserver 127.0.0.53\nnameserver 10.0.0.2\nnameserverx 1.1.1.1\n";
        assert_eq!(usable(text), [IpAddr::from([10, 0, 0, 2])]);
    }
}
