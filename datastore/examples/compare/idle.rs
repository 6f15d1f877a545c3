//! A quiet cluster: a hundred nodes whose leases are renewed.

use std::time::{Duration, Instant};

use anyhow::Result;

use crate::Scale;
use crate::load::{Act, Clients};
use crate::report::Report;
use crate::store::Store;

/// A hundred updates each ten seconds.
const PAUSE: Duration = Duration::from_millis(100);
const NODES: usize = 100;

pub async fn quiet(store: &mut Store, scale: &Scale, report: &mut Report) -> Result<()> {
    let channels = store.channels(1).await?;
    let mut clients = Clients::new(&channels, 1, 0);
    clients.times(Act::Create, NODES).await?;
    let before = store.usage();
    let begun = Instant::now();
    let mut ticks = tokio::time::interval(PAUSE);
    while begun.elapsed() < scale.idle {
        ticks.tick().await;
        clients.times(Act::Update, 1).await?;
    }
    let (after, elapsed) = (store.usage(), begun.elapsed().as_secs_f64());
    let percent = (after.cpu_s - before.cpu_s) / elapsed * 100.0;
    report.note(store.kind, "quiet, of one core", "%", "≤ 1, 1 %", percent);
    let written = (after.written_bytes - before.written_bytes) as f64 / elapsed / 1024.0;
    report.note(store.kind, "quiet, written", "KiB/s", "≤ 1", written);
    Ok(())
}
