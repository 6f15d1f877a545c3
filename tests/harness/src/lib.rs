//! Nodes in network namespaces, for tests.
//!
//! A [`Network`] is a bridge in a namespace of its own; a [`TestNode`] is a namespace with a link
//! to it, a root directory and the `skiff` that was built. Nothing of the machine's own network
//! is touched, nothing is shared between tests, and dropping them removes everything. A failed
//! test leaves the node's logs below `target/test-logs`.
//!
//! What comes in: `SKIFF_BIN` and `SKIFF_DIST`, or the places where the build leaves them.

mod authorities;
mod delay;
mod disk;
mod harm;
mod inventory;
mod network;
mod node;
mod run;
mod series;
mod usage;

pub use authorities::{Person, certificates, issuers, rotation};
pub use delay::SlowLink;
pub use disk::{Disk, Filler};
pub use harm::Way;
pub use inventory::Inventory;
pub use network::{Host, Network};
pub use node::{NodeOptions, TestNode};
pub use run::{Outcome, distribution, eventually, run, skiff_binary, target, test_image};
pub use series::Series;
pub use usage::{Process, Usage, memory_of, processes_beneath, sharers, usage_of};

/// Why a test that needs a node cannot run here, if so. Prints `skipped: …`, which the test runner
/// counts.
pub fn cannot_run_nodes() -> bool {
    let reason = if !nix::unistd::Uid::effective().is_root() {
        Some("needs root to make network namespaces and control groups".to_owned())
    } else if !skiff_binary().is_file() || !distribution().join("components.toml").is_file() {
        Some("needs the components: run `make test`".to_owned())
    } else {
        None
    };
    if let Some(reason) = &reason {
        println!("skipped: {reason}");
    }
    reason.is_some()
}
