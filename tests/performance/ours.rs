//! A node of ours, started as a user starts it.

use std::process::Stdio;
use std::time::Instant;

use anyhow::{Result, ensure};
use harness::{Network, NodeOptions, TestNode, skiff_binary};
use skiff::config;
use skiff::kube::ClientSource;

use crate::start::{self, START_BOUND, StartTimes};

/// A node and the network that it hangs on; dropped in this order.
pub struct Ours {
    pub node: TestNode,
    _network: Network,
}

impl Ours {
    pub fn new() -> Self {
        let network = Network::new();
        let node = TestNode::new(&network, "figures", &NodeOptions::default());
        Self { node, _network: network }
    }

    pub fn clients(&self) -> ClientSource {
        ClientSource::new(self.node.root().join("node/admin.kubeconfig"))
    }

    /// `skiff start` on an empty root, and `skiff enable dns` as soon as the API server is ready.
    pub async fn start(&self) -> Result<StartTimes> {
        let clients = self.clients();
        let begun = Instant::now();
        let returned = async {
            self.skiff(&["start", "--timeout", &START_BOUND.as_secs().to_string()]).await?;
            anyhow::Ok(begun.elapsed())
        };
        let seen = async {
            let client = start::api_ready(&clients).await?;
            let api = begun.elapsed();
            let ready = async {
                start::node_ready(client).await?;
                anyhow::Ok(begun.elapsed())
            };
            let dns = async {
                self.skiff(&["enable", "dns"]).await?;
                start::dns_answers(config::Network::default().dns_address).await?;
                anyhow::Ok(begun.elapsed())
            };
            let (ready, dns) = tokio::try_join!(ready, dns)?;
            anyhow::Ok((api, ready, dns))
        };
        let (returned, (api, ready, dns)) = tokio::try_join!(returned, seen)?;
        Ok(StartTimes {
            api_s: api.as_secs_f64(),
            ready_s: ready.as_secs_f64(),
            dns_s: dns.as_secs_f64(),
            returned_s: Some(returned.as_secs_f64()),
        })
    }

    async fn skiff(&self, arguments: &[&str]) -> Result<()> {
        let mut command = tokio::process::Command::from(self.node.command(skiff_binary()));
        command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
        let output = command.output().await?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "skiff {} failed\n{said}", arguments.join(" "));
        Ok(())
    }
}
