//! What the local API answers about the cluster.

use std::sync::Arc;

use http::{Method, StatusCode};
use hyper::body::Bytes;
use microcluster::desk::{Desk, SystemClock};
use microcluster::protocol::{Outcome, RemoveRequest, decide_remove};
use microcluster::record::{NodeName, NodeRole};
use microcluster::store::Store;
use skiff_api::{ClusterNode, ErrorBody, NodeState, Progress, TokenRequest};
use time::OffsetDateTime;

use super::ask::AskError;
use super::rotate::{self, RotateError};
use super::signer::AuthoritySigner;
use super::upkeep::{chain, look};
use super::{Cluster, ClusterDesk, alone, found, nodes, quorum, removal, rotation_of, token};
use crate::node::core::Node;
use crate::node::server::{Answer, Refusal, error_body, json, json_work, read, unknown};

/// Answers what stands below `/v1/cluster`.
pub async fn route(node: &Arc<Node>, method: &Method, words: &[&str], body: &Bytes) -> Answer {
    match (method.as_str(), words) {
        ("POST", ["found"]) => Ok(begin(node)),
        ("GET", ["nodes"]) => list(node).await,
        ("GET", ["quorum"]) => seen_quorum(node),
        ("POST", ["nodes", name, "remove"]) => remove(node, name, &read(body)?).await,
        ("GET", ["tokens"]) => tokens(node).await,
        ("POST", ["tokens"]) => {
            let (cluster, request) = (control_plane(node)?, read::<TokenRequest>(body)?);
            let added = token::add(&cluster, desk(&cluster)?, &request).await;
            added.map(|token| json(&token)).map_err(declined)
        }
        ("POST", ["tokens", id, "revoke"]) => {
            let cluster = control_plane(node)?;
            let revoked = token::revoke(desk(&cluster)?, id).await;
            revoked.map(|()| json(&())).map_err(declined)
        }
        _ => Err(unknown(method, &format!("/v1/cluster/{}", words.join("/")))),
    }
}

fn begin(node: &Arc<Node>) -> http::Response<crate::node::server::Body> {
    let node = node.clone();
    json_work(|progress| async move {
        let reporter = progress.clone();
        let report = move |line| drop(reporter.try_send(line));
        let last = match found(&node, &report).await {
            Ok(changed) => Progress::Done { message: "the cluster is there".into(), changed },
            Err(error) => {
                let error = ErrorBody { hint: error.hint(), ..error_body(&error) };
                Progress::Failed { error }
            }
        };
        // Nobody reads when the client went away; the work is done all the same.
        let _ = progress.send(last).await;
    })
}

/// A lone node is a cluster of one.
async fn list(node: &Arc<Node>) -> Answer {
    let Some(cluster) = node.cluster() else {
        let status = node.status();
        let state = match status.phase {
            skiff_api::Phase::Ready => NodeState::Ready,
            _ => NodeState::NotReady,
        };
        return Ok(json(&[ClusterNode {
            name: status.node,
            role: "control-plane".into(),
            datastore: None,
            state,
            addresses: status.address.into_iter().collect(),
            version: status.version,
            kubernetes: status.kubernetes,
            certificate_expires: None,
            last_contact: None,
            settings: Some(node.own_settings()),
        }]));
    };
    if let Some(refusal) = quorum::refusal(&cluster) {
        return Err(refusal);
    }
    nodes::list(node, &cluster).await.map(|nodes| json(&nodes)).map_err(|error| asked(&error))
}

fn seen_quorum(node: &Arc<Node>) -> Answer {
    if node.cluster().is_none() {
        let message = "this node is in no cluster of several: there is no quorum to lose";
        return Err(Refusal::new(StatusCode::CONFLICT, message).hint("skiff status"));
    }
    Ok(json(&quorum::seen(&*control_plane(node)?)))
}

async fn tokens(node: &Arc<Node>) -> Answer {
    if node.cluster().is_none() {
        return Ok(json::<[skiff_api::Token; 0]>(&[]));
    }
    let cluster = control_plane(node)?;
    let record = desk(&cluster)?.record().await.map_err(declined)?;
    Ok(json(&token::list(&record, OffsetDateTime::now_utc())))
}

async fn remove(node: &Arc<Node>, name: &str, request: &skiff_api::RemoveRequest) -> Answer {
    let cluster = control_plane(node)?;
    let unprocessable = StatusCode::UNPROCESSABLE_ENTITY;
    let parsed: NodeName = name.parse().map_err(|error: microcluster::record::NodeNameError| {
        Refusal::new(unprocessable, error.to_string()).hint("skiff nodes")
    })?;
    let desk = desk(&cluster)?;
    let record = desk.record().await.map_err(declined)?;
    let is_reachable = match record.members.get(&parsed) {
        Some(member) if !request.force => {
            nodes::is_reachable(&member.value.view(), node.context().kubelet_port).await
        }
        _ => false,
    };
    let here = cluster.membership().name;
    let request = RemoveRequest { name: parsed, force: request.force, is_reachable, here };
    let member = record.members.get(&request.name).map(|member| &member.value);
    let outcome = match member.filter(|member| member.role == NodeRole::ControlPlane) {
        Some(member) => {
            decide_remove(&record, &request, OffsetDateTime::now_utc()).map_err(declined)?;
            removal::remove(&cluster, desk, &request, member.id).await
        }
        None => desk.remove(&request).await,
    };
    let outcome = outcome.map_err(declined)?;
    cluster.wake();
    let held_keys = matches!(outcome, Outcome::Removed { held_keys: true, .. });
    Ok(json(&skiff_api::Removed { held_keys }))
}

/// Answers what stands below `/v1/authorities`: how far it is then.
pub async fn authorities(node: &Arc<Node>, action: &str, body: &Bytes) -> Answer {
    if let Some(cluster) = node.worker_of() {
        return Err(on_worker(&cluster));
    }
    // Nobody looks for keys that belong to nothing while they are made.
    let _still = match action {
        "rotate" => Some(node.setting.lock().await),
        _ => None,
    };
    match node.cluster() {
        Some(cluster) => {
            let desk = desk(&cluster)?;
            act(node, desk, action, body).await?;
            if let Err(error) = look(node, &cluster, desk).await {
                tracing::debug!(reason = chain(&error), "the record is looked at later");
            }
        }
        None => {
            let _alone = node.rotation_turn.lock().await;
            let desk = alone::desk(node).map_err(|error| Refusal::from_error(&error))?;
            let desk = desk.ok_or_else(|| {
                Refusal::new(StatusCode::CONFLICT, "the keys of this node cannot be read")
            })?;
            act(node, &desk, action, body).await?;
        }
    }
    node.rotation_wake.notify_one();
    Ok(json(&rotation_of(node)))
}

async fn act<S: Store>(
    node: &Node,
    desk: &Desk<S, AuthoritySigner, SystemClock>,
    action: &str,
    body: &Bytes,
) -> Result<(), Refusal> {
    let done = match action {
        "rotate" => rotate::begin(node, desk, &read(body)?).await,
        "back" => rotate::back(node, desk).await,
        "finish" => desk.finish_rotation().await.map_err(RotateError::Refused),
        other => return Err(unknown(&Method::POST, &format!("/v1/authorities/{other}"))),
    };
    match done {
        Ok(_) => Ok(()),
        Err(RotateError::Refused(refusal)) => Err(declined(refusal)),
        Err(error) => {
            let refusal = Refusal::from_error(&error);
            Err(match error.hint() {
                Some(hint) => refusal.hint(hint),
                None => refusal,
            })
        }
    }
}

/// The cluster on a node that decides about it.
fn control_plane(node: &Arc<Node>) -> Result<Arc<Cluster>, Refusal> {
    let refused = |message: &str| Refusal::new(StatusCode::CONFLICT, message);
    let cluster = node.cluster().ok_or_else(|| {
        refused("this node is alone: there is no cluster yet").hint("skiff add-node")
    })?;
    match cluster.desk {
        Some(_) => Ok(cluster),
        None => Err(on_worker(&cluster)),
    }
}

/// What a worker answers to what only a control-plane node does.
pub fn on_worker(cluster: &Cluster) -> Refusal {
    let refusal = Refusal::new(StatusCode::CONFLICT, "this node is a worker of its cluster");
    let part = cluster.membership().part(None);
    match part.control_plane.first() {
        Some((name, address)) => refusal.hint(format!("type it on {name} ({address})")),
        None => refusal,
    }
}

/// Who decides, unless nobody can.
pub(in crate::node) fn desk(cluster: &Cluster) -> Result<&ClusterDesk, Refusal> {
    if let Some(refusal) = quorum::refusal(cluster) {
        return Err(refusal);
    }
    cluster.desk.as_ref().ok_or_else(|| on_worker(cluster))
}

/// A refusal of the protocol, in the words of the local API.
pub(in crate::node) fn declined(refusal: microcluster::message::Refusal) -> Refusal {
    let answer = Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, refusal.message);
    if refusal.hint.is_empty() { answer } else { answer.hint(refusal.hint) }
}

fn asked(error: &AskError) -> Refusal {
    let answer = Refusal::from_error(error);
    match error.hint() {
        Some(hint) => answer.hint(hint),
        None => answer,
    }
}
