//! What all nodes of a cluster share and a joiner takes over.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use time::OffsetDateTime;

use super::{Fingerprint, NodeName, ReachedStep, Rest, RotationRecord, SharedSettings};

/// Names below which everything is the cluster's own: the datastore's members, nodes.
const OWN_DOMAIN: &str = "skiff.internal";
/// By these the API server is called.
const API_NAMES: [&str; 3] = ["kubernetes", "kubernetes.default", "localhost"];
/// Where API servers listen when nobody says otherwise.
pub const API_PORT_DEFAULT: u16 = 6443;
/// Authorities that a cluster trusts at once: two while they are replaced, three in a way back.
const AUTHORITIES_MAX: usize = 3;

/// Which cluster.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ClusterId(pub String);

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The cluster as a whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterSettings {
    pub cluster: ClusterId,
    pub pod_cidrs: Vec<IpNet>,
    pub service_cidrs: Vec<IpNet>,
    pub dns_domain: String,
    pub dns_address: IpAddr,
    /// What people call the API server besides: names and addresses.
    #[serde(default)]
    pub api_names: Vec<String>,
    /// Where every API server listens.
    #[serde(default = "api_port_default")]
    pub api_port: u16,
    /// Of the authorities' certificates, the one that signs first.
    pub authorities: Vec<Fingerprint>,
    /// Somebody else's datastore, where every control-plane node keeps Kubernetes' objects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub datastore: Option<String>,
    /// What somebody has set for all nodes.
    #[serde(default, skip_serializing_if = "SharedSettings::is_untouched")]
    pub shared: SharedSettings,
    /// New authorities that take the place of the old ones.
    #[serde(default, skip_serializing_if = "RotationRecord::is_untouched")]
    pub rotation: RotationRecord,
    /// What a newer version wrote and this one does not know.
    #[serde(flatten)]
    pub rest: Rest,
}

fn api_port_default() -> u16 {
    API_PORT_DEFAULT
}

impl ClusterSettings {
    /// What cannot be right.
    pub fn check(&self) -> Result<(), &'static str> {
        if self.pod_cidrs.is_empty() || self.service_cidrs.is_empty() {
            return Err("there is no range for pods or Services");
        }
        if !(1..=AUTHORITIES_MAX).contains(&self.authorities.len()) {
            return Err("there is no authority or too many");
        }
        Ok(())
    }

    /// These in a record that may be out of date, when only one control-plane node is left: new
    /// authorities that were on their way go on from where it is.
    #[must_use]
    pub fn resumed(&self, own: ReachedStep, now: OffsetDateTime) -> Self {
        let rotation = self.rotation.resumed(own, now);
        let authorities = match &rotation.current {
            Some(current) => current.authorities(),
            None => self.authorities.clone(),
        };
        Self { authorities, rotation, ..self.clone() }
    }

    /// Whether a node of this name could pass for something else of the cluster: its certificate
    /// would carry the name of the API server, a Service, or a member of the datastore.
    pub fn reserves_name(&self, name: &NodeName) -> bool {
        let name = name.as_str();
        let below = |domain: &str| {
            let head = name.strip_suffix(domain);
            head.is_some_and(|head| head.is_empty() || head.ends_with('.'))
        };
        API_NAMES.contains(&name)
            || ["svc", "localhost", OWN_DOMAIN, &self.dns_domain].into_iter().any(below)
            || name.contains(".svc.")
            || self.api_names.iter().any(|own| match own.strip_prefix("*.") {
                Some(domain) => below(domain),
                None => own == name,
            })
    }

    /// What an address is that no node can have: a pod's, a Service's, the API server's.
    pub fn reserves_address(&self, address: IpAddr) -> Option<String> {
        for (ranges, whose) in [(&self.pod_cidrs, "pods"), (&self.service_cidrs, "Services")] {
            if let Some(range) = ranges.iter().find(|range| range.contains(&address)) {
                return Some(format!("lies in the cluster's range for {whose}, {range}"));
            }
        }
        let is_api = self.api_names.iter().any(|own| own.parse() == Ok(address));
        is_api.then(|| "is one of the API server's own".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use crate::sample;

    #[test]
    fn a_node_cannot_be_called_like_something_of_the_cluster() {
        let mut settings = sample::settings();
        settings.api_names = vec!["api.example.com".into(), "*.web.example.com".into()];
        for (name, reserved) in [
            ("kubernetes", true),
            ("kubernetes.default", true),
            ("kubernetes.default.svc", true),
            ("kubernetes.default.svc.cluster.local", true),
            ("a.svc.elsewhere", true),
            ("cluster.local", true),
            ("a.cluster.local", true),
            ("localhost", true),
            ("a.localhost", true),
            ("member.datastore.skiff.internal", true),
            ("control-plane.skiff.internal", true),
            ("api.example.com", true),
            ("a.web.example.com", true),
            ("b.example.com", false),
            ("acluster.local", false),
            ("kubernetes-1", false),
            ("svc-1.example.com", false),
        ] {
            assert_eq!(settings.reserves_name(&name.parse().unwrap()), reserved, "{name}");
        }
    }

    #[test]
    fn a_node_cannot_have_the_address_of_something_of_the_cluster() {
        let mut settings = sample::settings();
        settings.api_names = vec!["192.0.2.7".into()];
        for (address, why) in [
            ("10.1.2.3", Some("range for pods")),
            ("10.152.183.1", Some("range for Services")),
            ("192.0.2.7", Some("the API server's own")),
            ("192.0.2.8", None),
        ] {
            let found = settings.reserves_address(address.parse().unwrap());
            assert_eq!(found.is_some(), why.is_some(), "{address}");
            assert!(found.unwrap_or_default().contains(why.unwrap_or_default()), "{address}");
        }
    }
}
