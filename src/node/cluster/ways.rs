//! Where others of the cluster may be that are not where they were: what a person has said with
//! `skiff start --peer`, and what the token said that the node joined with.
//!
//! When all machines have moved to another network, nobody knows a valid address of anybody. One
//! place of one other node, told to each node but one, is enough: who meets tells whom it has met.
//! A place is not believed. Whoever answers there shows the certificate of a node that the cluster
//! knows, or is left alone. What a person has said is true for a while: it is forgotten once others
//! are met where the record says that they are, so that nobody is looked for at an old place later.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use microcluster::endpoint::Endpoint;
use serde::{Deserialize, Serialize};
use skiff_datastore::member::report::MemberReport;

use super::ground::store_lists;
use super::membership::{read, remove, write};
use super::upkeep::chain;
use super::{Cluster, Membership, MembershipError, peers};
use crate::paths::Paths;

const FILE: &str = "ways.json";
/// Places that a person may name: each is tried every few seconds while somebody is missing.
pub const PEERS_MAX: usize = 8;
/// How often the file is looked at.
const INTERVAL: Duration = Duration::from_secs(1);
/// Before a list that could not be written is written again.
const RETRY_PAUSE: Duration = Duration::from_secs(10);
/// What was said is tried at least so long, and others are asked for where they were met as often
/// after that. Somebody who has just moved away counts as reachable for some seconds.
const TRIED_FOR: Duration = Duration::from_secs(15);
/// What the own datastore may take to say who is there.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

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

    /// Unless something else was said meanwhile.
    fn forget(&self, dir: &Path) -> Result<(), MembershipError> {
        if Self::read(dir)? != *self {
            return Ok(());
        }
        let path = dir.join(FILE);
        remove(&path).map_err(|source| MembershipError::Remove { path, source })
    }
}

/// All places that are worth a try. A file that cannot be read names none: it is a help, no state.
pub fn of(paths: &Paths, membership: &Membership) -> BTreeSet<String> {
    let said = Ways::read(&paths.node()).unwrap_or_default();
    said.peers.iter().chain(&membership.endpoints).map(ToString::to_string).collect()
}

/// Has the datastore and the upkeep look there when something else is said, and forgets it when
/// nobody needs it any more. Never ends.
pub async fn run(cluster: Arc<Cluster>) {
    let dir = cluster.paths.node();
    let mut known = Ways::read(&dir).unwrap_or_default();
    let mut since = Instant::now();
    loop {
        tokio::time::sleep(INTERVAL).await;
        match Ways::read(&dir) {
            Ok(said) if said != known => {
                tell(&said);
                match store_lists(&cluster.paths, &cluster.membership()) {
                    Ok(()) => known = said,
                    Err(error) => {
                        tracing::warn!(reason = chain(&error), "the datastore was not told");
                        tokio::time::sleep(RETRY_PAUSE).await;
                    }
                }
                since = Instant::now();
                cluster.wake();
            }
            _ if known.peers.is_empty() || since.elapsed() < TRIED_FOR => {}
            _ => {
                if has_met_others(&cluster).await
                    && let Err(error) = known.forget(&dir)
                {
                    tracing::warn!(reason = chain(&error), "what was said last is not forgotten");
                }
                since = Instant::now();
            }
        }
    }
}

fn tell(said: &Ways) {
    match said.peers.is_empty() {
        true => tracing::info!("others of the cluster are where the record says"),
        false => {
            tracing::info!(peers = ?said.peers, "others of the cluster are looked for elsewhere, too");
        }
    }
}

/// Whether the record's addresses lead to others. A worker needs one of them, who knows the rest.
async fn has_met_others(cluster: &Cluster) -> bool {
    if cluster.desk.is_none() {
        return cluster.is_answered_by_record().await;
    }
    let asked = tokio::time::timeout(ANSWER_TIMEOUT, peers::list(&cluster.paths)).await;
    matches!(asked, Ok(Ok(reports)) if are_met(&reports, &cluster.membership()))
}

/// Whether somebody leads, and everybody is reachable at an address that the record has.
fn are_met(reports: &[MemberReport], membership: &Membership) -> bool {
    let is_met = |report: &MemberReport| {
        report.reachable && membership.has_at(&report.node, &report.address)
    };
    reports.iter().any(|report| report.leads) && reports.iter().all(is_met)
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use microcluster::record::MemberView;

    use super::super::membership::sample;
    use super::*;
    use crate::daemons::agent;

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

    #[test]
    fn what_was_said_is_forgotten_unless_something_else_was_said_meanwhile() {
        let dir = tempfile::tempdir().unwrap();
        let [first, later] = ["198.51.100.7:7443", "198.51.100.8:7443"]
            .map(|peer| Ways { peers: vec![peer.parse().unwrap()] });
        later.write(dir.path()).unwrap();
        first.forget(dir.path()).unwrap();
        assert_eq!(Ways::read(dir.path()).unwrap(), later);
        for _ in 0..2 {
            later.forget(dir.path()).unwrap();
            assert_eq!(Ways::read(dir.path()).unwrap(), Ways::default());
        }
    }

    #[test]
    fn others_are_met_when_all_are_reachable_where_the_record_has_them_and_somebody_leads() {
        let membership = sample();
        let reports: Vec<MemberReport> = membership.members.iter().map(report).collect();
        let met = |change: fn(&mut MemberReport)| {
            let mut reports = reports.clone();
            reports[0].leads = true;
            change(&mut reports[1]);
            are_met(&reports, &membership)
        };
        assert!(met(|_| {}));
        assert!(!met(|one| one.reachable = false));
        assert!(!met(|one| one.address = "198.51.100.200:7443".into()));
        assert!(!met(|one| one.node = "of somebody else".into()));
        assert!(!are_met(&reports, &membership), "nobody leads");
        assert!(!are_met(&[], &membership), "nobody is known");
    }

    fn report(member: &MemberView) -> MemberReport {
        MemberReport {
            id: "1".into(),
            role: "voter",
            leads: false,
            reachable: true,
            revision: 1,
            lag: 0,
            size_bytes: 0,
            round_trip_us: 0,
            failure_domain: String::new(),
            address: SocketAddr::new(member.addresses[0], agent::PORT).to_string(),
            node: member.id.to_string(),
        }
    }
}
