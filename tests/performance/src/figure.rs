//! What was measured, beside each other.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

/// Who a figure is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Side {
    Skiff,
    Peer,
}

/// Everything measured in one run, in the order in which it came.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    figures: Vec<Figure>,
    /// Lists that belong to a figure, a line each.
    notes: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Figure {
    name: String,
    values: BTreeMap<Side, Vec<f64>>,
}

impl Report {
    pub fn add(&mut self, name: &str, side: Side, value: f64) {
        eprintln!("    {side:?}: {name}: {value:.2}");
        let place = self.figures.iter().position(|figure| figure.name == name);
        let place = place.unwrap_or_else(|| {
            self.figures.push(Figure { name: name.into(), values: BTreeMap::new() });
            self.figures.len() - 1
        });
        self.figures[place].values.entry(side).or_default().push(value);
    }

    pub fn note(&mut self, line: String) {
        eprintln!("    {line}");
        self.notes.push(line);
    }

    pub fn print(&self) {
        for note in &self.notes {
            println!("{note}");
        }
        println!("{:44} {:>10} {:>10} {:>7}", "median of the rounds", "skiff", "peer", "ratio");
        for figure in &self.figures {
            let of = |side| figure.values.get(&side).map(|values| median(values));
            let (skiff, peer) = (of(Side::Skiff), of(Side::Peer));
            let show = |value: Option<f64>| value.map_or("-".into(), |v| format!("{v:.2}"));
            let ratio = skiff.zip(peer).filter(|(_, peer)| *peer > 0.0).map(|(s, p)| s / p);
            let (skiff, peer, ratio) = (show(skiff), show(peer), show(ratio));
            println!("{:44} {skiff:>10} {peer:>10} {ratio:>7}", figure.name);
        }
    }

    /// Beside the build, so that runs can be compared by a program.
    pub fn save(&self) -> Result<()> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/bench");
        fs::create_dir_all(&folder)?;
        let file = folder.join("node.json");
        fs::write(&file, serde_json::to_string_pretty(self)?)
            .with_context(|| format!("cannot write {}", file.display()))
    }
}

pub fn median(values: &[f64]) -> f64 {
    quantile(values, 0.5)
}

/// The value that a share of the others does not exceed (nearest rank); 0 of nothing.
pub fn quantile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (share * sorted.len() as f64).ceil().max(1.0) as usize;
    sorted.get(rank - 1).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_values_that_were_measured() {
        let values: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!(quantile(&values, 0.5), 50.0);
        assert_eq!(quantile(&values, 0.99), 99.0);
        assert_eq!(quantile(&values, 1.0), 100.0);
        assert_eq!(quantile(&[7.0], 0.01), 7.0);
        assert_eq!(quantile(&[], 0.5), 0.0);
    }
}
