//! What a node takes while nothing is asked of it.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;
use harness::{Process, TestNode, memory_of, processes_beneath, sharers, usage_of};
use serde::Serialize;
use tokio::time::sleep;

const SECONDS_PER_HOUR: f64 = 3600.0;

/// Memory of every process beneath the node.
#[derive(Clone, Debug, Serialize)]
pub struct Memory {
    pub pss_kib: u64,
    pub processes: Vec<Process>,
    /// Other processes of the machine that run the same files: more than 0 makes `pss_kib` too
    /// small.
    pub sharers: usize,
}

/// Processor time and bytes written over a while.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Activity {
    pub seconds: f64,
    /// Of one core.
    pub cpu_percent: f64,
    pub written_bytes_per_hour: f64,
}

pub fn memory(node: &TestNode, instance: &str) -> Memory {
    let pids = processes_beneath(instance, node.root());
    let processes = memory_of(&pids);
    let pss_kib = processes.iter().map(|process| process.pss_kib).sum();
    Memory { pss_kib, processes, sharers: sharers(&pids) }
}

pub async fn activity(instance: &str, root: &Path, window: Duration) -> Result<Activity> {
    let look = || usage_of(&processes_beneath(instance, root));
    let (begun, before) = (Instant::now(), look());
    sleep(window).await;
    let (seconds, after) = (begun.elapsed().as_secs_f64(), look());
    let written = after.written_bytes.saturating_sub(before.written_bytes);
    Ok(Activity {
        seconds,
        cpu_percent: (after.cpu_s - before.cpu_s) / seconds * 100.0,
        written_bytes_per_hour: written as f64 / seconds * SECONDS_PER_HOUR,
    })
}
