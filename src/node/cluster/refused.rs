//! Tells this node's API server who does not belong to the cluster any more.
//!
//! ```text
//!   the record ─changes─> etc/kube-control/refused.json ─every second─> a rule ahead of all others
//! ```
//!
//! A certificate is good for hours after its node was removed. The file names the ids that it
//! carries; what the API server does with it is said in `components/kube/refusals.go`. Every
//! control-plane node follows the record by itself, so it makes no difference where the removal was
//! asked for.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use microcluster::record::{NodeId, RemovedRecord, Revision, Versioned};
use serde_json::json;

use super::Cluster;
use crate::daemons::{datastore, kube_control};
use crate::node::core::Node;
use crate::pki::{StoreError, write_private};

/// How often the file is looked at although nothing has changed: a damaged one heals within this.
const CHECK_INTERVAL: Duration = Duration::from_secs(15);
/// Before the record is asked again that could not be read.
const PAUSE: Duration = Duration::from_secs(1);

type Removed = BTreeMap<NodeId, Versioned<RemovedRecord>>;

/// Ends with the supervisor. Nothing is written while the record cannot be read: what was written
/// last stays in force.
pub async fn run(node: Arc<Node>, cluster: Arc<Cluster>) {
    let Some(desk) = &cluster.desk else { return };
    let path = kube_control::refused(&cluster.paths);
    let (mut seen, mut told) = (Revision::default(), String::new());
    loop {
        // While it is away there is nothing to be asked.
        if node.supervisor.wait_ready(&[datastore::NAME.into()]).await.is_err() {
            return;
        }
        let later = desk.record_later_than(seen);
        let outcome = match tokio::time::timeout(CHECK_INTERVAL, later).await {
            Err(_) => {
                seen = Revision::default();
                continue;
            }
            Ok(Ok(record)) => {
                seen = record.revision;
                store(&path, &content(&record.removed))
                    .map_err(|error| super::upkeep::chain(&error))
            }
            Ok(Err(error)) => {
                tracing::debug!(%error, "who was removed cannot be read");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        match outcome {
            // Their Node objects go, too.
            Ok(true) => cluster.wake(),
            Ok(false) => {}
            Err(reason) => {
                if reason != told {
                    tracing::error!(reason, "the API server cannot be told who was removed");
                    told = reason;
                }
                seen = Revision::default();
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// A sentence for each id, which whoever comes with it is told.
fn content(removed: &Removed) -> String {
    let sentence = |removed: &RemovedRecord| {
        let reason = removed.reason.sentence();
        let remedy = "`sudo skiff reset` on it cleans it, then it may join with a new token";
        format!("this node {reason}: {remedy}")
    };
    let line = |(id, removed): (&NodeId, &Versioned<_>)| (id.to_string(), sentence(&removed.value));
    let lines: BTreeMap<String, String> = removed.iter().map(line).collect();
    json!({ "refused": lines }).to_string()
}

/// Writes the file in one step, when it is not so already; whether it did.
fn store(path: &Path, content: &str) -> Result<bool, StoreError> {
    if fs::read(path).is_ok_and(|there| there == content.as_bytes()) {
        return Ok(false);
    }
    write_private(path, content.as_bytes(), 0o644, (0, 0))?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use microcluster::record::RemovalReason;
    use time::OffsetDateTime;

    use super::*;

    fn removed(all: &[(&[u8], RemovalReason)]) -> Removed {
        let line = |(key, reason): &(&[u8], RemovalReason)| {
            let (id, when) = (NodeId::of_key(key), OffsetDateTime::UNIX_EPOCH);
            let value = RemovedRecord { id, name: None, role: None, reason: *reason, when };
            (id, Versioned { revision: Revision(1), value })
        };
        all.iter().map(line).collect()
    }

    #[test]
    fn everybody_who_is_over_is_named_with_the_reason_and_what_to_type() {
        assert_eq!(content(&removed(&[])), r#"{"refused":{}}"#);
        let text = content(&removed(&[
            (b"beta", RemovalReason::Removed),
            (b"gamma", RemovalReason::Undone),
        ]));
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        let sentence = |key: &[u8]| {
            value["refused"][NodeId::of_key(key).to_string()].as_str().unwrap().to_owned()
        };
        assert_eq!(
            sentence(b"beta"),
            "this node was removed from the cluster: `sudo skiff reset` on it cleans it, then it \
             may join with a new token"
        );
        assert!(sentence(b"gamma").starts_with("this node gave up joining: "));
    }

    #[test]
    fn the_file_is_written_when_it_is_not_as_it_should_be() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("refused.json");
        assert!(store(&path, "{}").unwrap());
        assert!(!store(&path, "{}").unwrap());
        fs::write(&path, "damaged").unwrap();
        assert!(store(&path, "{}").unwrap());
        assert_eq!(fs::read_to_string(&path).unwrap(), "{}");
    }
}
