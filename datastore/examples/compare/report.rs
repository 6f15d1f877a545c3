//! The figures: as data, and as a table.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::Serialize;

use crate::store::Kind;

/// What was measured, in the order in which it was first.
#[derive(Debug, Default, Serialize)]
pub struct Report(Vec<Figure>);

#[derive(Debug, Serialize)]
struct Figure {
    name: String,
    unit: &'static str,
    /// Of our value to etcd's.
    aim: &'static str,
    /// One a round.
    values: BTreeMap<Kind, Vec<f64>>,
}

impl Report {
    /// Notes one value of one round.
    pub fn note(
        &mut self,
        kind: Kind,
        name: impl Into<String>,
        unit: &'static str,
        aim: &'static str,
        value: f64,
    ) {
        let name = name.into();
        let position = self.0.iter().position(|figure| figure.name == name);
        let position = position.unwrap_or_else(|| {
            self.0.push(Figure { name, unit, aim, values: BTreeMap::new() });
            self.0.len() - 1
        });
        self.0[position].values.entry(kind).or_default().push(value);
    }

    /// Medians over the rounds, with the ratio to etcd's.
    pub fn text(&self) -> String {
        let mut out = String::new();
        let head = ["FIGURE", "SKIFF", "ETCD", "KINE", "RATIO"];
        let [name, skiff, etcd, kine, ratio] = head;
        let _ = writeln!(out, "{name:<36} {skiff:>9} {etcd:>9} {kine:>9} {ratio:>6}  AIM");
        for figure in &self.0 {
            let median = |kind| figure.values.get(&kind).map(|all| median(all));
            let (skiff, etcd) = (median(Kind::Skiff), median(Kind::Etcd));
            let ratio = skiff.zip(etcd).filter(|(_, etcd)| *etcd > 0.0);
            let ratio = ratio.map_or("-".into(), |(skiff, etcd)| format!("{:.2}", skiff / etcd));
            let name = format!("{}, {}", figure.name, figure.unit);
            let [skiff, etcd, kine] = [skiff, etcd, median(Kind::Kine)].map(shown);
            let aim = figure.aim;
            let _ = writeln!(out, "{name:<36} {skiff:>9} {etcd:>9} {kine:>9} {ratio:>6}  {aim}");
        }
        out
    }
}

fn shown(value: Option<f64>) -> String {
    match value {
        Some(value) if value >= 100.0 => format!("{value:.0}"),
        Some(value) => format!("{value:.2}"),
        None => "-".into(),
    }
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[middle] } else { (sorted[middle - 1] + sorted[middle]) / 2.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_is_ours_to_etcds_by_medians() {
        let mut report = Report::default();
        for value in [1.0, 9.0, 3.0] {
            report.note(Kind::Skiff, "writes", "1/s", "≥ 1.5", value);
        }
        report.note(Kind::Etcd, "writes", "1/s", "≥ 1.5", 2.0);
        let text = report.text();
        let row = text.lines().nth(1).unwrap();
        let words: Vec<_> = row.split_whitespace().collect();
        assert_eq!(words, ["writes,", "1/s", "3.00", "2.00", "-", "1.50", "≥", "1.5"]);
    }
}
