//! Medians, ratios and floors.

use std::fmt;

/// What a figure has to reach.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Floor {
    AtLeast(f64),
    AtMost(f64),
}

impl Floor {
    /// A figure that could not be taken (not a number) reaches nothing.
    pub(crate) fn holds(self, value: f64) -> bool {
        match self {
            Self::AtLeast(limit) => value >= limit,
            Self::AtMost(limit) => value <= limit,
        }
    }

    /// `PASS` or `MISS`, with what was asked; clears `good` on a miss.
    pub(crate) fn verdict(self, value: f64, unit: &str, good: &mut bool) -> String {
        let holds = self.holds(value);
        *good &= holds;
        let word = if holds { "PASS" } else { "MISS" };
        format!("{word} ({self}{unit})")
    }
}

impl fmt::Display for Floor {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtLeast(limit) => write!(out, "at least {limit}"),
            Self::AtMost(limit) => write!(out, "at most {limit}"),
        }
    }
}

/// The middle value, or the mean of the two in the middle; not a number for none.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match (sorted.get(middle), sorted.len() % 2) {
        (None, _) => f64::NAN,
        (Some(value), 1) => *value,
        (Some(upper), _) => {
            let lower = middle.checked_sub(1).and_then(|lower| sorted.get(lower));
            lower.map_or(*upper, |lower| f64::midpoint(*lower, *upper))
        }
    }
}

/// The largest value; not a number for none.
pub(crate) fn largest(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::NAN, f64::max)
}

/// The smallest value of which 99 of 100 are not above; not a number for none.
pub(crate) fn p99(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (sorted.len() * 99).div_ceil(100);
    let index = rank.checked_sub(1);
    let found = index.and_then(|index| sorted.get(index));
    found.copied().unwrap_or(f64::NAN)
}

/// Own figures over another's, pair by pair.
pub(crate) fn ratios(own: &[f64], other: &[f64]) -> Vec<f64> {
    own.iter()
        .zip(other)
        .map(|(own, other)| own / other)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn middle_and_largest() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(largest(&[1.0, 3.0, 2.0]), 3.0);
        assert!(median(&[]).is_nan() && largest(&[]).is_nan());
    }

    #[test]
    fn ninety_nine_of_a_hundred() {
        let hundred: Vec<_> = (1..=100).rev().map(f64::from).collect();
        assert_eq!(p99(&hundred), 99.0);
        assert_eq!(p99(&hundred[50..]), 50.0);
        assert_eq!(p99(&[7.0]), 7.0);
        assert!(p99(&[]).is_nan());
    }

    #[test]
    fn ratios_are_taken_within_a_round() {
        assert_eq!(ratios(&[6.0, 2.0], &[2.0, 4.0]), [3.0, 0.5]);
        // A round that only one of them has counts for nothing.
        assert_eq!(ratios(&[6.0, 2.0], &[2.0]), [3.0]);
    }

    #[test]
    fn floors_judge_and_missing_figures_miss() {
        let mut good = true;
        assert_eq!(
            Floor::AtLeast(2.5).verdict(2.5, "×", &mut good),
            "PASS (at least 2.5×)"
        );
        assert!(good);
        assert_eq!(
            Floor::AtMost(0.3).verdict(0.31, " s", &mut good),
            "MISS (at most 0.3 s)"
        );
        assert!(!good);
        for floor in [Floor::AtLeast(1.0), Floor::AtMost(1.0)] {
            assert!(!floor.holds(f64::NAN));
        }
    }
}
