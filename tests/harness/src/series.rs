//! Measured values and what is said of them.

/// Values of one kind, in the order in which they were measured.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
#[serde(transparent)]
pub struct Series(pub Vec<f64>);

impl Series {
    pub fn push(&mut self, value: f64) {
        self.0.push(value);
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The smallest value that `percent` of all values do not exceed (nearest rank): one that was
    /// really measured, never one in between. `None` of nothing.
    pub fn percentile(&self, percent: u32) -> Option<f64> {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let rank = (sorted.len() * percent as usize).div_ceil(100).max(1);
        sorted.get(rank - 1).copied()
    }

    pub fn median(&self) -> Option<f64> {
        self.percentile(50)
    }

    pub fn max(&self) -> Option<f64> {
        self.percentile(100)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let series = Series((1..=50).rev().map(f64::from).collect());
        let of = |percent| series.percentile(percent).unwrap();
        assert_eq!([of(0), of(50), of(95), of(99), of(100)], [1.0, 25.0, 48.0, 50.0, 50.0]);
        assert_eq!(Series(vec![3.0, 1.0, 2.0]).median(), Some(2.0));
        assert_eq!(Series::default().median(), None);
    }
}
