//! What the server under test writes to its log.

use std::{
    io::{BufRead, BufReader, Read},
    sync::{Arc, Condvar, Mutex, MutexGuard},
    time::{Duration, Instant},
};

/// The lines of one server's log so far; clones share them.
#[derive(Clone, Default)]
pub struct Log(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    lines: Vec<String>,
    /// How many pipes still feed this log.
    open: usize,
}

impl Log {
    /// Reads `pipe` to its end on a thread of its own.
    pub fn follow(&self, pipe: impl Read + Send + 'static) {
        self.state().open += 1;
        let log = self.clone();
        std::thread::spawn(move || {
            let mut reader = BufReader::new(pipe);
            let mut line = Vec::new();
            while let Ok(1..) = reader.read_until(b'\n', &mut line) {
                let text = String::from_utf8_lossy(&line).trim_end().to_owned();
                line.clear();
                log.state().lines.push(text);
                log.0.changed.notify_all();
            }
            log.state().open -= 1;
            log.0.changed.notify_all();
        });
    }

    /// All lines so far.
    pub fn lines(&self) -> Vec<String> {
        self.state().lines.clone()
    }

    /// The number of lines so far; a mark for [`Log::wait_after`].
    pub fn len(&self) -> usize {
        self.state().lines.len()
    }

    /// Whether nothing was logged yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether some line contains `text`.
    pub fn contains(&self, text: &str) -> bool {
        self.state().lines.iter().any(|line| line.contains(text))
    }

    /// Waits until a line after the first `mark` lines contains `text`. `None` when the log ended, or `limit` passed, without it.
    pub fn wait_after(&self, mark: usize, text: &str, limit: Duration) -> Option<String> {
        let deadline = Instant::now() + limit;
        let mut seen = mark;
        let mut state = self.state();
        loop {
            while seen < state.lines.len() {
                if state.lines[seen].contains(text) {
                    return Some(state.lines[seen].clone());
                }
                seen += 1;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if state.open == 0 || left.is_zero() {
                return None;
            }
            state = self.0.changed.wait_timeout(state, left).unwrap().0;
        }
    }

    /// Waits until every pipe is at its end (the process is gone), at most `limit`.
    pub fn wait_closed(&self, limit: Duration) {
        let deadline = Instant::now() + limit;
        let mut state = self.state();
        while state.open > 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            state = self.0.changed.wait_timeout(state, left).unwrap().0;
        }
    }

    /// The last `count` lines, for the report of a failure.
    pub fn tail(&self, count: usize) -> String {
        let state = self.state();
        let from = state.lines.len().saturating_sub(count);
        state.lines[from..].join("\n")
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap()
    }
}
