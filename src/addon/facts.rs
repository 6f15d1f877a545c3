//! Facts of the node that manifests are filled in with.

use std::net::IpAddr;

use serde_json::json;

use super::option::Values;

/// What manifests may ask of the node, as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// `${node.dnsAddress}`: the address of the cluster's DNS.
    pub dns_address: IpAddr,
    /// `${node.domain}`: the domain of the cluster.
    pub domain: String,
    /// `${node.podCidr}` and `${node.serviceCidr}`.
    pub pod_cidr: String,
    pub service_cidr: String,
    /// `${host.resolvers}`: resolvers that pods of this node can reach; none in a cellar.
    pub resolvers: Vec<IpAddr>,
}

impl Facts {
    /// The names under which manifests ask for facts.
    pub const NAMES: [&str; 5] =
        ["node.dnsAddress", "node.domain", "node.podCidr", "node.serviceCidr", "host.resolvers"];

    pub(super) fn values(&self) -> Values {
        Values::from([
            ("node.dnsAddress".into(), json!(self.dns_address)),
            ("node.domain".into(), json!(self.domain)),
            ("node.podCidr".into(), json!(self.pod_cidr)),
            ("node.serviceCidr".into(), json!(self.service_cidr)),
            ("host.resolvers".into(), json!(self.resolvers)),
        ])
    }
}
