//! What a former supervisor left: what is ours goes on, strangers are ended.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;

use crate::event::Run;
use crate::launch::{Launcher, Live, MARKER, Territory};
use crate::process;
use crate::record::{self, Record};
use crate::spec::DaemonName;

/// A daemon that no specification names is asked to end; after this long it is killed.
const STRANGER_STOP_TIMEOUT: Duration = Duration::from_secs(10);
const STRANGER_INTERVAL: Duration = Duration::from_millis(20);

/// The processes that records name and that are still the same.
pub(crate) fn alive(records: Vec<Record>) -> Vec<Record> {
    records.into_iter().filter(|record| record.identity.is_alive()).collect()
}

/// Takes a process over. It may have ended between the look and the hold on it: none then.
pub(crate) fn hold(record: &Record, run: Run) -> Option<Live> {
    let live = Live::watch(record.identity.pid, run).ok()?;
    (live.identity == record.identity).then_some(live)
}

/// Ends every daemon that is left of a former configuration: found by record, by control group
/// below `cgroup`, or by marker.
pub(crate) async fn end_strangers(
    launcher: &Launcher,
    cgroup: &str,
    records: (&Path, &[Record]),
    known: &BTreeSet<DaemonName>,
    survivors: &[String],
) {
    let (directory, records) = records;
    let mut strangers: BTreeMap<DaemonName, Vec<String>> = BTreeMap::new();
    for record in records {
        strangers.entry(record.name.clone()).or_default().push(record.cgroup.clone());
    }
    for name in launcher.cgroups.children(cgroup) {
        let path = format!("{cgroup}/{name}");
        strangers.entry(name.into()).or_default().push(path);
    }
    for (_, name) in process::marked(MARKER, &format!("{}/", launcher.instance)) {
        strangers.entry(name.into()).or_default();
    }
    strangers.retain(|name, _| !known.contains(name));
    let strangers: Vec<Territory> = strangers
        .into_iter()
        .map(|(name, cgroups)| Territory { name, cgroups, survivors: survivors.to_vec() })
        .collect();
    for stranger in &strangers {
        for pid in launcher.processes(stranger) {
            tracing::info!(daemon = %stranger.name, pid, "ending a daemon that is not configured");
            process::send(pid, Signal::TERM);
        }
    }
    let end = tokio::time::Instant::now() + STRANGER_STOP_TIMEOUT;
    while tokio::time::Instant::now() < end
        && strangers.iter().any(|stranger| !launcher.processes(stranger).is_empty())
    {
        tokio::time::sleep(STRANGER_INTERVAL).await;
    }
    for stranger in &strangers {
        // One that the kernel holds must not keep the node from starting.
        let cleared = tokio::time::timeout(STRANGER_STOP_TIMEOUT, launcher.clear(stranger)).await;
        if cleared.is_err() {
            tracing::error!(daemon = %stranger.name, "processes of a former daemon do not end");
        }
        record::remove(directory, &stranger.name);
    }
}
