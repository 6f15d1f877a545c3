//! The beginning: what a former supervisor left, then the task.

use std::collections::BTreeSet;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fs, io};

use tokio::sync::{mpsc, watch};

use crate::adopt;
use crate::cgroup::Cgroups;
use crate::handle::{Handle, REQUESTS_MAX};
use crate::launch::Launcher;
use crate::order::{SpecError, order};
use crate::record::{self, Record};
use crate::runtime::Runtime;
use crate::spec::{DaemonName, DaemonSpec};

/// How a node's daemons are kept.
#[derive(Clone, Debug)]
pub struct Config {
    /// Confines what follows it: `["/…/skiff", "confine"]`. We append the profile and the command.
    pub launcher: Vec<String>,
    /// Directory of what is known about running daemons; made when missing. It also names this
    /// supervisor: two supervisors never share one.
    pub records: PathBuf,
    /// Control group of the node, from the root of each hierarchy: `/skiff`.
    pub cgroup: String,
    /// Start the daemons, or only adopt those that run.
    pub start: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("the specifications do not fit together")]
    Spec(#[from] SpecError),
    #[error("no launcher is given")]
    Launcher,
    #[error("the records of running daemons in {} cannot be used", path.display())]
    Records { path: PathBuf, source: io::Error },
}

/// Starts supervision.
pub struct Supervisor;

impl Supervisor {
    /// Adopts what a former supervisor left, ends what nobody knows, and supervises as a task of
    /// the current runtime.
    pub async fn start(config: Config, specs: Vec<DaemonSpec>) -> Result<Handle, StartError> {
        order(&specs)?;
        if config.launcher.is_empty() {
            return Err(StartError::Launcher);
        }
        let failed = |source| StartError::Records { path: config.records.clone(), source };
        let instance = prepare(&config.records).map_err(failed)?;
        let records = Record::read_all(&config.records).map_err(failed)?;
        let cgroups = Cgroups::detect();
        if let Some(notice) = cgroups.notice() {
            tracing::warn!("{notice}");
        }
        let launcher = Launcher { command: config.launcher.clone(), cgroups, instance };
        let known: BTreeSet<DaemonName> = specs.iter().map(|spec| spec.name.clone()).collect();
        let survivors: Vec<String> = specs.iter().flat_map(|s| s.survivors.clone()).collect();
        let directory = format!("{}/daemon", config.cgroup);
        let all = (config.records.as_path(), records.as_slice());
        adopt::end_strangers(&launcher, &directory, all, &known, &survivors).await;
        let (left, gone): (Vec<Record>, Vec<Record>) =
            adopt::alive(records).into_iter().partition(|record| known.contains(&record.name));
        for record in gone {
            record::remove(&config.records, &record.name);
        }
        let (requests, receiver) = mpsc::channel(REQUESTS_MAX);
        let (publisher, snapshot) = watch::channel(Arc::default());
        let mut runtime = Runtime::new(config, launcher, receiver, publisher);
        runtime.begin(specs, left);
        tokio::spawn(runtime.run());
        Ok(Handle { requests, snapshot })
    }
}

/// Makes the directory and answers what names it on this machine: while processes that carry the
/// name live, no other directory can have the same.
fn prepare(records: &Path) -> io::Result<String> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(records)?;
    let metadata = fs::metadata(records)?;
    Ok(format!("{:x}-{:x}", metadata.dev(), metadata.ino()))
}
