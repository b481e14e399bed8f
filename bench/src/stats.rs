//! Numbers of a sample.

use std::time::Duration;

/// The value below which a share of the sample lies, by the nearest rank. Nothing of an empty sample.
pub fn quantile(sample: &[f64], share: f64) -> Option<f64> {
    let mut sorted: Vec<f64> = sample.to_vec();
    sorted.sort_by(f64::total_cmp);
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let rank = (share.clamp(0.0, 1.0) * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied()
}

/// The middle of the sample; of two middles their mean.
pub fn median(sample: &[f64]) -> Option<f64> {
    let mut sorted: Vec<f64> = sample.to_vec();
    sorted.sort_by(f64::total_cmp);
    let upper = sorted.get(sorted.len() / 2)?;
    if sorted.len() % 2 == 1 {
        return Some(*upper);
    }
    Some(f64::midpoint(*upper, sorted[sorted.len() / 2 - 1]))
}

/// The least and the greatest.
pub fn range(sample: &[f64]) -> Option<(f64, f64)> {
    let least = sample.iter().copied().reduce(f64::min)?;
    Some((least, sample.iter().copied().reduce(f64::max)?))
}

/// How many a second.
#[allow(clippy::cast_precision_loss)]
pub fn rate(count: usize, took: Duration) -> f64 {
    count as f64 / took.as_secs_f64()
}

/// Milliseconds.
pub fn milliseconds(took: Duration) -> f64 {
    took.as_secs_f64() * 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_members_of_the_sample() {
        let sample: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        assert_eq!(quantile(&sample, 0.5), Some(50.0));
        assert_eq!(quantile(&sample, 0.99), Some(99.0));
        assert_eq!(quantile(&sample, 1.0), Some(100.0));
        assert_eq!(quantile(&sample, 0.0), Some(1.0));
        assert_eq!(quantile(&[7.0], 0.99), Some(7.0));
        assert_eq!(quantile(&[], 0.5), None);
    }

    #[test]
    fn the_median_does_not_follow_one_bad_round() {
        assert_eq!(median(&[0.9, 0.1, 0.8]), Some(0.8));
        assert_eq!(median(&[1.0, 2.0]), Some(1.5));
        assert_eq!(median(&[]), None);
        assert_eq!(range(&[3.0, 1.0, 2.0]), Some((1.0, 3.0)));
    }
}
