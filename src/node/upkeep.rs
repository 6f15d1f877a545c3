//! What must stay true while everything runs: leaves that do not expire, the node's address, and
//! what a person is told of the disk.

use std::sync::Arc;
use std::time::Duration;

use skiff_api::{Notice, Phase};
use time::OffsetDateTime;

use super::core::Node;
use super::{prepare, space};
use crate::config::keep_name;
use crate::distribution;

/// How often clock and addresses are looked at. A jump of the clock or a new address is noticed
/// within this time.
const INTERVAL: Duration = Duration::from_secs(5);

/// Turns in a row that see the node ready before its build has proven itself.
const TURNS_OF_PROOF: u32 = 3;

/// The notice of a node whose machine has another name now.
const RENAMED: &str = "machine-renamed";

/// Never ends. A failure is logged and tried again at the next turn: nothing expires that soon.
pub async fn run(node: Arc<Node>) {
    let mut due = OffsetDateTime::UNIX_EPOCH;
    let mut last = OffsetDateTime::now_utc();
    let mut facts = node.facts();
    let mut ready = 0u32;
    let mut settings = node.config.subscribe();
    loop {
        tokio::time::sleep(INTERVAL).await;
        let now = OffsetDateTime::now_utc();
        watch_space(&node);
        watch_name(&node);
        ready = if node.status().phase == Phase::Ready { ready.saturating_add(1) } else { 0 };
        if ready == TURNS_OF_PROOF {
            prove(&node);
        }
        let moved = node.follow_address().await;
        if facts != node.facts() {
            facts = node.facts();
            node.reconcile_addons().await;
        }
        let jumped = now < last || now - last > 12 * INTERVAL;
        last = now;
        // Leaves may have got another life.
        let changed = settings.has_changed().unwrap_or_default();
        if now < due && !moved && !jumped && !changed {
            continue;
        }
        settings.mark_unchanged();
        match node.renew_leaves(now) {
            Ok(next) => due = next,
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::error!(error, "leaves cannot be renewed");
            }
        }
    }
}

/// A node that was handed over to this build stays with it from now on, whatever became of the
/// command that did it.
fn prove(node: &Node) {
    if let Err(error) = distribution::end_trial(&node.builds()) {
        tracing::error!(error = &error as &dyn std::error::Error, "this build is still on trial");
    }
}

/// Said while the node runs, since its next start would be refused.
fn watch_name(node: &Node) {
    let (own, host) = (node.context().node_name, prepare::host_name());
    let notice = renamed(node.config().node.name.as_deref(), &own, &host);
    node.board.update(|observed| {
        observed.notices.retain(|notice| notice.name != RENAMED);
        observed.notices.splice(0..0, notice);
    });
}

/// Nothing when the node's settings say its name.
fn renamed(said: Option<&str>, own: &str, host: &str) -> Option<Notice> {
    (said.is_none() && own != host).then(|| Notice {
        name: RENAMED.into(),
        message: format!(
            "the machine is called {host:?} now; the node goes on as {own:?}, and its next start \
             would be refused: the Node object and certificates carry its name"
        ),
        remedy: Some(keep_name(own)),
    })
}

fn watch_space(node: &Node) {
    let root = node.root();
    let Some(free) = space::free(&root) else { return };
    let notice = space::notice(&root, free);
    node.board.update(|observed| {
        observed.notices.retain(|notice| notice.name != space::NAME);
        // Before the standing ones: it is news.
        observed.notices.splice(0..0, notice);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_with_another_name_is_told_before_the_next_start_is_refused() {
        let notice = renamed(None, "alpha", "beta").unwrap();
        assert!(notice.message.contains("called \"beta\" now; the node goes on as \"alpha\""));
        assert!(notice.remedy.unwrap().contains("`name = \"alpha\"` below [node]"));
        for (said, host) in [(None, "alpha"), (Some("alpha"), "beta")] {
            assert_eq!(renamed(said, "alpha", host), None);
        }
    }
}
