//! Times without an answer, and latencies second by second.

use super::verdict::p99;
use crate::load::Sample;
use std::time::{Duration, Instant};

/// The longest time without an acknowledgement that ends after `event`, until `end`. The acknowledgements must be in order; those before
/// the event say when the first such time began.
pub(crate) fn longest_gap(acknowledged: &[Instant], event: Instant, end: Instant) -> Duration {
    let before = acknowledged.partition_point(|at| *at <= event);
    let begin = before
        .checked_sub(1)
        .and_then(|last| acknowledged.get(last));
    let mut last = begin.copied().unwrap_or(event);
    let mut longest = Duration::ZERO;
    let after = acknowledged.get(before..).unwrap_or_default();
    for at in after.iter().take_while(|at| **at < end).chain([&end]) {
        longest = longest.max(at.saturating_duration_since(last));
        last = *at;
    }
    longest
}

/// Latencies in microseconds of the requests that began in a time.
pub(crate) fn latencies(samples: &[Sample], from: Instant, to: Instant) -> Vec<f64> {
    let within = samples
        .iter()
        .filter(|sample| (from..to).contains(&sample.begin));
    within
        .map(|sample| sample.latency.as_secs_f64() * 1e6)
        .collect()
}

/// The p99 of each second of a time, in microseconds. What is left after the last whole second has no window, unless it is all there is.
pub(crate) fn p99_by_second(samples: &[Sample], from: Instant, to: Instant) -> Vec<f64> {
    let second = Duration::from_secs(1);
    let mut windows = Vec::new();
    let mut begin = from;
    while begin + second <= to {
        windows.push(p99(&latencies(samples, begin, begin + second)));
        begin += second;
    }
    if windows.is_empty() {
        windows.push(p99(&latencies(samples, from, to)));
    }
    windows
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    #[test]
    fn the_gap_begins_at_the_last_answer_before_the_event() {
        let start = Instant::now();
        let at = |milliseconds: u64| start + ms(milliseconds);
        let acknowledged = [0, 500, 900, 1_000, 2_200, 2_300].map(at);
        let gap = |event, end| longest_gap(&acknowledged, at(event), at(end));
        // The 500 ms at the beginning were over before the event.
        assert_eq!(gap(950, 2_350), ms(1_200));
        assert_eq!(gap(1_100, 2_350), ms(1_200));
        assert_eq!(gap(2_250, 2_350), ms(100));
        // Nothing came any more: the end of the observation ends it.
        assert_eq!(gap(2_310, 9_300), ms(7_000));
        assert_eq!(longest_gap(&[], at(10), at(40)), ms(30));
        // What came after the observation does not count.
        assert_eq!(gap(1_100, 2_000), ms(1_000));
    }

    #[test]
    fn windows_are_whole_seconds() {
        let start = Instant::now();
        let samples: Vec<_> = (0..25)
            .map(|n| Sample {
                begin: start + ms(n * 100),
                latency: ms(n / 10 + 1),
            })
            .collect();
        let end = start + ms(2_500);
        assert_eq!(p99_by_second(&samples, start, end), [1_000.0, 2_000.0]);
        assert_eq!(latencies(&samples, start, end).len(), 25);
        assert_eq!(p99_by_second(&samples, start + ms(2_000), end), [3_000.0]);
        assert!(
            p99_by_second(&[], start, end)
                .iter()
                .all(|p99| p99.is_nan())
        );
    }
}
