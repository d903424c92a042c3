//! Figures of many measurements.

use serde::Serialize;

/// How measurements are distributed. Percentiles are those of the nearest rank: a value that was measured.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Distribution {
    /// How many there are.
    pub count: usize,
    /// Their mean; 0 if there are none.
    pub mean: f64,
    /// Their variance (of the whole population).
    pub variance: f64,
    /// The least.
    pub min: f64,
    /// The median.
    pub p50: f64,
    /// Nine tenths are at most this.
    pub p90: f64,
    /// Ninety-nine of a hundred are at most this.
    pub p99: f64,
    /// The greatest.
    pub max: f64,
}

impl Distribution {
    /// The distribution of these.
    pub fn of(measured: impl IntoIterator<Item = f64>) -> Distribution {
        let mut sorted: Vec<f64> = measured.into_iter().collect();
        if sorted.is_empty() {
            return Distribution::default();
        }
        sorted.sort_unstable_by(f64::total_cmp);
        let count = sorted.len();
        let mean = sorted.iter().sum::<f64>() / count as f64;
        let variance = sorted.iter().map(|it| (it - mean).powi(2)).sum::<f64>() / count as f64;
        let rank = |p: f64| sorted[((p * count as f64).ceil() as usize).clamp(1, count) - 1];
        Distribution {
            count,
            mean,
            variance,
            min: sorted[0],
            p50: rank(0.5),
            p90: rank(0.9),
            p99: rank(0.99),
            max: sorted[count - 1],
        }
    }
}

/// How often each whole number from 0 to the greatest was measured.
pub fn histogram(measured: impl IntoIterator<Item = u32>) -> Vec<u64> {
    let mut counts: Vec<u64> = Vec::new();
    for number in measured {
        let number = number as usize;
        counts.resize(counts.len().max(number + 1), 0);
        counts[number] += 1;
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_nearest_rank() {
        let of = Distribution::of((1..=100).rev().map(f64::from));
        assert_eq!((of.count, of.mean, of.min, of.max), (100, 50.5, 1.0, 100.0));
        assert_eq!((of.p50, of.p90, of.p99), (50.0, 90.0, 99.0));
        assert_eq!(of.variance, 833.25);
        let one = Distribution::of([7.0]);
        assert_eq!((one.p50, one.p99, one.variance), (7.0, 7.0, 0.0));
        assert_eq!(Distribution::of([]), Distribution::default());
    }

    #[test]
    fn histograms_count() {
        assert_eq!(histogram([2, 0, 2, 3]), [1, 0, 2, 1]);
        assert!(histogram([]).is_empty());
    }
}
