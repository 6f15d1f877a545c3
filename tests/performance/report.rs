//! The figures: as data, and as a table with the peer's beside ours.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;

use harness::Series;
use serde::Serialize;

use crate::idle::{Activity, Memory};
use crate::peer::DIFFERENCES;
use crate::size::Size;
use crate::start::StartTimes;

/// Everything that was measured of one of the two; what was not, is empty.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Measured {
    /// One a round.
    pub start: Vec<StartTimes>,
    pub memory: Option<Memory>,
    pub activity: Option<Activity>,
    /// Milliseconds.
    pub pods: Series,
    /// Milliseconds.
    pub commands: BTreeMap<String, Series>,
}

/// One run.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    pub machine: String,
    pub short: bool,
    pub settle_s: u64,
    pub skiff: Measured,
    pub peer: Option<Measured>,
    pub sizes: Vec<Size>,
    pub flags_left_out: Vec<String>,
}

/// One line of the table.
struct Row {
    name: &'static str,
    unit: &'static str,
    /// What issue and design ask for.
    aim: &'static str,
    of: fn(&Measured) -> Option<f64>,
}

const ROWS: &[Row] = &[
    Row { name: "start: API server ready", unit: "s", aim: "", of: |m| median(m, |s| s.api_s) },
    Row {
        name: "start: node Ready",
        unit: "s",
        aim: "≤ 0.70, 10 s",
        of: |m| median(m, |s| s.ready_s),
    },
    Row {
        name: "start: DNS answers",
        unit: "s",
        aim: "≤ 0.70, 14 s",
        of: |m| median(m, |s| s.dns_s),
    },
    Row { name: "start: `skiff start` returns", unit: "s", aim: "", of: returned },
    Row { name: "idle memory, PSS", unit: "MiB", aim: "≤ 0.65, 360 MiB", of: memory },
    Row { name: "idle CPU, of one core", unit: "%", aim: "≤ 0.60, 3 %", of: cpu },
    Row { name: "written per idle hour", unit: "MiB", aim: "≤ 1.00", of: written },
    Row { name: "pod start, p50", unit: "ms", aim: "≤ 1.00", of: |m| m.pods.median() },
    Row { name: "pod start, p99", unit: "ms", aim: "≤ 1.00", of: |m| m.pods.percentile(99) },
];

fn median(measured: &Measured, pick: fn(&StartTimes) -> f64) -> Option<f64> {
    Series(measured.start.iter().map(pick).collect()).median()
}

fn returned(measured: &Measured) -> Option<f64> {
    Series(measured.start.iter().filter_map(|start| start.returned_s).collect()).median()
}

fn memory(measured: &Measured) -> Option<f64> {
    measured.memory.as_ref().map(|memory| mib(memory.pss_kib * 1024))
}

fn cpu(measured: &Measured) -> Option<f64> {
    measured.activity.map(|activity| activity.cpu_percent)
}

fn written(measured: &Measured) -> Option<f64> {
    measured.activity.map(|activity| activity.written_bytes_per_hour / f64::from(1 << 20))
}

impl Report {
    /// The whole screen, in 80 columns.
    pub fn text(&self) -> String {
        let mut out = String::new();
        self.write(&mut out).expect("writing to a string cannot fail");
        out
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        writeln!(out, "{}", self.machine)?;
        if self.short {
            writeln!(out, "short form: for a look, not for a comparison")?;
        }
        self.write_table(out)?;
        self.write_rounds(out)?;
        self.write_memory(out)?;
        self.write_commands(out)?;
        self.write_sizes(out)?;
        self.write_peer(out)
    }

    fn write_table(&self, out: &mut String) -> std::fmt::Result {
        let rows: Vec<_> = ROWS
            .iter()
            .map(|row| (row, (row.of)(&self.skiff), self.peer.as_ref().and_then(row.of)))
            .filter(|(_, skiff, peer)| skiff.is_some() || peer.is_some())
            .collect();
        if rows.is_empty() {
            return Ok(());
        }
        writeln!(out, "\n{:<30} {:>11} {:>11} {:>6}  AIM", "FIGURE", "SKIFF", "PEER", "RATIO")?;
        for (row, skiff, peer) in rows {
            let ratio = skiff.zip(peer).filter(|(_, peer)| *peer > 0.0);
            let ratio = ratio.map_or("-".into(), |(skiff, peer)| format!("{:.2}", skiff / peer));
            let (skiff, peer) = (value(skiff, row.unit), value(peer, row.unit));
            writeln!(out, "{:<30} {skiff:>11} {peer:>11} {ratio:>6}  {}", row.name, row.aim)?;
        }
        Ok(())
    }

    fn write_rounds(&self, out: &mut String) -> std::fmt::Result {
        if self.skiff.start.len() < 2 {
            return Ok(());
        }
        writeln!(out, "\nstart, each round (API server, node Ready, DNS; the table has medians)")?;
        for (name, measured) in self.both() {
            for times in &measured.start {
                let StartTimes { api_s, ready_s, dns_s, .. } = times;
                writeln!(out, "  {name:<6} {api_s:>7.2} {ready_s:>7.2} {dns_s:>7.2}")?;
            }
        }
        Ok(())
    }

    fn write_memory(&self, out: &mut String) -> std::fmt::Result {
        for (name, measured) in self.both() {
            let Some(memory) = &measured.memory else { continue };
            let settle = self.settle_s;
            writeln!(out, "\nmemory of {name}, {settle} s after DNS answered (MiB)")?;
            writeln!(out, "  {:<34} {:>8} {:>10}", "PROCESS", "PSS", "ANONYMOUS")?;
            for process in &memory.processes {
                let (pss, anonymous) =
                    (mib(process.pss_kib * 1024), mib(process.anonymous_kib * 1024));
                writeln!(out, "  {:<34} {pss:>8.1} {anonymous:>10.1}", process.name)?;
            }
            if memory.sharers > 0 {
                let count = memory.sharers;
                writeln!(
                    out,
                    "  {count} processes of others run the same files: PSS is too small"
                )?;
            }
        }
        Ok(())
    }

    fn write_commands(&self, out: &mut String) -> std::fmt::Result {
        if self.skiff.commands.is_empty() {
            return Ok(());
        }
        writeln!(out, "\n{:<30} {:>11} {:>11} {:>6}  AIM", "COMMAND", "P50", "P95", "RUNS")?;
        for (verb, series) in &self.skiff.commands {
            let (p50, p95) = (value(series.median(), "ms"), value(series.percentile(95), "ms"));
            let (name, runs) = (format!("skiff {verb}"), series.len());
            writeln!(out, "{name:<30} {p50:>11} {p95:>11} {runs:>6}  p95 < 30 ms")?;
        }
        Ok(())
    }

    fn write_sizes(&self, out: &mut String) -> std::fmt::Result {
        if self.sizes.is_empty() {
            return Ok(());
        }
        writeln!(out, "\n{:<30} {:>11} {:>11}", "SIZE ON DISK (MiB)", "RAW", "SQUASHFS")?;
        for size in &self.sizes {
            let raw = mib(size.raw_bytes);
            let packed = size.squashfs_bytes.map_or("-".into(), |b| format!("{:.1}", mib(b)));
            writeln!(out, "{:<30} {raw:>11.1} {packed:>11}", size.name)?;
        }
        if !self.short && self.sizes.iter().any(|size| size.squashfs_bytes.is_none()) {
            writeln!(out, "no squashfs: mksquashfs is missing (Debian package squashfs-tools)")?;
        }
        Ok(())
    }

    fn write_peer(&self, out: &mut String) -> std::fmt::Result {
        if self.peer.is_none() {
            return Ok(());
        }
        writeln!(out, "\nthe peer")?;
        for difference in DIFFERENCES {
            writeln!(out, "- {difference}")?;
        }
        writeln!(out, "flags of ours that it runs without:")?;
        self.flags_left_out.iter().try_for_each(|flag| writeln!(out, "  {}", elided(flag)))
    }

    fn both(&self) -> impl Iterator<Item = (&'static str, &Measured)> {
        std::iter::once(("skiff", &self.skiff)).chain(self.peer.as_ref().map(|m| ("peer", m)))
    }
}

/// Paths of a node that is gone say nothing.
fn elided(flag: &str) -> String {
    match flag.split_once('=') {
        Some((name, value)) if value.contains('/') => format!("{name}=…"),
        _ => flag.to_owned(),
    }
}

fn value(value: Option<f64>, unit: &str) -> String {
    match value {
        Some(value) if value >= 100.0 => format!("{value:.0} {unit}"),
        Some(value) => format!("{value:.2} {unit}"),
        None => "-".into(),
    }
}

pub fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// Processors, memory, kernel and how busy the machine is: without it no figure means anything.
pub fn machine() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let processors = std::thread::available_parallelism().map_or(0, usize::from);
    let meminfo = read("/proc/meminfo");
    let total = meminfo.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok());
    let total = total.map_or("?".into(), |kib| format!("{:.1}", kib as f64 / f64::from(1 << 20)));
    let kernel = read("/proc/sys/kernel/osrelease");
    let load = read("/proc/loadavg");
    let load = load.split(' ').next().unwrap_or("?");
    format!(
        "{processors} processors, {total} GiB of memory, Linux {}, load {load} at the start",
        kernel.trim()
    )
}
