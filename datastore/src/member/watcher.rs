//! Sees who leads: asks the own node, which knows from raft; whom raft tells
//! nothing, because it does not vote, believes the others' gossip.

use std::sync::Arc;
use std::time::Duration;

use dqlite::{Connection, MemberId, Role};
use tokio::sync::watch;
use tracing::debug;

use super::gossip::{Claim, HealthTable};
use crate::clock;
use crate::store::node::SqlNode;

/// How often is asked. The answer is in the node's memory; this is what a
/// change of the leader takes longer than raft needs.
const PERIOD: Duration = Duration::from_millis(20);

/// Tells who leads until nobody listens any more.
pub async fn watch_leader(
    node: Arc<dyn SqlNode>,
    health: Arc<HealthTable>,
    leader: watch::Sender<Option<MemberId>>,
) {
    let mut connection = None;
    let mut was_told = false;
    while !leader.is_closed() {
        let found = match ask(&*node, &mut connection).await {
            Ok(found) => found,
            Err(error) => {
                debug!(%error, "the own node does not say who leads");
                connection = None;
                None
            }
        };
        was_told |= found.is_some();
        let claim = health.claim(node.id(), clock::now());
        let found = choose_leader(node.id(), found, was_told, claim);
        leader.send_if_modified(|known| std::mem::replace(known, found) != found);
        tokio::time::sleep(PERIOD).await;
    }
}

/// Whom to follow, from what raft says and a member claims. A wrong guess does
/// no harm: whoever does not lead refuses to be followed.
fn choose_leader(
    own: MemberId,
    told: Option<MemberId>,
    was_told: bool,
    claim: Option<Claim>,
) -> Option<MemberId> {
    let Some(claim) = claim else { return told };
    let believes = match claim.role {
        // Whom raft made leader is no spare, whatever was true a moment ago.
        Role::Spare => told != Some(own),
        // Raft may not name the leader to one that lost its vote.
        Role::Standby => told.is_none(),
        // At first raft waits for the leader's next word.
        Role::Voter => told.is_none() && !was_told,
    };
    if believes { Some(claim.leader) } else { told }
}

async fn ask(
    node: &dyn SqlNode,
    connection: &mut Option<Connection>,
) -> Result<Option<MemberId>, dqlite::Error> {
    let connection = match connection {
        Some(connection) => connection,
        None => connection.insert(node.connect().await?),
    };
    Ok(connection.leader().await?.map(|(id, _)| id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn raft_is_believed_by_voters_and_gossip_by_those_whom_raft_tells_nothing() {
        let (own, other, third) = (MemberId(1), MemberId(2), MemberId(3));
        let claim = |role| Some(Claim { leader: third, role });
        for (told, was_told, claim, expected) in [
            (Some(other), true, None, Some(other)),
            (None, true, None, None),
            (Some(other), true, claim(Role::Voter), Some(other)),
            // An election: whoever led until now still says so.
            (None, true, claim(Role::Voter), None),
            (None, false, claim(Role::Voter), Some(third)),
            (Some(other), true, claim(Role::Standby), Some(other)),
            (None, true, claim(Role::Standby), Some(third)),
            (Some(other), true, claim(Role::Spare), Some(third)),
            (Some(own), true, claim(Role::Spare), Some(own)),
        ] {
            let chosen = choose_leader(own, told, was_told, claim);
            assert_eq!(chosen, expected, "{told:?} {was_told} {claim:?}");
        }
    }
}
