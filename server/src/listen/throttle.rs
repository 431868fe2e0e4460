//! Bounds how often strangers can make us write a log line.

use parking_lot::Mutex;
use std::time::{Duration, Instant};

const WINDOW: Duration = Duration::from_secs(1);

/// Lets a number of lines pass per second and counts the rest.
pub(super) struct Throttle {
    per_second: u32,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    window: Option<Instant>,
    passed: u32,
    held_back: u64,
}

impl Throttle {
    pub(super) fn new(per_second: u32) -> Throttle {
        Throttle {
            per_second,
            state: Mutex::default(),
        }
    }

    /// Whether a line may be written at `now`; if so, how many were held back since the last one.
    pub(super) fn pass(&self, now: Instant) -> Option<u64> {
        let mut state = self.state.lock();
        let fresh = state
            .window
            .is_none_or(|begin| now.saturating_duration_since(begin) >= WINDOW);
        if fresh {
            state.window = Some(now);
            state.passed = 0;
        }
        if state.passed >= self.per_second {
            state.held_back += 1;
            return None;
        }
        state.passed += 1;
        Some(std::mem::take(&mut state.held_back))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passes_some_and_counts_the_rest() {
        let throttle = Throttle::new(2);
        let begin = Instant::now();
        let passed: Vec<_> = (0..5).map(|_| throttle.pass(begin)).collect();
        assert_eq!(passed, [Some(0), Some(0), None, None, None]);
        let next = begin + WINDOW;
        assert_eq!(throttle.pass(next), Some(3));
        assert_eq!(throttle.pass(next), Some(0));
        assert_eq!(throttle.pass(next), None);
    }
}
