//! Where the machine sends what (proc(5), /proc/net/route and /proc/net/ipv6_route).

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// A destination and the link by which it is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    pub destination: IpNet,
    pub link: String,
}

/// What leads out of the machine, default routes left out: they lead wherever nothing else does.
pub fn routes() -> Vec<Route> {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let four = four(&read("/proc/net/route"));
    let all = four.into_iter().chain(six(&read("/proc/net/ipv6_route")));
    all.filter(|route| route.destination.prefix_len() > 0 && route.link != "lo").collect()
}

/// `eth0 0001A8C0 00000000 0001 0 0 0 00FFFFFF …`: addresses as the processor has them in memory.
fn four(table: &str) -> Vec<Route> {
    let line = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let address =
            |word: &str| u32::from_str_radix(word, 16).map(|raw| Ipv4Addr::from(raw.to_ne_bytes()));
        let (destination, mask) = (address(words.get(1)?).ok()?, address(words.get(7)?).ok()?);
        let length = u32::from(mask).leading_ones().try_into().ok()?;
        let destination = IpNet::new(IpAddr::V4(destination), length).ok()?.trunc();
        Some(Route { destination, link: (*words.first()?).to_owned() })
    };
    table.lines().skip(1).filter_map(line).collect()
}

/// `fd00…00 40 …  eth0`: address and length of its prefix first, the link last.
fn six(table: &str) -> Vec<Route> {
    let line = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let address = u128::from_str_radix(words.first()?, 16).ok()?;
        let length = u8::from_str_radix(words.get(1)?, 16).ok()?;
        let destination = IpNet::new(Ipv6Addr::from(address).into(), length).ok()?.trunc();
        Some(Route { destination, link: (*words.get(9)?).to_owned() })
    };
    table.lines().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(routes: &[Route]) -> Vec<String> {
        routes.iter().map(|route| format!("{} {}", route.destination, route.link)).collect()
    }

    #[test]
    fn tables_of_the_kernel_are_read() {
        let raw = |address: [u8; 4]| format!("{:08X}", u32::from_ne_bytes(address));
        let line = |link: &str, to, mask| {
            format!("{link}\t{}\t00000000\t0001\t0\t0\t0\t{}\t0\t0\t0\n", raw(to), raw(mask))
        };
        let table = "Iface\tDestination\tGateway\tFlags\n".to_owned()
            + &line("eth0", [0, 0, 0, 0], [0, 0, 0, 0])
            + &line("eth1", [10, 1, 7, 0], [255, 255, 255, 0]);
        assert_eq!(shown(&four(&table)), ["0.0.0.0/0 eth0", "10.1.7.0/24 eth1"]);
        let zero = "0".repeat(32);
        let table =
            format!("fd00{} 40 {zero} 00 {zero} 00000100 0 0 00000001 eth0\n", "0".repeat(28));
        assert_eq!(shown(&six(&table)), ["fd00::/64 eth0"]);
    }

    #[test]
    fn nonsense_is_no_route() {
        let odd = "x\neth0 zz 0 0 0 0 0 FFFFFFFF\neth0 0 0\n\n";
        assert!(four(odd).is_empty() && six(odd).is_empty());
        assert!(six(&format!("{} ff 0 0 0 0 0 0 0 eth0", "f".repeat(32))).is_empty());
    }
}
