//! Which of the machine's addresses the node uses.

use std::fs;
use std::net::IpAddr;

use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;

/// Links that clusters and container engines make; none of them is the machine's own.
const VIRTUAL: [&str; 6] = ["skiff", "veth", "docker", "cni", "flannel", "virbr"];

/// The address on the default route's link, else the first global one.
pub fn choose() -> Option<IpAddr> {
    let default = default_link(&fs::read_to_string("/proc/net/route").unwrap_or_default());
    let found: Vec<(String, IpAddr)> = getifaddrs()
        .ok()?
        .filter(|link| link.flags.contains(InterfaceFlags::IFF_UP))
        .filter(|link| !VIRTUAL.iter().any(|prefix| link.interface_name.starts_with(prefix)))
        .filter_map(|link| {
            let address = link.address?;
            let ip: IpAddr = if let Some(v4) = address.as_sockaddr_in() {
                v4.ip().into()
            } else {
                address.as_sockaddr_in6()?.ip().into()
            };
            Some((link.interface_name, ip))
        })
        .filter(|(_, ip)| match ip {
            IpAddr::V4(v4) => !v4.is_loopback() && !v4.is_link_local(),
            IpAddr::V6(v6) => !v6.is_loopback() && !v6.is_unicast_link_local(),
        })
        .collect();
    let best = found.iter().min_by_key(|(link, ip)| (Some(link) != default.as_ref(), ip.is_ipv6()));
    best.map(|(_, ip)| *ip)
}

/// Whether anything beyond the machine's own links can be reached. A node does not need it.
pub fn has_default_route() -> bool {
    default_link(&fs::read_to_string("/proc/net/route").unwrap_or_default()).is_some()
}

fn default_link(table: &str) -> Option<String> {
    table.lines().skip(1).find_map(|line| {
        let mut words = line.split_whitespace();
        let link = words.next()?;
        (words.next()? == "00000000").then(|| link.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::default_link;

    #[test]
    fn the_default_route_is_the_one_to_zero() {
        let table = "Iface\tDestination\tGateway\n\
                     eth1\t0000A8C0\t00000000\n\
                     eth0\t00000000\t010200C0\n";
        assert_eq!(default_link(table).as_deref(), Some("eth0"));
        assert_eq!(default_link("Iface\n\nx\n"), None);
    }
}
