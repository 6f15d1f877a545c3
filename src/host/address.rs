//! Which of the machine's addresses the node uses.

use std::fs;
use std::net::IpAddr;

use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;

/// Links that clusters and container engines make; none of them is the machine's own.
const VIRTUAL: [&str; 6] = ["skiff", "veth", "docker", "cni", "flannel", "virbr"];

/// One of the machine's addresses, and the link that has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    pub address: IpAddr,
    pub on_default_route: bool,
}

/// The addresses by which others could reach this machine.
pub fn candidates() -> Vec<Candidate> {
    let default = default_link(&fs::read_to_string("/proc/net/route").unwrap_or_default());
    let Ok(links) = getifaddrs() else { return Vec::new() };
    links
        .filter(|link| link.flags.contains(InterfaceFlags::IFF_UP))
        .filter(|link| !VIRTUAL.iter().any(|prefix| link.interface_name.starts_with(prefix)))
        .filter_map(|link| {
            let address = link.address?;
            let address: IpAddr = if let Some(v4) = address.as_sockaddr_in() {
                v4.ip().into()
            } else {
                address.as_sockaddr_in6()?.ip().into()
            };
            let on_default_route = Some(&link.interface_name) == default.as_ref();
            Some(Candidate { address, on_default_route })
        })
        .filter(|candidate| match candidate.address {
            IpAddr::V4(v4) => !v4.is_loopback() && !v4.is_link_local(),
            IpAddr::V6(v6) => !v6.is_loopback() && !v6.is_unicast_link_local(),
        })
        .collect()
}

/// The address on the default route's link, else the first global one.
pub fn choose() -> Option<IpAddr> {
    best(&candidates())
}

/// The address to change to; nothing while the node's own is still there or no other is. A link
/// that comes up beside it, a VPN for example, is no reason to move.
pub fn follow(own: IpAddr, candidates: &[Candidate]) -> Option<IpAddr> {
    let kept = candidates.iter().any(|candidate| candidate.address == own);
    best(candidates).filter(|_| !kept)
}

fn best(candidates: &[Candidate]) -> Option<IpAddr> {
    let rank = |candidate: &&Candidate| (!candidate.on_default_route, candidate.address.is_ipv6());
    candidates.iter().min_by_key(rank).map(|candidate| candidate.address)
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
    use super::*;

    #[test]
    fn the_default_route_is_the_one_to_zero() {
        let table = "Iface\tDestination\tGateway\n\
                     eth1\t0000A8C0\t00000000\n\
                     eth0\t00000000\t010200C0\n";
        assert_eq!(default_link(table).as_deref(), Some("eth0"));
        assert_eq!(default_link("Iface\n\nx\n"), None);
    }

    fn candidate(last: u8, on_default_route: bool) -> Candidate {
        Candidate { address: IpAddr::from([192, 0, 2, last]), on_default_route }
    }

    #[test]
    fn a_node_moves_only_when_its_address_is_gone_and_another_is_there() {
        let own = IpAddr::from([192, 0, 2, 1]);
        assert_eq!(follow(own, &[candidate(1, false), candidate(2, true)]), None);
        assert_eq!(follow(own, &[]), None);
        let others = [candidate(2, false), candidate(3, true)];
        assert_eq!(follow(own, &others), Some(IpAddr::from([192, 0, 2, 3])));
    }
}
