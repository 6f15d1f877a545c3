//! What the machine's links carry.

use std::net::IpAddr;
use std::process::Command;

use serde::Deserialize;

#[derive(Deserialize)]
struct Link {
    mtu: u32,
    #[serde(default)]
    addr_info: Vec<Address>,
}

#[derive(Deserialize)]
struct Address {
    #[serde(default)]
    local: Option<IpAddr>,
}

/// The largest packet of the link that has this address, in bytes. Unknown where `ip` does not say.
pub fn mtu_at(address: IpAddr) -> Option<u32> {
    // Of this process's own network, which /sys need not be.
    let output = Command::new("ip").args(["-json", "address", "show"]).output().ok()?;
    find(&output.stdout, address)
}

fn find(json: &[u8], address: IpAddr) -> Option<u32> {
    let links: Vec<Link> = serde_json::from_slice(json).ok()?;
    let has_it = |link: &&Link| link.addr_info.iter().any(|own| own.local == Some(address));
    links.iter().find(has_it).map(|link| link.mtu)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_link_with_the_address_says_what_it_carries() {
        let said = br#"[{"ifname":"lo","mtu":65536,"addr_info":[{"local":"127.0.0.1"}]},{},
            {"ifname":"eth0","mtu":1400,"addr_info":[{"family":"inet","local":"192.0.2.1"},{}]}]"#;
        let address = |last| IpAddr::from([192, 0, 2, last]);
        assert_eq!(find(said, address(1)), None, "a link without an MTU is not one of ip's");
        let said = String::from_utf8_lossy(said).replace("{},\n", "");
        assert_eq!(find(said.as_bytes(), address(1)), Some(1400));
        assert_eq!(find(said.as_bytes(), address(2)), None);
        assert_eq!(find(b"no JSON", address(1)), None);
    }
}
