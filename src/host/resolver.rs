//! Which resolvers of the machine are of use to pods.

use std::net::IpAddr;

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
