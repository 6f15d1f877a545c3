//! From what is observed to what is said: conditions, phase, status. Pure.

use skiff_api::{Condition, Notice, Phase, Service, ServiceState};

use super::observed::Observed;
use crate::daemons;

/// The condition that the cluster has taken this node as a member.
pub const JOINED: &str = "joined";

/// The notice of a node that the cluster does not know any more.
pub const REMOVED: &str = "removed-from-cluster";

/// The condition that a datastore of somebody else's answers.
pub const EXTERNAL_DATASTORE: &str = "external-datastore";

/// The notice that too few of the datastore's voters are there.
pub const NO_QUORUM: &str = "no-quorum";

/// What must hold for a node to be ready, in the order in which it comes true.
pub fn conditions(observed: &Observed) -> Vec<Condition> {
    let mut conditions = Vec::with_capacity(7);
    if let Some(failure) = &observed.failure {
        conditions.push(condition("prepared", false, failure));
    }
    let external = observed.external.as_ref();
    if let Some(external) = external {
        let reason = external.failure.as_deref().unwrap_or_default();
        let message = format!("{} does not answer: {reason}", external.what);
        conditions.push(condition(EXTERNAL_DATASTORE, external.failure.is_none(), &message));
    }
    let kept = external.map(|external| external.kept).unwrap_or_default();
    for name in daemons::names(observed.role, kept) {
        conditions.push(match observed.services.iter().find(|s| s.name == name) {
            Some(service) => of_service(service),
            None => condition(name, false, "not started yet"),
        });
    }
    let node = &observed.node;
    let unregistered = "waiting for the kubelet to register the node";
    conditions.push(condition("node-registered", node.registered, unregistered));
    let unready = if node.message.is_empty() {
        "waiting for the kubelet to call the node ready"
    } else {
        node.message.as_str()
    };
    let (holds, message) = match (node.registered && node.ready, node.api_complete) {
        (true, false) => (false, "waiting for the API server to create the cluster's roles"),
        (ready, _) => (ready, unready),
    };
    conditions.push(condition("node-ready", holds, message));
    if observed.role.is_some() {
        let message = "waiting for the cluster to take this node as a member";
        conditions.push(condition(JOINED, !observed.joining, message));
    }
    conditions
}

/// What this version does not do yet and a user would rather know before relying on it.
pub fn standing_notices() -> Vec<Notice> {
    let notice = |name: &str, message: &str, remedy: &str| Notice {
        name: name.into(),
        message: message.into(),
        remedy: Some(remedy.into()),
    };
    vec![
        notice(
            "network-policy-not-enforced",
            "NetworkPolicy objects are stored but not enforced: every pod reaches every pod",
            "separate what must not meet by node or by cluster until Skiff enforces them",
        ),
        notice(
            "load-balancer-pending",
            "Services of type LoadBalancer get no address and stay pending",
            "use a NodePort, or a controller of your own",
        ),
    ]
}

/// Where the node is in its life.
pub fn phase(observed: &Observed, conditions: &[Condition]) -> Phase {
    let all_stopped = observed.services.iter().all(|s| s.state == ServiceState::Stopped);
    if observed.stopping {
        return if all_stopped { Phase::Stopped } else { Phase::Stopping };
    }
    let broken = observed.failure.is_some()
        || observed.services.iter().any(|s| s.state == ServiceState::CrashLoop);
    if conditions.iter().all(|c| c.holds) {
        Phase::Ready
    } else if broken || observed.was_ready {
        Phase::Degraded
    } else {
        Phase::Starting
    }
}

fn of_service(service: &Service) -> Condition {
    let holds = service.state == ServiceState::Ready;
    let message = match (service.message.is_empty(), service.state) {
        (false, _) => service.message.clone(),
        (true, ServiceState::Stopped) => "stopped".into(),
        (true, ServiceState::Waiting) => "waiting for what it needs".into(),
        (true, ServiceState::Stopping) => "being stopped".into(),
        (true, _) => "waiting for it to answer".into(),
    };
    condition(&service.name, holds, &message)
}

fn condition(name: &str, holds: bool, message: &str) -> Condition {
    let message = if holds { String::new() } else { message.to_owned() };
    Condition { name: name.to_owned(), holds, message }
}

#[cfg(test)]
mod tests {
    use super::super::observed::{DatastoreView, NodeView};
    use super::*;
    use crate::daemons::{Kept, containerd, datastore, kube_control, kube_node};

    fn service(name: &str, state: ServiceState) -> Service {
        Service {
            name: name.into(),
            state,
            message: String::new(),
            last_log: vec![],
            pid: None,
            since: String::new(),
            restarts: 0,
            cpu_s: None,
            memory_bytes: None,
        }
    }

    fn all(state: ServiceState) -> Observed {
        let names = [datastore::NAME, containerd::NAME, kube_control::NAME, kube_node::NAME];
        Observed {
            services: names.iter().map(|name| service(name, state)).collect(),
            node: NodeView {
                registered: true,
                api_complete: true,
                ready: true,
                message: String::new(),
            },
            ..Observed::default()
        }
    }

    fn phase_of(observed: &Observed) -> Phase {
        phase(observed, &conditions(observed))
    }

    #[test]
    fn a_node_is_ready_when_every_condition_holds() {
        assert_eq!(phase_of(&all(ServiceState::Ready)), Phase::Ready);
    }

    #[test]
    fn a_new_node_waits_for_each_daemon_in_order_and_says_so() {
        let observed = Observed::default();
        let names: Vec<_> = conditions(&observed).into_iter().map(|c| c.name).collect();
        assert_eq!(
            names,
            [
                "datastore",
                "containerd",
                "kube-control",
                "kube-node",
                "node-registered",
                "node-ready"
            ]
        );
        assert_eq!(phase_of(&observed), Phase::Starting);
    }

    #[test]
    fn a_node_that_was_ready_is_degraded_when_a_condition_falls() {
        let mut observed = all(ServiceState::Ready);
        observed.was_ready = true;
        observed.node.ready = false;
        observed.node.message = "container runtime is down".into();
        assert_eq!(phase_of(&observed), Phase::Degraded);
        let last = conditions(&observed).pop().unwrap();
        assert_eq!(last.message, "container runtime is down");
    }

    #[test]
    fn a_node_is_not_ready_before_anybody_is_allowed_anything() {
        let mut observed = all(ServiceState::Ready);
        observed.node.api_complete = false;
        assert_eq!(phase_of(&observed), Phase::Starting);
        let last = conditions(&observed).pop().unwrap();
        assert_eq!(last.message, "waiting for the API server to create the cluster's roles");
    }

    #[test]
    fn a_crash_loop_degrades_a_node_that_never_was_ready() {
        let mut observed = all(ServiceState::Ready);
        observed.services[0].state = ServiceState::CrashLoop;
        assert_eq!(phase_of(&observed), Phase::Degraded);
    }

    #[test]
    fn a_node_that_stops_is_stopped_when_its_last_daemon_is() {
        let mut observed = all(ServiceState::Ready);
        observed.stopping = true;
        assert_eq!(phase_of(&observed), Phase::Stopping);
        let mut observed = all(ServiceState::Stopped);
        observed.stopping = true;
        assert_eq!(phase_of(&observed), Phase::Stopped);
    }

    #[test]
    fn an_external_datastore_that_does_not_answer_is_told_first_with_what_it_is() {
        let mut observed = all(ServiceState::Ready);
        observed.services.remove(0);
        let what = "etcd at https://a:2379".to_owned();
        let external = DatastoreView { kept: Kept::Etcd, what, failure: None };
        observed.external = Some(external.clone());
        assert_eq!(phase_of(&observed), Phase::Ready);
        let failure = Some("connection refused".into());
        observed.external = Some(DatastoreView { failure, ..external });
        observed.was_ready = true;
        assert_eq!(phase_of(&observed), Phase::Degraded);
        let first = conditions(&observed).swap_remove(0);
        assert_eq!(first.name, "external-datastore");
        assert_eq!(first.message, "etcd at https://a:2379 does not answer: connection refused");
    }

    #[test]
    fn a_node_that_cannot_be_prepared_says_why() {
        let observed = Observed { failure: Some("no space left".into()), ..Observed::default() };
        assert_eq!(phase_of(&observed), Phase::Degraded);
        assert_eq!(conditions(&observed)[0].message, "no space left");
    }
}
