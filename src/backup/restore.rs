//! Bringing a cluster back: an archive becomes the state of this machine.
//!
//! ```text
//!   archive ─ opened, compared ─> ROOT/restoring: datastore (built, loaded, compared), keys,
//!             choices, the record with this machine alone, settings ─ switch ─> ROOT
//! ```

use std::fs::{self, DirBuilder};
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use microcluster::record::NodeRole;
use skiff_datastore::backup::Opening;
use skiff_datastore::backup::place::{Place, PlaceError};
use skiff_datastore::backup::restore::{
    RestoreError as DatastoreError, RestoreOptions, restore_at,
};
use skiff_supervisor::cgroup::Cgroups;
use time::OffsetDateTime;

use super::manifest::Manifest;
use super::open::{OpenError, Opened, open};
use super::part::{CHOICES, PKI, ROTATION};
use super::record::RecordError;
pub use super::settings::SettingsOf;
use super::settings::{self, Plan, SettingsError};
use super::switch::{self, Switch, SwitchError};
use crate::config::Sources;
use crate::distribution::Distribution;
use crate::host::address;
use crate::node::authorities::{Authorities, AuthoritiesError};
use crate::node::cluster::join::{Stand, stand};
use crate::node::cluster::{FoundError, MembershipError, restored, version_of};
use crate::node::prepare::PrepareError;
use crate::node::{Lock, LockError};
use crate::paths::Paths;
use crate::pki::{StoreError, write_private};

/// Where to, and how.
pub struct Options<'a> {
    pub paths: &'a Paths,
    pub sources: &'a Sources,
    pub opening: Opening,
    /// Whether the machine may be a node; what it was is kept.
    pub replace: bool,
    /// By how much the newest revision rises.
    pub bump_revision: i64,
    /// A word that makes new names unique.
    pub stamp: String,
}

/// What a restore comes to.
#[derive(Debug)]
pub enum Outcome {
    Restored(Box<Restored>),
    /// A restore of the same archive had been interrupted when the new state held already, and is
    /// finished now.
    WentOn,
}

/// A cluster that was brought back.
#[derive(Debug)]
pub struct Restored {
    pub manifest: Manifest,
    /// Where revisions go on.
    pub revision: i64,
    pub settings: SettingsOf,
    /// Where the state of before is.
    pub former: Option<PathBuf>,
    /// Nodes that do not belong to the cluster any more.
    pub removed: Vec<String>,
}

/// Why nothing was restored. The machine is as it was.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    #[error("the node runs")]
    Runs,
    #[error("daemons of the node run, though skiffd does not")]
    DaemonsRun,
    #[error("this machine is a worker of a cluster")]
    Worker,
    #[error("a join of this machine was cut off")]
    CutOff,
    #[error("this machine is a node already")]
    Occupied,
    #[error("the archive is of Kubernetes {archive}, and this is {own}: it may not read all of it")]
    NewerKubernetes { archive: String, own: String },
    #[error("this machine has no address but loopback: give it one, or set node.address")]
    NoAddress,
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Settings(#[from] SettingsError),
    #[error(transparent)]
    Switch(#[from] SwitchError),
    #[error(transparent)]
    Lock(#[from] LockError),
    #[error(transparent)]
    Membership(#[from] MembershipError),
    #[error("the datastore cannot be made")]
    Datastore(#[from] DatastoreError),
    #[error("the datastore of this machine is in the way")]
    Place(#[from] PlaceError),
    #[error(transparent)]
    Record(#[from] RecordError),
    #[error(transparent)]
    Cluster(#[from] FoundError),
    #[error(transparent)]
    Authority(#[from] AuthoritiesError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Prepare(#[from] PrepareError),
    #[error("cannot make {}", path.display())]
    Directory { path: PathBuf, source: io::Error },
}

/// Brings the cluster in the archive at `path` back. Nothing that is here is touched before all of
/// it is read, compared and built.
pub async fn restore(path: &Path, options: &Options<'_>) -> Result<Outcome, RestoreError> {
    let paths = options.paths;
    let archive = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    make_dir(paths.root(), 0o755)?;
    let _lock = match Lock::take(&paths.run().join("skiffd.pid")) {
        Err(LockError::Held(_)) => return Err(RestoreError::Runs),
        lock => lock?,
    };
    if switch::go_on_locked(paths)?.is_some_and(|switch| switch.archive == archive) {
        return Ok(Outcome::WentOn);
    }
    let is_node = stands_in_the_way(paths, options.replace)?;
    // Held, so that no datastore can start on what is about to go.
    let _place = match paths.datastore().exists() {
        true => Some(Place::claim(&paths.datastore(), true, &options.stamp)?),
        false => None,
    };
    let staged = switch::begin(paths)?;
    let outcome = build(path, options, &staged).await;
    let (restored, plan) = match outcome {
        Ok(built) => built,
        Err(error) => {
            switch::give_up(paths);
            return Err(error);
        }
    };
    let former = match is_node {
        true => paths.root().join(format!("former-{}", options.stamp)),
        // Nothing but empty directories: it goes with the small root.
        false => staged.root().join("former"),
    };
    switch::finish(paths, &Switch { archive, former: former.clone(), files: plan.files })?;
    let former = is_node.then_some(former);
    Ok(Outcome::Restored(Box::new(Restored { former, ..restored })))
}

/// Whether there is a node here, which may be replaced.
fn stands_in_the_way(paths: &Paths, replace: bool) -> Result<bool, RestoreError> {
    let stand = match stand(paths) {
        // What is damaged is a reason to restore.
        Err(MembershipError::Damaged { .. }) => Stand::Alone,
        stand => stand?,
    };
    let is_node = match stand {
        Stand::CutOff(_) => return Err(RestoreError::CutOff),
        Stand::Member(NodeRole::Worker) => return Err(RestoreError::Worker),
        Stand::Settled(membership) if membership.role == NodeRole::Worker => {
            return Err(RestoreError::Worker);
        }
        Stand::Settled(_) | Stand::Member(_) | Stand::Alone => true,
        Stand::Free => has_files(&paths.datastore()) || has_files(&paths.pki()),
    };
    if is_node && !replace {
        return Err(RestoreError::Occupied);
    }
    let cgroup = format!("/{}/daemon", paths.instance());
    match Cgroups::detect().processes(&cgroup).is_empty() {
        true => Ok(is_node),
        false => Err(RestoreError::DaemonsRun),
    }
}

fn has_files(dir: &Path) -> bool {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.into_iter().any(|entry| entry.file_type().is_ok_and(|kind| kind.is_file()))
}

/// Makes the new state in the small root.
async fn build(
    path: &Path,
    options: &Options<'_>,
    staged: &Paths,
) -> Result<(Restored, Plan), RestoreError> {
    let opened = open(path, &options.opening, &staged.root().join("archive")).await?;
    let own = Distribution::find().ok().map(|build| build.version_of("kube").to_owned());
    refuse_newer(&opened.manifest.kubernetes, own.as_deref())?;
    let settings = opened.record.as_ref().map(|kept| &kept.record.settings.value);
    let (small, began) = (&opened.small, &opened.began);
    let plan = settings::plan(small, options.sources, staged.root(), began, settings)?;
    write_small(&opened, staged)?;
    let now = OffsetDateTime::now_utc();
    let (mut cluster, mut removed) = (None, Vec::new());
    if let Some(kept) = &opened.record {
        let address: IpAddr =
            plan.config.node.address.or_else(address::choose).ok_or(RestoreError::NoAddress)?;
        let kubernetes = version_of(own.as_deref().unwrap_or(&opened.manifest.kubernetes));
        let name = &opened.began.node_name;
        let node = restored::restored(&kept.record, &plan.config, name, address, kubernetes, now)?;
        cluster = Some(kept.write(&node.changes, &staged.root().join("cluster"))?);
        node.settle(staged, Authorities::ensure(&staged.pki(), now)?, now)?;
        let members = kept.record.living().map(|member| member.name.to_string());
        removed = members.filter(|member| member != name).collect();
    }
    let place = Place::claim(&staged.datastore(), false, &options.stamp)?;
    let into = RestoreOptions {
        dir: staged.datastore(),
        replace: false,
        bump_revision: options.bump_revision,
        opening: Opening::Plain,
        stamp: options.stamp.clone(),
    };
    let datastore = restore_at(place, &opened.kube(), Ok(cluster), &into).await?;
    let revision = datastore.contents.revision.0;
    let settings = plan.of;
    let restored =
        Restored { manifest: opened.manifest, revision, settings, former: None, removed };
    Ok((restored, plan))
}

/// Kubernetes reads what an older one has stored, not what a newer one has.
fn refuse_newer(archive: &str, own: Option<&str>) -> Result<(), RestoreError> {
    let Some(own) = own else { return Ok(()) };
    let minor = |version: &str| {
        let version = version_of(version);
        (version.major, version.minor)
    };
    match minor(archive) > minor(own) {
        true => Err(RestoreError::NewerKubernetes { archive: archive.into(), own: own.into() }),
        false => Ok(()),
    }
}

/// Keys, certificates, and what the node was begun with.
fn write_small(opened: &Opened, staged: &Paths) -> Result<(), RestoreError> {
    make_dir(&staged.pki(), 0o755)?;
    make_dir(&staged.node(), 0o700)?;
    for (name, bytes) in &opened.small {
        if name.starts_with(PKI) || name == CHOICES || name == ROTATION {
            if let Some(dir) = staged.root().join(name).parent() {
                make_dir(dir, 0o700)?;
            }
            let is_public = name.ends_with(".crt") || name.ends_with(".pub");
            let mode = if is_public { 0o644 } else { 0o600 };
            write_private(&staged.root().join(name), bytes, mode, (0, 0))?;
        }
    }
    Ok(())
}

fn make_dir(path: &Path, mode: u32) -> Result<(), RestoreError> {
    let made = DirBuilder::new().recursive(true).mode(mode).create(path);
    made.map_err(|source| RestoreError::Directory { path: path.to_path_buf(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_of_a_later_kubernetes_are_refused_and_those_of_an_older_one_are_not() {
        for (archive, own, good) in [
            ("1.36.3", "1.36.0", true),
            ("1.35.9", "1.36.3", true),
            ("1.37.0", "1.36.3", false),
            ("2.0.0", "1.36.3", false),
        ] {
            assert_eq!(refuse_newer(archive, Some(own)).is_ok(), good, "{archive} {own}");
        }
        assert!(refuse_newer("1.37.0", None).is_ok());
    }
}
