//! What can be said of settings without looking at the machine. Pure.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};

use super::{Config, Origin};

/// Ports that a node uses besides the API server's: the API balancer, the cluster, the kubelet and
/// the health of components (docs/reference).
const PORTS_TAKEN: [u16; 8] = [6444, 7443, 10248, 10249, 10250, 10256, 10257, 10259];
/// Every node gets a share of this size.
const NODE_SHARE_BITS: u8 = 24;
/// Room for the API server, DNS and a handful of Services.
const SERVICE_BITS_MAX: u8 = 28;
/// The API server keeps a bitmap of Services' addresses (`--service-cluster-ip-range`).
const SERVICE_BITS_MIN: u8 = 12;
/// IPv4 demands the first (RFC 791); links have no more than the second.
const MTU: std::ops::RangeInclusive<u32> = 576..=65535;
const LABEL_LENGTH_MAX: usize = 63;
const NAME_LENGTH_MAX: usize = 253;

/// Every mistake as a sentence that begins with the place of the value.
pub fn problems(config: &Config) -> Vec<String> {
    let mut all = Problems { config, texts: Vec::new() };
    all.node();
    all.network();
    all.api();
    all.arguments();
    all.texts
}

struct Problems<'a> {
    config: &'a Config,
    texts: Vec<String>,
}

impl Problems<'_> {
    /// `what` follows the name of the setting.
    fn add(&mut self, key: &str, what: &str) {
        self.texts.push(match self.config.origin(key) {
            Origin::Default => format!("{key} {what}"),
            origin => format!("{origin}: {key} {what}"),
        });
    }

    fn node(&mut self) {
        let node = &self.config.node;
        if let Some(name) = &node.name
            && !is_dns_name(name)
        {
            let rule = "is no name of a node: lower-case letters, digits, '-' and '.' (RFC 1123)";
            self.add("node.name", &format!("{name:?} {rule}"));
        }
        if let Some(address) = node.address
            && (address.is_loopback() || address.is_unspecified() || address.is_multicast())
        {
            self.add("node.address", &format!("{address} cannot be reached by others"));
        }
    }

    fn network(&mut self) {
        let network = &self.config.network;
        let pods = self.range("network.pod-cidr", &network.pod_cidr);
        let services = self.range("network.service-cidr", &network.service_cidr);
        if let Some(pods) = pods
            && pods.prefix_len() > NODE_SHARE_BITS
        {
            let what = format!("{pods} has no room for a node: /{NODE_SHARE_BITS} or larger");
            self.add("network.pod-cidr", &what);
        }
        if let Some(services) = services {
            let bits = services.prefix_len();
            if !(SERVICE_BITS_MIN..=SERVICE_BITS_MAX).contains(&bits) {
                let what = format!(
                    "{services} is not between /{SERVICE_BITS_MIN} and /{SERVICE_BITS_MAX}"
                );
                self.add("network.service-cidr", &what);
            }
            self.dns_address(services);
        }
        if let (Some(pods), Some(services)) = (pods, services)
            && (pods.contains(&services) || services.contains(&pods))
        {
            // Told of the one that somebody wrote.
            let (one, other) = (("network.pod-cidr", pods), ("network.service-cidr", services));
            let written = self.config.origin(one.0) != Origin::Default;
            let (this, that) = if written { (one, other) } else { (other, one) };
            self.add(this.0, &format!("{} overlaps {} {}", this.1, that.0, that.1));
        }
        for (key, range) in [("network.pod-cidr", pods), ("network.service-cidr", services)] {
            if let (Some(range), Some(IpAddr::V4(address))) = (range, self.config.node.address)
                && range.contains(&address)
            {
                self.add("node.address", &format!("{address} lies in {key} {range}"));
            }
        }
        if !is_dns_name(&network.dns_domain) {
            self.add(
                "network.dns-domain",
                &format!("{:?} is no domain (RFC 1123)", network.dns_domain),
            );
        }
        if network.mtu != 0 && !MTU.contains(&network.mtu) {
            let what =
                format!("{} is neither 0 nor from {} to {}", network.mtu, MTU.start(), MTU.end());
            self.add("network.mtu", &what);
        }
    }

    fn range(&mut self, key: &str, text: &str) -> Option<Ipv4Net> {
        match text.parse::<IpNet>() {
            Ok(IpNet::V4(range)) if range.trunc() == range => return Some(range),
            Ok(IpNet::V4(range)) => {
                self.add(
                    key,
                    &format!("{range} has bits beyond its prefix; meant is {}?", range.trunc()),
                );
            }
            Ok(IpNet::V6(range)) => {
                self.add(
                    key,
                    &format!("{range} is IPv6, which Skiff cannot use for pods and Services yet"),
                );
            }
            Err(_) => self.add(key, &format!("{text:?} is no range of addresses like 10.1.0.0/16")),
        }
        None
    }

    fn dns_address(&mut self, services: Ipv4Net) {
        let address = self.config.network.dns_address;
        let IpAddr::V4(four) = address else {
            self.add("network.dns-address", &format!("{address} does not lie in {services}"));
            return;
        };
        if !services.contains(&four) || four == services.network() || four == services.broadcast() {
            self.add(
                "network.dns-address",
                &format!("{address} is not one of the Services' addresses, {services}"),
            );
        } else if services.hosts().next() == Some(four) {
            self.add("network.dns-address", &format!("{address} is the API server's own"));
        }
    }

    fn api(&mut self) {
        let port = self.config.api.port;
        if port == 0 || PORTS_TAKEN.contains(&port) {
            self.add(
                "api.port",
                &format!("{port} cannot be taken: it is zero or another daemon's"),
            );
        }
        for name in &self.config.api.extra_sans {
            if name.parse::<IpAddr>().is_err()
                && !is_dns_name(name.strip_prefix("*.").unwrap_or(name))
            {
                self.add(
                    "api.extra-sans",
                    &format!("holds {name:?}, which is no name and no address"),
                );
            }
        }
        if self.config.pki.leaf_ttl_minutes == 0 {
            self.add("pki.leaf-ttl-minutes", "must be 1 or more");
        }
    }

    fn arguments(&mut self) {
        let kube = &self.config.kube;
        for (key, arguments) in [
            ("kube.api-server-args", &kube.api_server_args),
            ("kube.controller-manager-args", &kube.controller_manager_args),
            ("kube.scheduler-args", &kube.scheduler_args),
            ("kube.kubelet-args", &kube.kubelet_args),
            ("kube.proxy-args", &kube.proxy_args),
        ] {
            for argument in arguments.iter().filter(|a| !a.starts_with("--") || a.len() < 3) {
                self.add(key, &format!("holds {argument:?}, which is no flag like \"--v=2\""));
            }
        }
    }
}

/// A subdomain of RFC 1123, as Kubernetes wants names of nodes.
fn is_dns_name(name: &str) -> bool {
    let label = |label: &str| {
        let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        (1..=LABEL_LENGTH_MAX).contains(&label.len())
            && label.chars().all(inner)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    name.len() <= NAME_LENGTH_MAX && name.split('.').all(label)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Vec<String> {
        problems(&toml::from_str(text).unwrap())
    }

    #[test]
    fn the_defaults_have_no_mistake() {
        assert_eq!(of(""), [""; 0]);
    }

    #[test]
    fn each_mistake_has_its_sentence() {
        for (text, sentence) in [
            (
                "node.name = \"Alpha\"",
                "node.name \"Alpha\" is no name of a node: lower-case letters, digits, '-' and '.' (RFC 1123)",
            ),
            ("node.address = \"127.0.0.1\"", "node.address 127.0.0.1 cannot be reached by others"),
            (
                "node.address = \"10.1.3.4\"",
                "node.address 10.1.3.4 lies in network.pod-cidr 10.1.0.0/16",
            ),
            (
                "network.pod-cidr = \"10.1.0.0\"",
                "network.pod-cidr \"10.1.0.0\" is no range of addresses like 10.1.0.0/16",
            ),
            (
                "network.pod-cidr = \"10.1.2.0/16\"",
                "network.pod-cidr 10.1.2.0/16 has bits beyond its prefix; meant is 10.1.0.0/16?",
            ),
            (
                "network.pod-cidr = \"10.1.0.0/25\"",
                "network.pod-cidr 10.1.0.0/25 has no room for a node: /24 or larger",
            ),
            (
                "network.pod-cidr = \"fd00::/48\"",
                "network.pod-cidr fd00::/48 is IPv6, which Skiff cannot use for pods and Services yet",
            ),
            (
                "network.service-cidr = \"10.152.183.0/30\"\nnetwork.dns-address = \"10.152.183.2\"",
                "network.service-cidr 10.152.183.0/30 is not between /12 and /28",
            ),
            (
                "network.dns-address = \"10.152.183.1\"",
                "network.dns-address 10.152.183.1 is the API server's own",
            ),
            (
                "network.dns-address = \"10.9.9.9\"",
                "network.dns-address 10.9.9.9 is not one of the Services' addresses, 10.152.183.0/24",
            ),
            (
                "network.dns-domain = \"a..b\"",
                "network.dns-domain \"a..b\" is no domain (RFC 1123)",
            ),
            ("network.mtu = 500", "network.mtu 500 is neither 0 nor from 576 to 65535"),
            ("api.port = 10250", "api.port 10250 cannot be taken: it is zero or another daemon's"),
            (
                "api.extra-sans = [\"a b\"]",
                "api.extra-sans holds \"a b\", which is no name and no address",
            ),
            ("pki.leaf-ttl-minutes = 0", "pki.leaf-ttl-minutes must be 1 or more"),
            (
                "kube.kubelet-args = [\"v=2\"]",
                "kube.kubelet-args holds \"v=2\", which is no flag like \"--v=2\"",
            ),
        ] {
            assert_eq!(of(text), [sentence], "{text}");
        }
    }
}
