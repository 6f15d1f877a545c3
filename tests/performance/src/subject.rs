//! What both sides have in common: a root, a network namespace, an API server and a way to start.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use harness::TestNode;

/// One node that is measured.
pub trait Subject {
    fn root(&self) -> &Path;

    /// File that the namespace is entered by.
    fn namespace(&self) -> PathBuf;

    /// Begins to start a node whose components and images are on disk and which was never started;
    /// does not wait for it.
    fn begin(&self) -> Result<()>;

    /// As soon as the node is Ready.
    fn enable_dns(&self) -> Result<()>;

    /// Names files of the identity that may do everything.
    fn admin_kubeconfig(&self) -> PathBuf {
        self.root().join("node/admin.kubeconfig")
    }
}

impl Subject for TestNode {
    fn root(&self) -> &Path {
        TestNode::root(self)
    }

    fn namespace(&self) -> PathBuf {
        Path::new("/run/netns").join(TestNode::namespace(self))
    }

    fn begin(&self) -> Result<()> {
        let outcome = self.skiff(&["start", "--no-wait"]);
        ensure!(outcome.ok(), "skiff start: {}", outcome.stderr);
        Ok(())
    }

    fn enable_dns(&self) -> Result<()> {
        let outcome = self.skiff(&["enable", "dns"]);
        ensure!(outcome.ok(), "skiff enable dns: {}", outcome.stderr);
        Ok(())
    }
}
