//! Of several values: the one in the middle and how far they reach.

use serde::Serialize;

/// Values of one figure.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) most: f64,
}

impl Spread {
    /// None of no values.
    pub(crate) fn of(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_unstable_by(f64::total_cmp);
        let (least, most) = (*sorted.first()?, *sorted.last()?);
        let middle = sorted.len() / 2;
        let median = if sorted.len().is_multiple_of(2) {
            f64::midpoint(sorted[middle - 1], sorted[middle])
        } else {
            sorted[middle]
        };
        Some(Self { median, least, most })
    }
}

/// How many times `other` the values are: the median of the rounds' ratios, since both were measured in the same
/// rounds; with unequal numbers of rounds, the ratio of medians.
pub(crate) fn ratio(values: &[f64], other: &[f64]) -> Option<f64> {
    if values.len() == other.len() {
        let ratios: Vec<_> = values.iter().zip(other).map(|(own, other)| own / other).collect();
        return Spread::of(&ratios).map(|spread| spread.median);
    }
    Some(Spread::of(values)?.median / Spread::of(other)?.median)
}

/// The least by the mean: 1 when all are equal.
pub(crate) fn fairness(values: &[f64]) -> f64 {
    let (mut sum, mut count) = (0.0, 0.0);
    for value in values {
        sum += value;
        count += 1.0;
    }
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    if sum > 0.0 { least * count / sum } else { 0.0 }
}

/// 0 of none.
pub(crate) fn largest(values: impl Iterator<Item = f64>) -> f64 {
    values.fold(0.0, f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_lies_between_two() {
        let spread = Spread::of(&[4.0, 1.0, 3.0, 2.0]).unwrap();
        assert_eq!(spread, Spread { median: 2.5, least: 1.0, most: 4.0 });
        assert_eq!(Spread::of(&[7.0]).unwrap().median.to_bits(), 7.0_f64.to_bits());
        assert_eq!(Spread::of(&[]), None);
    }

    #[test]
    fn a_slow_round_of_both_does_not_change_their_ratio() {
        let paired = ratio(&[20.0, 2.0, 22.0], &[10.0, 1.0, 11.0]).unwrap();
        assert!((paired - 2.0).abs() < 1e-9);
        assert!((ratio(&[6.0], &[1.0, 2.0, 3.0]).unwrap() - 3.0).abs() < 1e-9);
        assert_eq!(ratio(&[], &[]), None);
    }

    #[test]
    fn fairness_is_the_slowest_by_the_mean() {
        assert!((fairness(&[1.0, 3.0]) - 0.5).abs() < 1e-9);
        assert!((fairness(&[2.0, 2.0, 2.0]) - 1.0).abs() < 1e-9);
        assert!(fairness(&[0.0, 0.0]).abs() < 1e-9);
    }
}
