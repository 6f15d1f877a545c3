//! The members of the datastore, as the nodes on which they run.

use std::time::Duration;

use microcluster::message::{Refusal, RefusalCode};
use microcluster::record::{ClusterRecord, NodeId};
use skiff_datastore::Listen;
use skiff_datastore::member::report::{self, MemberReport, OperatorError};

use crate::paths::Paths;

/// Between two tries while another member is just becoming the leader.
const PAUSE: Duration = Duration::from_secs(1);
/// Tries, each of which may take the datastore's own patience.
const TRIES_MAX: u32 = 3;

/// All of them, as this node's datastore knows.
pub async fn list(paths: &Paths) -> Result<Vec<MemberReport>, OperatorError> {
    report::members(&listen(paths)).await
}

/// What a node does for the datastore.
pub fn role_of(members: &[MemberReport], node: NodeId) -> Option<String> {
    let node = node.to_string();
    let member = members.iter().find(|member| member.node == node)?;
    Some(if member.leads { "leader" } else { member.role }.to_owned())
}

/// Has the members on a node removed for good: one, and what it was before its disk was damaged.
/// Nothing happens where there is none. Refused when too few that vote would be left.
pub async fn remove(paths: &Paths, node: NodeId) -> Result<(), OperatorError> {
    let mut tries_left = TRIES_MAX;
    loop {
        tries_left -= 1;
        match remove_once(paths, &node.to_string()).await {
            Err(OperatorError::Connect { .. } | OperatorError::Unavailable(_))
                if tries_left > 0 =>
            {
                tokio::time::sleep(PAUSE).await;
            }
            outcome => return outcome,
        }
    }
}

/// Has those removed whose nodes were: a join that was given up, or a removal that was cut off.
pub async fn reconcile(
    paths: &Paths,
    members: &[MemberReport],
    record: &ClusterRecord,
) -> Result<(), OperatorError> {
    for member in members {
        let node = member.node.parse::<NodeId>();
        if node.is_ok_and(|node| record.removed.contains_key(&node)) {
            tracing::info!(member = member.id, "the datastore forgets the member of a former node");
            report::remove(&listen(paths), &member.id).await?;
        }
    }
    Ok(())
}

/// In the words of the protocol.
pub fn refusal(error: &OperatorError) -> Refusal {
    match error {
        OperatorError::Refused(reason) => {
            let message = format!("the datastore keeps the node's member: {reason}");
            Refusal::new(RefusalCode::StillNeeded, message)
                .hint("bring the other control-plane nodes back first; `skiff nodes` lists them")
        }
        error => {
            let causes =
                std::iter::successors(Some(error as &dyn std::error::Error), |e| e.source());
            let causes: Vec<String> = causes.map(ToString::to_string).collect();
            Refusal::new(RefusalCode::Unavailable, causes.join(": "))
                .hint("try again in a moment; `skiff status` says how this node is")
        }
    }
}

async fn remove_once(paths: &Paths, node: &str) -> Result<(), OperatorError> {
    let mut members = list(paths).await?;
    members.retain(|member| member.node == node);
    // The one that serves last: when another is refused, the node still has it.
    members.sort_by_key(|member| member.reachable);
    for member in &members {
        report::remove(&listen(paths), &member.id).await?;
    }
    Ok(())
}

fn listen(paths: &Paths) -> Listen {
    Listen::Unix(paths.datastore_socket())
}
