//! The first node's share of the pod network, without waiting for the controller that hands them
//! out: that one begins to work seconds after the API server is ready.

use k8s_openapi::api::core::v1::Node as KubeNode;
use kube::Client;
use kube::api::{Api, ListParams, Patch, PatchParams};

use super::bootstrap::FIELD_MANAGER;

/// Prefix length of a node's share (`--node-cidr-mask-size` of the controller manager).
const SHARE_BITS: u8 = 24;

/// The share that the controller gives to the first node. Nothing where the network has no such
/// share; the controller says then what is wrong.
pub fn first_share(pod_cidr: &str) -> Option<String> {
    let (address, bits) = pod_cidr.split_once('/')?;
    let address: std::net::Ipv4Addr = address.parse().ok()?;
    let bits: u8 = bits.parse().ok()?;
    if bits > SHARE_BITS {
        return None;
    }
    let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
    let first = std::net::Ipv4Addr::from(u32::from(address) & mask);
    Some(format!("{first}/{SHARE_BITS}"))
}

/// Gives the node that share when it is alone and has none. The field may be set once and never
/// changed (API reference, NodeSpec), so that whoever comes second, the controller or this, is
/// refused and accepts what is there.
pub async fn assign_first_share(
    client: &Client,
    node: &KubeNode,
    pod_cidr: &str,
) -> Result<(), kube::Error> {
    let has_share = node.spec.as_ref().is_some_and(|spec| spec.pod_cidr.is_some());
    let (Some(name), Some(share), false) = (&node.metadata.name, first_share(pod_cidr), has_share)
    else {
        return Ok(());
    };
    let api: Api<KubeNode> = Api::all(client.clone());
    if api.list(&ListParams::default().limit(2)).await?.items.len() != 1 {
        return Ok(());
    }
    let patch = serde_json::json!({ "spec": { "podCIDR": share, "podCIDRs": [share] } });
    let params = PatchParams { field_manager: Some(FIELD_MANAGER.into()), ..Default::default() };
    match api.patch(name, &params, &Patch::Strategic(&patch)).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(refusal)) if refusal.code == 422 => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_share_is_the_lowest_of_the_network() {
        assert_eq!(first_share("10.1.0.0/16").as_deref(), Some("10.1.0.0/24"));
        assert_eq!(first_share("10.1.77.9/16").as_deref(), Some("10.1.0.0/24"));
        assert_eq!(first_share("192.168.5.0/24").as_deref(), Some("192.168.5.0/24"));
        assert_eq!(first_share("0.0.0.0/0").as_deref(), Some("0.0.0.0/24"));
    }

    #[test]
    fn a_network_without_a_share_has_none() {
        for cidr in ["10.1.0.0/25", "10.1.0.0/33", "fd00::/48", "10.1.0.0", "x/16", ""] {
            assert_eq!(first_share(cidr), None, "{cidr}");
        }
    }
}
