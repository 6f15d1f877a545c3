//! Many keys and many more updates of them: memory, disk, and the start thereafter.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use skiff_datastore::proto::kv_client::KvClient;
use skiff_datastore::proto::{CompactionRequest, RangeRequest};

use crate::Scale;
use crate::load::{Act, Clients};
use crate::object::VALUE_BYTES;
use crate::report::Report;
use crate::store::{Store, Usage};

const CLIENTS: usize = 64;
/// Everything older than this is forgotten.
const COMPACTION_PERIOD: Duration = Duration::from_secs(60);
/// How many times memory and disk are looked at.
const LOOKS: usize = 50;
/// After the last update, for what a datastore still does.
const SETTLE: Duration = Duration::from_secs(10);

pub async fn churn(store: &mut Store, scale: &Scale, report: &mut Report) -> Result<()> {
    let channels = store.channels(16).await?;
    let mut clients = Clients::new(&channels, CLIENTS, 0);
    clients.times(Act::Create, scale.bulk_keys.div_ceil(CLIENTS)).await?;
    let mut kv = KvClient::new(channels[0].clone());
    let (mut compacted, mut known) = (Instant::now(), revision(&mut kv).await?);
    let before = store.usage();
    let mut looks = Vec::new();
    for _ in 0..LOOKS {
        clients.times(Act::Update, scale.bulk_updates.div_ceil(CLIENTS * LOOKS)).await?;
        looks.push(store.usage());
        if compacted.elapsed() > COMPACTION_PERIOD {
            kv.compact(CompactionRequest { revision: known, physical: false }).await?;
            (compacted, known) = (Instant::now(), revision(&mut kv).await?);
        }
    }
    let newest = revision(&mut kv).await?;
    kv.compact(CompactionRequest { revision: newest, physical: false }).await?;
    tokio::time::sleep(SETTLE).await;
    let after = store.usage();

    let kind = store.kind;
    let peak = |of: fn(&Usage) -> u64, looks: &[Usage]| {
        looks.iter().map(of).max().unwrap_or(0) as f64 / f64::from(1 << 20)
    };
    let (resident, disk) = (|u: &Usage| u.resident_bytes, |u: &Usage| u.disk_bytes);
    let half = LOOKS / 2;
    report.note(
        kind,
        "bulk: memory, first half's peak",
        "MiB",
        "≤ 1",
        peak(resident, &looks[..half]),
    );
    report.note(kind, "bulk: memory, second half's", "MiB", "≤ 1", peak(resident, &looks[half..]));
    report.note(kind, "bulk: disk, first half's peak", "MiB", "≤ 1", peak(disk, &looks[..half]));
    report.note(kind, "bulk: disk, second half's", "MiB", "≤ 1", peak(disk, &looks[half..]));
    report.note(kind, "bulk: memory at the end", "MiB", "≤ 1", peak(resident, &[after]));
    report.note(kind, "bulk: disk at the end", "MiB", "≤ 1", peak(disk, &[after]));
    let acknowledged = (scale.bulk_updates * VALUE_BYTES) as f64;
    let written = (after.written_bytes - before.written_bytes) as f64 / acknowledged;
    report.note(kind, "bulk: written per byte", "", "", written);

    let member = &mut store.members[0];
    member.kill();
    let begun = Instant::now();
    member.spawn()?;
    member.serves().await?;
    report.note(kind, "bulk: start after kill -9", "s", "≤ 1", begun.elapsed().as_secs_f64());
    member.stop()?;
    let begun = Instant::now();
    member.spawn()?;
    member.serves().await?;
    report.note(kind, "bulk: start after stop", "s", "≤ 1", begun.elapsed().as_secs_f64());
    Ok(())
}

async fn revision(kv: &mut KvClient<tonic::transport::Channel>) -> Result<i64> {
    let answer = kv.range(RangeRequest { key: "none".into(), ..Default::default() }).await?;
    Ok(answer.into_inner().header.context("an answer has no header")?.revision)
}
