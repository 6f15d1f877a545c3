//! Throughput and latency of each kind of request.

use anyhow::Result;

use crate::Scale;
use crate::load::{Act, Clients};
use crate::report::Report;
use crate::store::Store;

/// As many as the API server and its controllers keep busy on a full node.
const MANY: usize = 64;
/// Lists cost the clients as much as the server: fewer of them are at it.
const LISTERS: usize = 8;

const WRITES: [(Act, &str); 3] =
    [(Act::Create, "create"), (Act::Update, "update"), (Act::Delete, "delete")];

/// Everything of one member.
pub async fn one(store: &mut Store, scale: &Scale, report: &mut Report) -> Result<()> {
    let channels = store.channels(16).await?;
    let mut clients = Clients::new(&channels, 1, 1 << 40);
    for (act, name) in WRITES {
        let done = clients.run(act, scale.span).await?;
        report.note(
            store.kind,
            format!("{name}, 1 client, p50"),
            "ms",
            "≤ 1",
            done.percentile_ms(50),
        );
    }
    let mut clients = Clients::new(&channels, MANY, 0);
    clients.times(Act::Create, scale.keys.div_ceil(MANY)).await?;
    for (act, name) in [(Act::Get, "get"), (Act::Count, "count")] {
        let done = clients.run(act, scale.span).await?;
        report.note(
            store.kind,
            format!("{name}, {MANY} clients"),
            "1/s",
            "≥ 1.5",
            done.per_second(),
        );
    }
    let mut listers = Clients::new(&channels, LISTERS, 1 << 41);
    for (act, name) in [(Act::List, "list of 500"), (Act::Pages, "list of all, pages")] {
        let done = listers.run(act, scale.span).await?;
        report.note(
            store.kind,
            format!("{name}, {LISTERS} clients"),
            "1/s",
            "≥ 1.5",
            done.per_second(),
        );
    }
    writes(&mut Clients::new(&channels, MANY, 1 << 42), "", store, scale, report).await
}

/// Writes of three members, clients at each of them.
pub async fn three(store: &mut Store, scale: &Scale, report: &mut Report) -> Result<()> {
    let channels = store.channels(15).await?;
    writes(&mut Clients::new(&channels, MANY, 0), "3 members: ", store, scale, report).await
}

async fn writes(
    clients: &mut Clients,
    whose: &str,
    store: &Store,
    scale: &Scale,
    report: &mut Report,
) -> Result<()> {
    for (act, name) in WRITES {
        let done = clients.run(act, scale.span).await?;
        let name = format!("{whose}{name}, {MANY} clients");
        report.note(store.kind, name.clone(), "1/s", "≥ 1.5", done.per_second());
        report.note(store.kind, format!("{name}, p99"), "ms", "≤ 1", done.percentile_ms(99));
    }
    Ok(())
}
