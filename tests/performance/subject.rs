//! One of the two that are measured, and all that is measured of it.

use std::time::Duration;

use anyhow::{Context, Result};
use harness::{TestNode, distribution};
use skiff::distribution::Distribution;
use skiff::kube::ClientSource;
use skiff::paths::Paths;
use tokio::time::sleep;

use crate::namespace::inside;
use crate::ours::Ours;
use crate::peer::Peer;
use crate::report::Measured;
use crate::{commands, idle, pods};

/// What is measured after a start.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wanted {
    pub memory: bool,
    /// Over how long processor time and bytes written are counted.
    pub activity: Option<Duration>,
    /// How long the node is left alone first.
    pub settle: Duration,
    pub pods: usize,
    /// Runs of each command; the peer has none.
    pub commands: usize,
}

impl Wanted {
    pub fn concerns_peer(&self) -> bool {
        self.memory || self.activity.is_some() || self.pods > 0
    }

    pub fn anything(&self) -> bool {
        self.concerns_peer() || self.commands > 0
    }
}

pub enum Subject {
    Ours(Box<Ours>),
    Peer(Box<Peer>),
}

impl Subject {
    pub fn new(ours: bool) -> Result<Self> {
        Ok(match ours {
            true => Self::Ours(Box::new(Ours::new())),
            false => Self::Peer(Box::new(Peer::new()?)),
        })
    }

    pub fn node(&self) -> &TestNode {
        match self {
            Self::Ours(ours) => &ours.node,
            Self::Peer(peer) => &peer.node,
        }
    }

    pub fn flags_left_out(&self) -> Result<Vec<String>> {
        match self {
            Self::Ours(_) => Ok(Vec::new()),
            Self::Peer(peer) => peer.flags_left_out(),
        }
    }

    /// Starts it and measures; what is measured is kept even if a later part fails.
    pub fn measure(&self, wanted: &Wanted, measured: &mut Measured) -> Result<()> {
        inside(self.node().namespace(), || self.measure_inside(wanted, measured))?;
        if let Self::Ours(ours) = self
            && wanted.commands > 0
        {
            eprintln!("    commands, {} runs each", wanted.commands);
            for verb in commands::COMMANDS {
                let series = commands::time(&ours.node, verb, wanted.commands)?;
                measured.commands.insert(verb.into(), series);
            }
        }
        Ok(())
    }

    async fn measure_inside(&self, wanted: &Wanted, measured: &mut Measured) -> Result<()> {
        let times = match self {
            Self::Ours(ours) => ours.start().await?,
            Self::Peer(peer) => peer.start().await?,
        };
        eprintln!("    node Ready after {:.1} s, DNS after {:.1} s", times.ready_s, times.dns_s);
        measured.start.push(times);
        let root = self.node().root();
        let instance = Paths::new(root).instance();
        if wanted.memory || wanted.activity.is_some() {
            eprintln!("    left alone for {} s", wanted.settle.as_secs());
            sleep(wanted.settle).await;
        }
        if wanted.memory {
            measured.memory = Some(idle::memory(self.node(), &instance));
        }
        if let Some(window) = wanted.activity {
            eprintln!("    idle for {} s", window.as_secs());
            measured.activity = Some(idle::activity(&instance, root, window).await?);
        }
        if wanted.pods > 0 {
            eprintln!("    {} pods, one after the other", wanted.pods);
            let image = Distribution::open(&distribution())?.image("pause")?.reference.clone();
            let client = self.clients().client().await?;
            let series = pods::start_one_by_one(client, &image, wanted.pods).await;
            measured.pods = series.context("pods")?;
        }
        Ok(())
    }

    fn clients(&self) -> ClientSource {
        match self {
            Self::Ours(ours) => ours.clients(),
            Self::Peer(peer) => peer.clients(),
        }
    }
}
