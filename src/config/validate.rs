//! What can be said of settings without looking at the machine. Pure.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net};

use skiff_datastore::backup::{S3, Sealing};

use super::endpoint::Endpoint;
use super::error::Mistake;
use super::setting::{LEAF_TTL_MINUTES, MTU};
use super::{Config, Origin, SCHEDULE_OFF};

/// Ports that a node uses besides the API server's: the API balancer, the cluster, the kubelet and
/// the health of components (docs/reference).
const PORTS_TAKEN: [u16; 8] = [6444, 7443, 10248, 10249, 10250, 10256, 10257, 10259];
/// Every node gets a share of this size.
const NODE_SHARE_BITS: u8 = 24;
/// Room for the API server, DNS and a handful of Services.
const SERVICE_BITS_MAX: u8 = 28;
/// The API server keeps a bitmap of Services' addresses (`--service-cluster-ip-range`).
const SERVICE_BITS_MIN: u8 = 12;
/// An archive is proven by restoring it: more often would be all that a node does.
const SCHEDULE_MIN: Duration = Duration::from_secs(60);
const LABEL_LENGTH_MAX: usize = 63;
const NAME_LENGTH_MAX: usize = 253;

/// Every value that cannot be right, whatever the others are.
pub fn alone(config: &Config) -> Vec<Mistake> {
    let mut all = Mistakes { config, found: Vec::new() };
    all.node();
    all.network();
    all.api();
    all.datastore();
    all.arguments();
    all.backup();
    all.found
}

/// Values that cannot go together. Only of use when each of them is right alone: beside a value
/// that was meant to be another one they would be judged against the wrong one.
pub fn together(config: &Config) -> Vec<Mistake> {
    let mut all = Mistakes { config, found: Vec::new() };
    let network = &config.network;
    let pods = network.pod_cidr.parse().ok();
    let services = network.service_cidr.parse().ok();
    if let (Some(pods), Some(services)) = (pods, services) {
        all.overlap(pods, services);
    }
    for (key, range) in [(POD_CIDR, pods), (SERVICE_CIDR, services)] {
        if let (Some(range), Some(IpAddr::V4(address))) = (range, config.node.address)
            && range.contains(&address)
        {
            all.add("node.address", &format!("{address} lies in {key} {range}"));
        }
    }
    if let Some(services) = services {
        all.dns_address(services);
    }
    all.datastore_files();
    all.schedule();
    all.found
}

const POD_CIDR: &str = "network.pod-cidr";
const SERVICE_CIDR: &str = "network.service-cidr";
const DNS_ADDRESS: &str = "network.dns-address";
const ENDPOINT: &str = "datastore.endpoint";
const SCHEDULE: &str = "backup.schedule";

struct Mistakes<'a> {
    config: &'a Config,
    found: Vec<Mistake>,
}

impl Mistakes<'_> {
    /// `what` follows the name of the setting.
    fn add(&mut self, key: &str, what: &str) {
        self.found.push(Mistake::new(self.config.origin(key), format!("{key} {what}")));
    }

    /// Whether somebody wrote it.
    fn is_set(&self, key: &str) -> bool {
        self.config.origin(key) != Origin::Default
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
        if let Some(pods) = self.range(POD_CIDR, &network.pod_cidr)
            && pods.prefix_len() > NODE_SHARE_BITS
        {
            let what = format!("{pods} has no room for a node: /{NODE_SHARE_BITS} or larger");
            self.add(POD_CIDR, &what);
        }
        if let Some(services) = self.range(SERVICE_CIDR, &network.service_cidr)
            && !(SERVICE_BITS_MIN..=SERVICE_BITS_MAX).contains(&services.prefix_len())
        {
            let what =
                format!("{services} is not between /{SERVICE_BITS_MIN} and /{SERVICE_BITS_MAX}");
            self.add(SERVICE_CIDR, &what);
        }
        if !is_dns_name(&network.dns_domain) {
            let what = format!("{:?} is no domain (RFC 1123)", network.dns_domain);
            self.add("network.dns-domain", &what);
        }
        if network.mtu != 0 && !MTU.contains(&network.mtu) {
            let what =
                format!("{} is neither 0 nor from {} to {}", network.mtu, MTU.start(), MTU.end());
            self.add("network.mtu", &what);
        }
    }

    /// Told of the one that somebody wrote.
    fn overlap(&mut self, pods: Ipv4Net, services: Ipv4Net) {
        if pods.contains(&services) || services.contains(&pods) {
            let (one, other) = ((POD_CIDR, pods), (SERVICE_CIDR, services));
            let (this, that) = if self.is_set(one.0) { (one, other) } else { (other, one) };
            self.add(this.0, &format!("{} overlaps {} {}", this.1, that.0, that.1));
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
        let inside = match address {
            IpAddr::V4(four) => {
                services.contains(&four)
                    && four != services.network()
                    && four != services.broadcast()
            }
            IpAddr::V6(_) => false,
        };
        if inside && services.hosts().next().map(IpAddr::V4) == Some(address) {
            self.add(DNS_ADDRESS, &format!("{address} is the API server's own"));
        } else if !inside && self.is_set(SERVICE_CIDR) && !self.is_set(DNS_ADDRESS) {
            // The default is nobody's mistake: told of the one that somebody wrote.
            let what = format!("{services} does not hold the default {DNS_ADDRESS} {address}");
            self.add(SERVICE_CIDR, &format!("{what}: set that one, too"));
        } else if !inside {
            let what = format!("{address} is not one of the Services' addresses, {services}");
            self.add(DNS_ADDRESS, &what);
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
        let life = self.config.pki.leaf_ttl_minutes;
        if !LEAF_TTL_MINUTES.contains(&life) {
            let (least, most) = (LEAF_TTL_MINUTES.start(), LEAF_TTL_MINUTES.end());
            self.add("pki.leaf-ttl-minutes", &format!("{life} is not from {least} to {most}"));
        }
    }

    fn datastore(&mut self) {
        let datastore = &self.config.datastore;
        if let Some(text) = &datastore.endpoint
            && let Err(what) = text.parse::<Endpoint>()
        {
            self.add(ENDPOINT, &what);
        }
        for (key, file) in datastore.files() {
            if let Some(file) = file.filter(|file| !file.is_absolute()) {
                self.add(key, &format!("{:?} does not begin with /", file.display().to_string()));
            }
        }
    }

    fn datastore_files(&mut self) {
        let datastore = &self.config.datastore;
        let [ca, certificate, key, password] = datastore.files();
        let mut needs = |(this, file): (&str, Option<_>), that: &str, is_there: bool| {
            if file.is_some() && !is_there {
                self.add(this, &format!("is of no use without {that}"));
            }
        };
        let endpoint = datastore.endpoint();
        let Some(endpoint) = endpoint else {
            for setting in datastore.files() {
                needs(setting, ENDPOINT, false);
            }
            return;
        };
        needs(certificate, key.0, key.1.is_some());
        needs(key, certificate.0, certificate.1.is_some());
        match &endpoint {
            Endpoint::Etcd(servers) => {
                needs(password, "a database: etcd knows whom it trusts by certificates", false);
                let is_encrypted = servers.iter().any(|server| server.tls);
                needs(certificate, "https:// in datastore.endpoint", is_encrypted);
                needs(ca, "https:// in datastore.endpoint", is_encrypted);
                if is_encrypted && ca.1.is_none() {
                    self.add(ENDPOINT, "is believed by its authority: set datastore.ca-file, too");
                }
            }
            Endpoint::Database(_) => {
                needs(certificate, ca.0, ca.1.is_some());
            }
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

impl Mistakes<'_> {
    fn backup(&mut self) {
        let backup = &self.config.backup;
        let schedule = &backup.schedule;
        match backup.every() {
            None if schedule != SCHEDULE_OFF => {
                self.add(
                    SCHEDULE,
                    &format!("{schedule:?} is neither \"off\" nor a time like \"6h\""),
                );
            }
            Some(every) if every < SCHEDULE_MIN => {
                let least = SCHEDULE_MIN.as_secs();
                self.add(SCHEDULE, &format!("{schedule} is too often: {least} s at least"));
            }
            _ => {}
        }
        if let Err(error) = Sealing::recipients(&backup.encrypt_to) {
            self.add("backup.encrypt-to", &format!("cannot be used: {error}"));
        }
        for (key, path) in [
            ("backup.place", backup.place.as_ref().filter(|place| !S3::is_address(place))),
            ("backup.environment-file", backup.environment_file.as_ref()),
        ] {
            if let Some(path) = path.filter(|path| !path.is_absolute()) {
                self.add(key, &format!("{:?} does not begin with /", path.display().to_string()));
            }
        }
    }

    /// One that could never bring an archive.
    fn schedule(&mut self) {
        let backup = &self.config.backup;
        if backup.every().is_none() {
            return;
        }
        if backup.place.is_none() {
            self.add(SCHEDULE, "is set, and no backup.place to keep archives in");
        }
        match (backup.encrypt_to.is_empty(), backup.unencrypted) {
            (true, false) => {
                let what = "is set, and nobody who opens archives: set backup.encrypt-to, or \
                            backup.unencrypted = true";
                self.add(SCHEDULE, what);
            }
            (false, true) => {
                self.add("backup.unencrypted", "and backup.encrypt-to contradict each other");
            }
            _ => {}
        }
    }
}

/// A subdomain of RFC 1123, as Kubernetes wants names of nodes.
pub fn is_dns_name(name: &str) -> bool {
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
        let config = toml::from_str(text).unwrap();
        let all = alone(&config).into_iter().chain(together(&config));
        all.map(|mistake| mistake.to_string()).collect()
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
            ("pki.leaf-ttl-minutes = 0", "pki.leaf-ttl-minutes 0 is not from 1 to 525600"),
            (
                "pki.leaf-ttl-minutes = 4294967295",
                "pki.leaf-ttl-minutes 4294967295 is not from 1 to 525600",
            ),
            ("api.port = 0", "api.port 0 cannot be taken: it is zero or another daemon's"),
            (
                "network.dns-address = \"fd00::10\"",
                "network.dns-address fd00::10 is not one of the Services' addresses, 10.152.183.0/24",
            ),
            (
                "datastore.endpoint = \"postgres://skiff:secret@db/skiff\"",
                "datastore.endpoint holds a password, which others could read here: put it into a file of root's with mode 0600, and name that as datastore.password-file",
            ),
            (
                "datastore.endpoint = \"https://192.0.2.7\"",
                "datastore.endpoint is believed by its authority: set datastore.ca-file, too",
            ),
            (
                "datastore.password-file = \"/x\"",
                "datastore.password-file is of no use without datastore.endpoint",
            ),
            (
                "datastore = {endpoint = \"https://a\", ca-file = \"/ca\", password-file = \"/x\"}",
                "datastore.password-file is of no use without a database: etcd knows whom it trusts by certificates",
            ),
            (
                "datastore = {endpoint = \"mysql://a@b/c\", ca-file = \"/ca\", key-file = \"/x\"}",
                "datastore.key-file is of no use without datastore.cert-file",
            ),
            (
                "datastore = {endpoint = \"mysql://a@b/c\", password-file = \"x\"}",
                "datastore.password-file \"x\" does not begin with /",
            ),
            (
                "kube.kubelet-args = [\"v=2\"]",
                "kube.kubelet-args holds \"v=2\", which is no flag like \"--v=2\"",
            ),
            (
                "backup.schedule = \"daily\"",
                "backup.schedule \"daily\" is neither \"off\" nor a time like \"6h\"",
            ),
            (
                "backup = {schedule = \"5s\", place = \"/b\", unencrypted = true}",
                "backup.schedule 5s is too often: 60 s at least",
            ),
            (
                "backup.schedule = \"6h\"\nbackup.unencrypted = true",
                "backup.schedule is set, and no backup.place to keep archives in",
            ),
            (
                "backup.schedule = \"6h\"\nbackup.place = \"/b\"",
                "backup.schedule is set, and nobody who opens archives: set backup.encrypt-to, or \
                 backup.unencrypted = true",
            ),
            ("backup.place = \"b\"", "backup.place \"b\" does not begin with /"),
            (
                "backup.encrypt-to = [\"age1me\"]",
                "backup.encrypt-to cannot be used: \"age1me\" is no recipient (age1…)",
            ),
        ] {
            assert_eq!(of(text), [sentence], "{text}");
        }
    }
}
