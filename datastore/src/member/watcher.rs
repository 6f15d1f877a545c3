//! Sees who leads: asks the own node, which knows from raft; a spare, which
//! raft tells nothing, believes the others' gossip.

use std::sync::Arc;
use std::time::{Duration, Instant};

use dqlite::{Connection, MemberId, Node};
use tokio::sync::watch;
use tracing::debug;

use super::gossip::HealthTable;

/// How often is asked. The answer is in the node's memory; this is what a
/// change of the leader takes longer than raft needs.
const PERIOD: Duration = Duration::from_millis(20);

/// Tells who leads until nobody listens any more.
pub async fn watch_leader(
    node: Arc<Node>,
    health: Arc<HealthTable>,
    leader: watch::Sender<Option<MemberId>>,
) {
    let mut connection = None;
    let mut was_told = false;
    while !leader.is_closed() {
        let found = match ask(&node, &mut connection).await {
            Ok(found) => found,
            Err(error) => {
                debug!(%error, "the own node does not say who leads");
                connection = None;
                None
            }
        };
        was_told |= found.is_some();
        let claimed = health.claimed_leader(node.id(), Instant::now());
        let found = match claimed {
            // Whom raft made leader is no spare, whatever was true a moment ago.
            _ if found == Some(node.id()) => found,
            Some((id, is_spare)) if is_spare || !was_told => Some(id),
            _ => found,
        };
        leader.send_if_modified(|known| std::mem::replace(known, found) != found);
        tokio::time::sleep(PERIOD).await;
    }
}

async fn ask(
    node: &Node,
    connection: &mut Option<Connection>,
) -> Result<Option<MemberId>, dqlite::Error> {
    let connection = match connection {
        Some(connection) => connection,
        None => connection.insert(node.connect().await?),
    };
    Ok(connection.leader().await?.map(|(id, _)| id))
}
