//! What tests of authorities ask: who signs, how far a rotation is, and who is believed.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use skiff_api::{AuthorityRotation, Certificates};

use crate::{Outcome, TestNode, eventually};

#[track_caller]
pub fn certificates(node: &TestNode) -> Certificates {
    let shown = node.skiff(&["certs", "status", "--output", "json"]);
    serde_json::from_str(&shown.stdout).unwrap_or_else(|error| panic!("{error}: {shown:?}"))
}

/// How far the node says that it is, while one is under way.
#[track_caller]
pub fn rotation(node: &TestNode) -> Option<AuthorityRotation> {
    certificates(node).rotation
}

/// Who has signed the leaves that are there, sorted.
#[track_caller]
pub fn issuers(node: &TestNode) -> Vec<String> {
    let leaves = certificates(node).certificates.into_iter().filter(|one| one.renews.is_some());
    let mut issuers: Vec<String> = leaves.map(|one| one.issuer).collect();
    issuers.sort();
    issuers.dedup();
    issuers
}

/// Somebody with a kubeconfig that was given out at some moment.
#[derive(Debug)]
pub struct Person {
    file: PathBuf,
}

impl Person {
    #[track_caller]
    pub fn new(node: &TestNode, name: &str) -> Self {
        let file = node.root().join(format!("{name}.kubeconfig"));
        let args = ["kubeconfig", "--user", name, "--group", "skiff:cluster-admins"];
        fs::write(&file, node.skiff(&args).must()).expect("it is written");
        Self { file }
    }

    /// Asks the API server of `node` itself, through no balancer.
    pub fn ask(&self, node: &TestNode) -> Outcome {
        let (file, server) =
            (self.file.to_string_lossy(), format!("https://{}:6443", node.address()));
        node.kubectl(&["--kubeconfig", &file, "--server", &server, "get", "namespaces"])
    }

    #[track_caller]
    pub fn must_reach(&self, node: &TestNode) {
        let asked = self.ask(node);
        assert!(asked.ok(), "{}: {asked:?}", self.file.display());
    }

    /// An API server may need a while to take up what it believes.
    #[track_caller]
    pub fn must_be_refused(&self, node: &TestNode, within: Duration) {
        eventually(&format!("{} is refused", self.file.display()), within, || {
            let asked = self.ask(node);
            let words = ["Unauthorized", "provide credentials", "unknown authority"];
            match words.iter().any(|word| asked.stderr.contains(word)) {
                true => Ok(()),
                false => Err(format!("{asked:?}")),
            }
        });
    }
}
