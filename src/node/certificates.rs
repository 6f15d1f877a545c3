//! The node's certificates as they lie on the disk: who shows each to whom, how long it is good,
//! and when another takes its place; and new ones for all of them at once.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, ListParams};
use microcluster::protocol::CLOCKS_APART_MAX;
use skiff_api::{Certificate, CertificateState, Certificates, Progress};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::cluster::{self, UpkeepError};
use super::core::{Node, RenewError};
use crate::host::CLOCK_MIN_S;
use crate::paths::Paths;
use crate::pki::{self, LeafInfo};

/// Whoever only looks does not wait longer for the API server.
const SECRETS_TIMEOUT: Duration = Duration::from_secs(3);
/// More are not told.
const SECRETS_MAX: u32 = 100;

#[derive(Debug, thiserror::Error)]
pub enum RotateError {
    #[error("not every certificate was replaced; what was not goes on")]
    Own(#[from] RenewError),
    #[error("the cluster gave this node no new certificates; the ones that it has go on")]
    Cluster(#[from] UpkeepError),
}

impl RotateError {
    /// What to do next, where that is known.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Own(_) => None,
            Self::Cluster(error) => error.hint(),
        }
    }
}

/// All of a node that runs, with what its cluster says to its clock.
pub async fn show(node: &Node) -> Certificates {
    let cluster = match node.cluster() {
        Some(cluster) => cluster.clock().await,
        None => None,
    };
    let now = OffsetDateTime::now_utc();
    let mut rotation = cluster::rotation_of(node);
    if let Some(rotation) = &mut rotation {
        rotation.token_secrets = token_secrets(node).await.unwrap_or_default();
    }
    Certificates { rotation, ..of_disk(&node.paths(), now, cluster) }
}

/// Where tokens are that nobody refreshes; none when the API server does not say.
async fn token_secrets(node: &Node) -> Option<Vec<String>> {
    let api: Api<Secret> = Api::all(node.clients.client().await.ok()?);
    let params =
        ListParams::default().fields("type=kubernetes.io/service-account-token").limit(SECRETS_MAX);
    let asked = tokio::time::timeout(SECRETS_TIMEOUT, api.list_metadata(&params));
    let found = asked.await.ok()?.ok()?.items.into_iter().map(|found| {
        let namespace = found.metadata.namespace.unwrap_or_default();
        format!("{namespace}/{}", found.metadata.name.unwrap_or_default())
    });
    Some(found.collect())
}

/// All that lie on the disk. `cluster` is what time it is there, if somebody has said so.
pub fn of_disk(
    paths: &Paths,
    now: OffsetDateTime,
    cluster: Option<OffsetDateTime>,
) -> Certificates {
    let found = find(paths);
    Certificates {
        now: in_rfc3339(now),
        clock: doubt(now, &found, cluster),
        certificates: found.iter().map(|found| view(found, now)).collect(),
        rotation: None,
    }
}

/// Replaces all leaves now, whatever is left of their lives. Daemons read the files anew by
/// themselves, as they do at each renewal.
pub async fn rotate(
    node: &Node,
    report: &(dyn Fn(Progress) + Send + Sync),
) -> Result<String, RotateError> {
    let step = |message: &str| report(Progress::Step { message: message.into() });
    if node.authorities.is_some() {
        step("signing new certificates for this node's daemons");
        let count = node.replace_leaves(OffsetDateTime::now_utc())?;
        step(&format!("{count} certificates are new"));
    }
    if let Some(cluster) = node.cluster() {
        step("asking the cluster for new certificates");
        cluster::renew(node, &cluster, true).await?;
        // Until it was shown, whoever has a copy of the former one could use that.
        cluster::show_identity(&cluster).await?;
    }
    Ok("every certificate of this node is new; its daemons take them up by themselves".into())
}

/// A certificate, or a file that should hold one.
struct Found {
    name: String,
    file: PathBuf,
    is_authority: bool,
    info: Option<LeafInfo>,
}

/// Authorities first, then leaves by their daemons.
fn find(paths: &Paths) -> Vec<Found> {
    let mut found = Vec::new();
    for file in files(&paths.pki(), "crt") {
        let info = pki::inspect_certificate(&file);
        found.push(Found { name: stem(&file), file, is_authority: true, info });
    }
    let mut places: Vec<PathBuf> = entries(&paths.pki());
    places.push(paths.node());
    for file in places.iter().flat_map(|place| files(place, "pem")) {
        let info = pki::inspect(&file);
        found.push(Found { name: stem(&file), file, is_authority: false, info });
    }
    found
}

fn files(dir: &Path, extension: &str) -> Vec<PathBuf> {
    let is_one = |path: &PathBuf| path.extension().is_some_and(|there| there == extension);
    entries(dir).into_iter().filter(is_one).collect()
}

/// In order; a directory that is not there or closed has none.
fn entries(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    paths.sort();
    // One that is being written at this moment.
    paths.retain(|path| !path.file_name().is_some_and(|n| n.to_string_lossy().starts_with('.')));
    paths
}

fn stem(path: &Path) -> String {
    path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default()
}

fn view(found: &Found, now: OffsetDateTime) -> Certificate {
    let info = found.info.as_ref();
    let state = match info {
        None => CertificateState::Unreadable,
        Some(info) if now < info.not_before => CertificateState::NotYetValid,
        Some(info) if now > info.not_after => CertificateState::Expired,
        Some(_) => CertificateState::Valid,
    };
    Certificate {
        name: found.name.clone(),
        purpose: purpose(&found.name).into(),
        state,
        issuer: info.map(|info| info.issuer.clone()).unwrap_or_default(),
        begins: info.map(|info| in_rfc3339(info.not_before)),
        ends: info.map(|info| in_rfc3339(info.not_after)),
        renews: info.filter(|_| !found.is_authority).map(|info| in_rfc3339(info.due())),
        file: found.file.display().to_string(),
    }
}

/// Who shows it to whom.
fn purpose(name: &str) -> &'static str {
    match name {
        "ca" => "the cluster's authority",
        "front-proxy-ca" => "the authority of API extensions",
        "apiserver" => "API server to its clients",
        "apiserver-kubelet-client" => "API server to kubelets",
        "front-proxy-client" => "API server to API extensions",
        "controller-manager" => "controllers to the API server",
        "controller-manager-serving" => "controllers to who asks them",
        "scheduler" => "scheduler to the API server",
        "scheduler-serving" => "scheduler to who asks it",
        "kubelet" => "kubelet to the API server",
        "kubelet-serving" => "kubelet to the API server's calls",
        "kube-proxy" => "kube-proxy to the API server",
        "network" => "pod network to the API server",
        "node" => "this node to other nodes",
        "member" => "datastore to its other members",
        "admin" => "skiffd to the API server",
        _ => "not known to this version",
    }
}

/// What speaks against the machine's clock.
fn doubt(now: OffsetDateTime, found: &[Found], cluster: Option<OffsetDateTime>) -> Option<String> {
    if now.unix_timestamp() < i64::try_from(CLOCK_MIN_S).unwrap_or(i64::MAX) {
        return Some("it is before the day on which this version was made".into());
    }
    if let Some(theirs) = cluster {
        let apart = now - theirs;
        if apart.abs() > CLOCKS_APART_MAX {
            let side = if apart.is_positive() { "ahead of" } else { "behind" };
            let apart = cluster::join::in_words(apart.abs());
            return Some(format!("it is {apart} {side} that of the cluster"));
        }
    }
    let early = |found: &&Found| found.info.as_ref().is_some_and(|info| now < info.not_before);
    found.iter().find(early).map(|found| {
        let begins = found.info.as_ref().map(|info| in_rfc3339(info.not_before));
        let begins = begins.unwrap_or_default();
        format!("{} begins at {begins} only: the clock went back since it was made", found.name)
    })
}

fn in_rfc3339(at: OffsetDateTime) -> String {
    at.format(&Rfc3339).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use time::Duration;
    use time::macros::datetime;

    use super::*;
    use crate::pki::{Authority, Issuer, LeafSpec, Usage};

    const NOW: OffsetDateTime = datetime!(2026-11-27 12:00 UTC);
    const TTL: Duration = Duration::hours(24);

    /// A node with an authority, one leaf, and a file that is none.
    fn node(dir: &Path) -> Paths {
        let paths = Paths::new(dir);
        fs::create_dir_all(paths.daemon_pki("kube-node")).unwrap();
        let authority = Authority::ensure(&paths.pki(), "ca", "skiff", NOW).unwrap();
        let spec = LeafSpec {
            path: paths.daemon_pki("kube-node").join("kubelet.pem"),
            issuer: Issuer::Cluster,
            common_name: "system:node:a".into(),
            organisations: vec![],
            id: None,
            dns_names: vec![],
            addresses: vec![],
            usage: Usage::Client,
            owner: (0, 0),
        };
        let (certificate, key) = authority.issue(&spec, NOW, TTL).unwrap();
        fs::write(&spec.path, certificate + &key).unwrap();
        fs::write(paths.daemon_pki("kube-node").join("kube-proxy.pem"), "rubbish").unwrap();
        paths
    }

    fn states(all: &Certificates) -> Vec<(&str, CertificateState)> {
        all.certificates.iter().map(|one| (&*one.name, one.state)).collect()
    }

    #[test]
    fn every_certificate_is_told_with_its_end_and_its_renewal() {
        let dir = tempfile::tempdir().unwrap();
        let paths = node(dir.path());
        let all = of_disk(&paths, NOW, None);
        assert_eq!(all.clock, None);
        use CertificateState::{Expired, NotYetValid, Unreadable, Valid};
        assert_eq!(states(&all), [("ca", Valid), ("kube-proxy", Unreadable), ("kubelet", Valid)]);
        let (authority, leaf) = (&all.certificates[0], &all.certificates[2]);
        assert_eq!((&*leaf.issuer, &*leaf.purpose), ("skiff", "kubelet to the API server"));
        assert_eq!(leaf.ends.as_deref(), Some("2026-11-28T12:00:00Z"));
        assert_eq!(leaf.renews.as_deref(), Some("2026-11-28T00:00:00Z"));
        assert_eq!(authority.renews, None);
        let late = of_disk(&paths, NOW + TTL + Duration::SECOND, None);
        assert_eq!((states(&late)[2], &late.clock), (("kubelet", Expired), &None));
        let early = of_disk(&paths, NOW - Duration::HOUR, None);
        assert_eq!(states(&early)[2], ("kubelet", NotYetValid));
        assert!(early.clock.unwrap().contains("kubelet begins at 2026-11-27T11:50:00Z"));
    }

    #[test]
    fn a_clock_that_is_wrong_is_said_to_be() {
        let clock = |now, cluster| doubt(now, &[], cluster);
        assert_eq!(clock(NOW, Some(NOW + Duration::minutes(5))), None);
        let behind = clock(NOW, Some(NOW + Duration::hours(3))).unwrap();
        assert_eq!(behind, "it is 3 h behind that of the cluster");
        assert!(clock(NOW, Some(NOW - Duration::days(9))).unwrap().contains("9 days ahead of"));
        assert!(clock(OffsetDateTime::UNIX_EPOCH, None).is_some());
    }
}
