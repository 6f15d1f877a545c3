//! Where others of the cluster may be that are not where they were: what a person has said with
//! `skiff start --peer`, and what the token said that the node joined with.
//!
//! When all machines have moved to another network, nobody knows a valid address of anybody. One
//! place of one other node, told to each node but one, is enough: who meets tells whom it has met.
//! A place is not believed. Whoever answers there shows the certificate of a node that the cluster
//! knows, or is left alone.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use microcluster::endpoint::Endpoint;
use serde::{Deserialize, Serialize};

use super::ground::store_lists;
use super::membership::{read, write};
use super::upkeep::chain;
use super::{Cluster, Membership, MembershipError};
use crate::paths::Paths;

const FILE: &str = "ways.json";
/// Places that a person may name: each is tried every few seconds while somebody is missing.
pub const PEERS_MAX: usize = 8;
/// How often the file is looked at.
const INTERVAL: Duration = Duration::from_secs(1);
/// Before a list that could not be written is written again.
const RETRY_PAUSE: Duration = Duration::from_secs(10);

/// What was said last.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ways {
    pub peers: Vec<Endpoint>,
}

impl Ways {
    /// Of the node whose own directory is `dir`.
    pub fn read(dir: &Path) -> Result<Self, MembershipError> {
        Ok(read(&dir.join(FILE))?.unwrap_or_default())
    }

    /// Takes the place of what was said before; a skiffd that runs follows it.
    pub fn write(&self, dir: &Path) -> Result<(), MembershipError> {
        write(&dir.join(FILE), self)
    }
}

/// All places that are worth a try. A file that cannot be read names none: it is a help, no state.
pub fn of(paths: &Paths, membership: &Membership) -> BTreeSet<String> {
    let said = Ways::read(&paths.node()).unwrap_or_default();
    said.peers.iter().chain(&membership.endpoints).map(ToString::to_string).collect()
}

/// Has the datastore and the upkeep look there when something else is said. Never ends.
pub async fn run(cluster: Arc<Cluster>) {
    let mut known = Ways::read(&cluster.paths.node()).unwrap_or_default();
    loop {
        tokio::time::sleep(INTERVAL).await;
        let said = match Ways::read(&cluster.paths.node()) {
            Ok(said) if said != known => said,
            _ => continue,
        };
        tracing::info!(peers = ?said.peers, "others of the cluster are looked for elsewhere, too");
        match store_lists(&cluster.paths, &cluster.membership()) {
            Ok(()) => known = said,
            Err(error) => {
                tracing::warn!(reason = chain(&error), "the datastore was not told");
                tokio::time::sleep(RETRY_PAUSE).await;
            }
        }
        cluster.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::super::membership::sample;
    use super::*;

    #[test]
    fn what_was_said_last_and_the_token_name_places_and_damage_names_none() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::new(dir.path());
        std::fs::create_dir_all(paths.node()).unwrap();
        let membership = sample();
        let token: Vec<String> = membership.endpoints.iter().map(ToString::to_string).collect();
        assert!(of(&paths, &membership).iter().eq(&token));
        for peer in ["198.51.100.7:7443", "[2001:db8::7]:7443"] {
            Ways { peers: vec![peer.parse().unwrap()] }.write(&paths.node()).unwrap();
            let found = of(&paths, &membership);
            assert!(found.contains(peer) && found.len() == token.len() + 1, "{found:?}");
        }
        std::fs::write(paths.node().join(FILE), "{").unwrap();
        assert!(Ways::read(&paths.node()).is_err());
        assert!(of(&paths, &membership).iter().eq(&token));
    }
}
