//! What a test does to a whole node: its processes stand still, its link carries one way or loses.

use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::inventory::pids;
use crate::node::TestNode;
use crate::run::run;

/// The table of the harness, on the link itself: ahead of everything that the node sets up.
const TABLE: &str = "harness";

/// How long all processes of a node may take to stand still.
const FREEZE_BOUND: Duration = Duration::from_secs(20);

/// A direction of a node's link, in the node's eyes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    In,
    Out,
}

impl TestNode {
    /// SIGSTOP for everything that runs of this node, and for what that starts meanwhile.
    #[track_caller]
    pub fn freeze(&self) {
        let begun = Instant::now();
        let mut before = Vec::new();
        loop {
            let mut found = self.signal(Signal::SIGSTOP);
            found.sort_unstable();
            found.dedup();
            // Whoever was stopped starts nobody: the second look that finds the same is the last.
            if found == before {
                return;
            }
            assert!(begun.elapsed() < FREEZE_BOUND, "{} goes on: {found:?}", self.name());
            before = found;
        }
    }

    /// Undoes [`TestNode::freeze`].
    #[track_caller]
    pub fn thaw(&self) {
        self.signal(Signal::SIGCONT);
    }

    /// Nothing gets through the link in that direction.
    #[track_caller]
    pub fn cut_way(&self, way: Way) {
        self.filter(way, "policy drop;", "");
    }

    /// So many packets of a hundred are lost, in both directions.
    #[track_caller]
    pub fn lose_packets(&self, percent: u32) {
        let rule = format!("numgen random mod 100 < {percent} drop");
        self.filter(Way::In, "", &rule);
        self.filter(Way::Out, "", &rule);
    }

    /// Undoes [`TestNode::cut_way`] and [`TestNode::lose_packets`].
    #[track_caller]
    pub fn mend_link(&self) {
        // `add` first: what is not there can't be deleted.
        self.nft(&format!("add table netdev {TABLE}; delete table netdev {TABLE}"));
    }

    #[track_caller]
    fn filter(&self, way: Way, policy: &str, rule: &str) {
        let (chain, hook) = match way {
            Way::In => ("arrives", "ingress"),
            Way::Out => ("leaves", "egress"),
        };
        let kind = format!("type filter hook {hook} device \"eth0\" priority -500; {policy}");
        self.nft(&format!(
            "add table netdev {TABLE}; add chain netdev {TABLE} {chain} {{ {kind} }}"
        ));
        if !rule.is_empty() {
            self.nft(&format!("add rule netdev {TABLE} {chain} {rule}"));
        }
    }

    #[track_caller]
    fn nft(&self, script: &str) {
        run(self.command("nft").arg(script)).must();
    }

    /// Sends a signal to everything that runs of this node; answers whom it found.
    #[track_caller]
    fn signal(&self, signal: Signal) -> Vec<i32> {
        let found = pids(&self.root().to_string_lossy(), &self.instance());
        for pid in &found {
            match kill(Pid::from_raw(*pid), signal) {
                // It may have gone by itself.
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(error) => panic!("{signal} to {pid} of {}: {error}", self.name()),
            }
        }
        found
    }
}
