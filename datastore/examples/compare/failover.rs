//! How long a leader that is killed is missed.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use skiff_datastore::proto::PutRequest;
use skiff_datastore::proto::kv_client::KvClient;
use tokio::task::JoinSet;

use crate::Scale;
use crate::report::Report;
use crate::store::Store;

/// How long a write may be missing.
const BOUND: Duration = Duration::from_secs(60);
/// After a member has come back: what has to be fetched is there.
const SETTLE: Duration = Duration::from_secs(2);
/// Between two tries at the same member.
const PAUSE: Duration = Duration::from_millis(5);

/// From kill -9 of the leader to the first write that is acknowledged by any other.
pub async fn kill_leaders(store: &mut Store, scale: &Scale, report: &mut Report) -> Result<()> {
    let mut times = Vec::new();
    for round in 0..scale.kills {
        let leader = store.leader().await?;
        let channels: Vec<_> = {
            let mut channels = Vec::new();
            for (position, member) in store.members.iter().enumerate() {
                if position != leader {
                    channels.push(member.channel().await?);
                }
            }
            channels
        };
        store.members[leader].kill();
        let begun = Instant::now();
        let mut tries = JoinSet::new();
        for (number, channel) in channels.into_iter().enumerate() {
            tries.spawn(async move {
                let mut kv = KvClient::new(channel);
                loop {
                    let key = format!("failover-{round}-{number}");
                    let put =
                        PutRequest { key: key.into(), value: "x".into(), ..Default::default() };
                    if kv.put(put).await.is_ok() {
                        return;
                    }
                    tokio::time::sleep(PAUSE).await;
                }
            });
        }
        tokio::select! {
            _ = tries.join_next() => times.push(begun.elapsed()),
            () = tokio::time::sleep(BOUND) => bail!("nobody writes after the leader's death"),
        }
        tries.shutdown().await;
        store.members[leader].spawn()?;
        store.members[leader].serves().await?;
        tokio::time::sleep(SETTLE).await;
    }
    times.sort_unstable();
    let name = format!("{} kills of the leader, to a write", scale.kills);
    let seconds = |time: Option<&Duration>| time.map_or(0.0, Duration::as_secs_f64);
    report.note(store.kind, format!("{name}, p50"), "s", "", seconds(times.get(times.len() / 2)));
    report.note(store.kind, format!("{name}, max"), "s", "< 1 s", seconds(times.last()));
    Ok(())
}
