//! Which lines about others are written: news, and of strangers' doings and of snapshots not more than a few each second.

use super::hello::Refusal;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Lines per second about what others can do as often as they like.
const LINES_PER_SECOND: u32 = 10;
/// Ids whose last refusal is remembered. More than there are members; ids that others invent share what is left.
const REMEMBERED_MAX: usize = 128;

/// What was said last.
#[derive(Default)]
pub(super) struct Notices {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    refused: HashMap<u64, Refusal>,
    window: Option<Instant>,
    passed: u32,
}

impl State {
    fn pass(&mut self) -> bool {
        let now = Instant::now();
        let is_over = |begin: Instant| now.duration_since(begin) >= Duration::from_secs(1);
        if self.window.is_none_or(is_over) {
            self.window = Some(now);
            self.passed = 0;
        }
        self.passed = self.passed.saturating_add(1);
        self.passed <= LINES_PER_SECOND
    }
}

impl Notices {
    /// Whether a line about somebody may be written now.
    pub(super) fn pass(&self) -> bool {
        self.state.lock().pass()
    }

    /// Whether it is news that a member is refused for this reason, and may be written now. `None`: it is not refused.
    pub(super) fn changed(&self, member: u64, refusal: Option<Refusal>) -> bool {
        let mut state = self.state.lock();
        let Some(refusal) = refusal else {
            state.refused.remove(&member);
            return false;
        };
        if state.refused.get(&member) == Some(&refusal) {
            return false;
        }
        if state.refused.len() >= REMEMBERED_MAX {
            state.refused.clear();
        }
        state.refused.insert(member, refusal);
        state.pass()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_news_until_it_changes() {
        let notices = Notices::default();
        assert!(notices.changed(1, Some(Refusal::Removed)));
        assert!(!notices.changed(1, Some(Refusal::Removed)));
        assert!(notices.changed(1, Some(Refusal::Wiped)));
        assert!(!notices.changed(1, None));
        assert!(notices.changed(1, Some(Refusal::Wiped)));
    }

    #[test]
    fn invented_ids_cost_few_lines_and_little_memory() {
        let notices = Notices::default();
        let lines = (0..10_000)
            .filter(|id| notices.changed(*id, Some(Refusal::UnknownMember)))
            .count();
        assert!(lines <= 10 * LINES_PER_SECOND as usize, "{lines}");
        assert!(notices.state.lock().refused.len() <= REMEMBERED_MAX);
    }
}
