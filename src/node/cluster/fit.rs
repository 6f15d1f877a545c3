//! Whether a machine goes together with the cluster that would take it: what only the machine
//! itself can see, looked at before anything has changed on either side.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;
use microcluster::message::Asked;
use microcluster::record::{ClusterSettings, NodeRole};
use tokio::net::TcpStream;

use crate::host::address::{self, Candidate};
use crate::host::{Route, routes};

/// How long an API server may take to let somebody in.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

#[derive(Debug, thiserror::Error)]
pub enum FitError {
    #[error(
        "this machine sends {route} by its link {link}, and the cluster has {range} for {whose}: \
         some of them could not be reached"
    )]
    Route { route: IpNet, link: String, range: IpNet, whose: &'static str },
    #[error("this machine has the address {address}, and the cluster has {range} for {whose}")]
    Address { address: IpAddr, range: IpNet, whose: &'static str },
    #[error("no API server of the cluster can be reached from this machine: {0}")]
    Api(String),
}

impl FitError {
    /// What to do next.
    pub fn hint(&self) -> String {
        match self {
            Self::Route { route, .. } => format!(
                "ip route delete {route}, or another range for that link: the cluster's are decided"
            ),
            Self::Address { .. } => {
                "give that link an address of another range: the cluster's are decided".into()
            }
            Self::Api(_) => "let this machine in there: its kubelet needs that port".into(),
        }
    }
}

/// Looks at all of it.
pub async fn check(cluster: &Asked) -> Result<(), FitError> {
    check_ranges(&cluster.settings, &routes(), &address::candidates())?;
    check_api(cluster).await
}

/// A route to a part of a range takes packets away from pods or Services there. One that is wider
/// takes none: what leads to pods is narrower.
fn check_ranges(
    settings: &ClusterSettings,
    routes: &[Route],
    addresses: &[Candidate],
) -> Result<(), FitError> {
    let pods = settings.pod_cidrs.iter().map(|range| (*range, "pods"));
    let services = settings.service_cidrs.iter().map(|range| (*range, "Services"));
    for (range, whose) in pods.chain(services) {
        if let Some(route) = routes.iter().find(|route| range.contains(&route.destination)) {
            let (route, link) = (route.destination, route.link.clone());
            return Err(FitError::Route { route, link, range, whose });
        }
        if let Some(own) = addresses.iter().find(|own| range.contains(&own.address)) {
            return Err(FitError::Address { address: own.address, range, whose });
        }
    }
    Ok(())
}

/// One is enough: the balancer looks for those that are well.
async fn check_api(cluster: &Asked) -> Result<(), FitError> {
    let of_control_plane =
        cluster.members.iter().filter(|member| member.role == NodeRole::ControlPlane);
    let servers = of_control_plane.filter_map(|member| member.addresses.first());
    let tries = servers.map(|address| {
        let server = SocketAddr::new(*address, cluster.settings.api_port);
        Box::pin(async move { reach(server).await.map_err(|why| format!("{server}: {why}")) })
    });
    let mut failures = Vec::new();
    let mut left: Vec<_> = tries.collect();
    if left.is_empty() {
        return Ok(());
    }
    while !left.is_empty() {
        let (outcome, _, others) = futures::future::select_all(left).await;
        match outcome {
            Ok(()) => return Ok(()),
            Err(failure) => failures.push(failure),
        }
        left = others;
    }
    Err(FitError::Api(failures.join("; ")))
}

async fn reach(server: SocketAddr) -> Result<(), String> {
    match tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(server)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
            Err("the connection is refused".into())
        }
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("nothing answers within {} s", CONNECT_TIMEOUT.as_secs())),
    }
}

#[cfg(test)]
mod tests {
    use microcluster::record::{ClusterId, Fingerprint, Rest, RotationRecord, SharedSettings};

    use super::*;

    fn settings() -> ClusterSettings {
        ClusterSettings {
            cluster: ClusterId("c".into()),
            pod_cidrs: vec!["10.1.0.0/16".parse().unwrap()],
            service_cidrs: vec!["10.152.183.0/24".parse().unwrap()],
            dns_domain: "cluster.local".into(),
            dns_address: [10, 152, 183, 10].into(),
            api_names: vec![],
            api_port: 6443,
            authorities: vec![Fingerprint::of(b"authority")],
            datastore: None,
            shared: SharedSettings::default(),
            rotation: RotationRecord::default(),
            rest: Rest::default(),
        }
    }

    fn checked(routes: &[&str], addresses: &[&str]) -> Result<(), String> {
        let route =
            |text: &&str| Route { destination: text.parse().unwrap(), link: "eth1".to_owned() };
        let routes: Vec<Route> = routes.iter().map(route).collect();
        let own =
            |text: &&str| Candidate { address: text.parse().unwrap(), on_default_route: false };
        let addresses: Vec<Candidate> = addresses.iter().map(own).collect();
        check_ranges(&settings(), &routes, &addresses).map_err(|error| {
            assert!(!error.hint().is_empty());
            error.to_string()
        })
    }

    #[test]
    fn a_route_into_the_clusters_ranges_is_found_and_a_wider_one_does_no_harm() {
        for (route, whose) in [
            ("10.1.0.0/16", "10.1.0.0/16 for pods"),
            ("10.1.7.0/24", "10.1.0.0/16 for pods"),
            ("10.152.183.10/32", "10.152.183.0/24 for Services"),
        ] {
            let refused = checked(&["192.168.1.0/24", route], &[]).unwrap_err();
            assert!(refused.contains(whose) && refused.contains("eth1"), "{refused}");
        }
        for route in ["10.0.0.0/8", "10.2.0.0/16", "fd00::/64"] {
            assert_eq!(checked(&[route], &["192.168.1.2"]), Ok(()));
        }
    }

    #[test]
    fn an_address_in_the_clusters_ranges_is_found() {
        let refused = checked(&["10.0.0.0/8"], &["192.168.1.2", "10.1.7.8"]).unwrap_err();
        assert!(refused.contains("the address 10.1.7.8"), "{refused}");
    }
}
