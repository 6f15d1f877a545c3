//! Measures one member: latency of transactions of one blob row, and what a churned working set costs
//! in memory, disk and bytes written.
//!
//! ```text
//! bench DIR [key=value …]
//!   rows=5000         transactions, each inserting one row
//!   bytes=1100        of the blob in each
//!   keep=0            rows that stay; older ones are deleted in the same transaction, 0 keeps all
//!   threshold=1024    entries until a snapshot
//!   trailing=1024     entries kept behind it
//!   dynamic=0         1 bounds what is kept by the snapshot's size
//!   latency=0         milliseconds of the network's round trip, 0 for libdqlite's own
//!   trim=0            1 gives memory back every second
//!   arenas=0          limit of malloc's arenas
//!   idle=0            seconds to wait afterwards, and what they cost
//!   every=0           rows between two reports
//! ```

use std::time::{Duration, Instant};

use dqlite::{Connection, DatabaseName, MemberId, Node, SnapshotParams, Trailing, memory, params};

struct Options {
    values: Vec<(String, u64)>,
}

impl Options {
    fn get(&self, key: &str, default: u64) -> u64 {
        self.values.iter().find(|(k, _)| k == key).map_or(default, |(_, value)| *value)
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let dir = arguments.next().ok_or("usage: bench DIR [key=value …]")?;
    let pair = |text: String| {
        let (key, value) = text.split_once('=').ok_or(format!("{text}: expected key=value"))?;
        Ok::<_, Box<dyn std::error::Error>>((key.to_string(), value.parse()?))
    };
    let options = Options { values: arguments.map(pair).collect::<Result<_, _>>()? };
    if options.get("arenas", 0) > 0 {
        memory::limit_arenas(options.get("arenas", 0) as u16);
    }
    println!("libdqlite {}", dqlite::library_version());
    report("before the node", &dir);

    let began = Instant::now();
    let trailing = match options.get("dynamic", 0) {
        0 => Trailing::Static,
        _ => Trailing::Dynamic,
    };
    let snapshot = SnapshotParams {
        threshold_entries: options.get("threshold", 1024) as u32,
        trailing_entries: options.get("trailing", 1024) as u32,
        trailing,
    };
    let mut builder = Node::builder(MemberId::FIRST, "first", &dir).snapshot(snapshot);
    if options.get("latency", 0) > 0 {
        builder = builder.network_latency(Duration::from_millis(options.get("latency", 0)));
    }
    let node = builder.start()?;
    let loaded = began.elapsed();
    let name = DatabaseName::versioned("kube", 1)?;
    let mut connection = node.open_when_leader(&name, Duration::from_secs(30)).await?;
    let table = "CREATE TABLE IF NOT EXISTS log (id INTEGER PRIMARY KEY, v BLOB)";
    connection.query("SELECT 1", &[]).await?;
    println!("node loaded after {loaded:.1?}, first query answered after {:.1?}", began.elapsed());
    connection.exec(table, &[]).await?;
    report("node idle", &dir);

    write(&mut connection, &options, &dir).await?;
    pages(&mut connection).await?;
    report("after the writes", &dir);
    let began = Instant::now();
    memory::trim();
    println!("trim took {:.1?}", began.elapsed());
    report("after a trim", &dir);
    idle(&options).await;
    drop(connection);
    let began = Instant::now();
    node.stop()?;
    println!("stopped in {:.1?}", began.elapsed());
    Ok(())
}

/// The transactions, one after the other.
async fn write(
    connection: &mut Connection,
    options: &Options,
    dir: &str,
) -> Result<(), Box<dyn std::error::Error>> {
    let (rows, bytes) = (options.get("rows", 5000), options.get("bytes", 1100));
    let (keep, every) = (options.get("keep", 0), options.get("every", 0));
    let found = connection.query("SELECT coalesce(max(id), 0) FROM log", &[]).await?;
    let first = found.single().ok_or("one row")?.integer(0)? + 1;
    let mut latencies = Vec::with_capacity(rows as usize);
    let (began, before) = (Instant::now(), io("write_bytes"));
    let mut trimmed = Instant::now();
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    for i in 0..rows {
        let blob: Vec<u8> = (0..bytes.div_ceil(8)).flat_map(|_| next(&mut random)).collect();
        let id = first + i as i64;
        let one = Instant::now();
        if keep == 0 {
            connection.exec("INSERT INTO log VALUES (?, ?)", &params![id, blob]).await?;
        } else {
            let churn = "BEGIN IMMEDIATE; INSERT INTO log VALUES (?, ?); \
                         DELETE FROM log WHERE id <= ?; COMMIT";
            connection.exec(churn, &params![id, blob, id - keep as i64]).await?;
        }
        latencies.push(one.elapsed());
        if options.get("trim", 0) > 0 && trimmed.elapsed() > Duration::from_secs(1) {
            memory::trim();
            trimmed = Instant::now();
        }
        if every > 0 && (i + 1) % every == 0 {
            pages(connection).await?;
            report(&format!("{} rows", i + 1), dir);
        }
    }
    let took = began.elapsed();
    latencies.sort();
    let at = |share: f64| latencies.get((latencies.len() as f64 * share) as usize);
    println!(
        "{rows} transactions of {bytes} bytes in {took:.1?}: {:.0}/s, p50 {:.2?} p99 {:.2?} max {:.2?}",
        rows as f64 / took.as_secs_f64(),
        at(0.5).unwrap_or(&Duration::ZERO),
        at(0.99).unwrap_or(&Duration::ZERO),
        latencies.last().unwrap_or(&Duration::ZERO),
    );
    let written = io("write_bytes") - before;
    println!(
        "{:.1} bytes written for each acknowledged",
        written as f64 / (rows * bytes).max(1) as f64
    );
    Ok(())
}

async fn pages(connection: &mut Connection) -> Result<(), Box<dyn std::error::Error>> {
    let mut numbers = Vec::new();
    for pragma in ["PRAGMA page_count", "PRAGMA freelist_count"] {
        let rows = connection.query(pragma, &[]).await?;
        numbers.push(rows.single().ok_or("one row")?.integer(0)?);
    }
    println!("{} pages in the database, {} of them free", numbers[0], numbers[1]);
    Ok(())
}

async fn idle(options: &Options) {
    let seconds = options.get("idle", 0);
    if seconds == 0 {
        return;
    }
    let (cpu, written) = (cpu_ticks(), io("write_bytes"));
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    println!(
        "idle for {seconds} s: {} ticks of processor time (100 a second), {} bytes written",
        cpu_ticks() - cpu,
        io("write_bytes") - written
    );
}

/// Not a good generator, but one that does not compress.
fn next(state: &mut u64) -> [u8; 8] {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    state.to_le_bytes()
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

fn field(text: &str, name: &str) -> u64 {
    let line = text.lines().find(|line| line.split(':').next() == Some(name)).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|value| value.parse().ok()).unwrap_or(0)
}

fn io(name: &str) -> u64 {
    field(&read("/proc/self/io"), name)
}

fn cpu_ticks() -> u64 {
    let stat = read("/proc/self/stat");
    let after = stat.rsplit(')').next().unwrap_or_default();
    after.split_whitespace().skip(11).take(2).filter_map(|n| n.parse::<u64>().ok()).sum()
}

fn report(when: &str, dir: &str) {
    let (smaps, status) = (read("/proc/self/smaps_rollup"), read("/proc/self/status"));
    let disk: u64 = std::fs::read_dir(dir)
        .map(|entries| entries.flatten().filter_map(|e| e.metadata().ok()).map(|m| m.len()).sum())
        .unwrap_or(0);
    println!(
        "{when}: rss {} pss {} anonymous {} peak {} KiB, {} threads, {} KiB on disk",
        field(&smaps, "Rss"),
        field(&smaps, "Pss"),
        field(&smaps, "Pss_Anon"),
        field(&status, "VmHWM"),
        field(&status, "Threads"),
        disk / 1024
    );
}
