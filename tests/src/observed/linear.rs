//! Wing and Gong's check of linearizability with Lowe's memory of what was tried: whether calls that overlap in time have an
//! order in which each could have had its answer. It knows nothing of revisions.

use std::{collections::HashSet, hash::Hash, time::Instant};

/// One call: when it was made, when it was answered – `None`: it may take effect at any later time – and what it was.
pub struct Call<O> {
    pub(super) called: Instant,
    pub(super) returned: Option<Instant>,
    pub(super) op: O,
}

impl<O> Call<O> {
    /// A call.
    pub fn new(called: Instant, returned: Option<Instant>, op: O) -> Self {
        Self {
            called,
            returned,
            op,
        }
    }
}

/// A call or a return in the list of those that have no place in the order yet.
#[derive(Clone, Copy)]
struct Mark {
    call: usize,
    is_return: bool,
}

const HEAD: usize = 0;

/// The marks in order of time as a list from which calls are taken and put back.
struct Marks {
    marks: Vec<Mark>,
    next: Vec<usize>,
    previous: Vec<usize>,
    /// By call: its mark and that of its return.
    of: Vec<(usize, usize)>,
}

impl Marks {
    fn new<O>(calls: &[Call<O>]) -> Self {
        let mut sorted: Vec<(Option<Instant>, Mark)> = Vec::new();
        for (call, found) in calls.iter().enumerate() {
            let mark = |is_return| Mark { call, is_return };
            sorted.push((Some(found.called), mark(false)));
            sorted.push((found.returned, mark(true)));
        }
        // What has no end is last; where times are equal, the calls overlap.
        sorted.sort_by_key(|(time, mark)| (time.is_none(), *time, mark.is_return));
        let mut of = vec![(0, 0); calls.len()];
        for (index, (_, mark)) in sorted.iter().enumerate() {
            let place = &mut of[mark.call];
            if mark.is_return {
                place.1 = index + 1;
            } else {
                place.0 = index + 1;
            }
        }
        let nothing = Mark {
            call: usize::MAX,
            is_return: false,
        };
        let marks: Vec<_> = [nothing]
            .into_iter()
            .chain(sorted.into_iter().map(|(_, mark)| mark))
            .collect();
        let length = marks.len();
        Self {
            next: (1..=length).map(|index| index % length).collect(),
            previous: (0..length)
                .map(|index| (index + length - 1) % length)
                .collect(),
            marks,
            of,
        }
    }

    fn unlink(&mut self, mark: usize) {
        let (previous, next) = (self.previous[mark], self.next[mark]);
        self.next[previous] = next;
        self.previous[next] = previous;
    }

    fn relink(&mut self, mark: usize) {
        let (previous, next) = (self.previous[mark], self.next[mark]);
        self.next[previous] = mark;
        self.previous[next] = mark;
    }

    fn take(&mut self, call: usize) {
        self.unlink(self.of[call].0);
        self.unlink(self.of[call].1);
    }

    fn put_back(&mut self, call: usize) {
        self.relink(self.of[call].1);
        self.relink(self.of[call].0);
    }
}

/// Whether the calls have an order that respects time and that `step` accepts: it gives the state after an operation, or
/// `None` where the operation could not have had its answer.
pub fn linearizable<S, O>(calls: &[Call<O>], initial: S, step: impl Fn(&S, &O) -> Option<S>) -> bool
where
    S: Clone + Eq + Hash,
{
    let mut marks = Marks::new(calls);
    let mut placed = vec![0_u64; calls.len().div_ceil(64)];
    let mut tried: HashSet<(Vec<u64>, S)> = HashSet::new();
    let mut state = initial;
    let mut order: Vec<(usize, S)> = Vec::new();
    let mut at = marks.next[HEAD];
    while marks.next[HEAD] != HEAD {
        let mark = marks.marks[at];
        if at != HEAD && !mark.is_return {
            if let Some(next) = step(&state, &calls[mark.call].op) {
                let bit = 1_u64 << (mark.call % 64);
                placed[mark.call / 64] |= bit;
                if tried.insert((placed.clone(), next.clone())) {
                    order.push((mark.call, std::mem::replace(&mut state, next)));
                    marks.take(mark.call);
                    at = marks.next[HEAD];
                    continue;
                }
                placed[mark.call / 64] &= !bit;
            }
            at = marks.next[at];
            continue;
        }
        // The first return whose call has no place: something before it was placed wrongly. A call without an end never forces
        // that, and whatever only such calls are left for is an order already.
        if at == HEAD || calls[mark.call].returned.is_none() {
            return true;
        }
        let Some((call, before)) = order.pop() else {
            return false;
        };
        placed[call / 64] &= !(1_u64 << (call % 64));
        state = before;
        marks.put_back(call);
        at = marks.next[marks.of[call].0];
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    enum Op {
        Write(u32),
        Read(u32),
    }

    /// Calls as (made at, answered at, operation); no answer at 0.
    fn check(calls: Vec<(u64, u64, Op)>) -> bool {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let call = |(called, returned, op)| {
            Call::new(at(called), (returned > 0).then(|| at(returned)), op)
        };
        let calls: Vec<_> = calls.into_iter().map(call).collect();
        linearizable(&calls, 0, |state, op| match op {
            Write(value) => Some(*value),
            Read(value) => (value == state).then_some(*state),
        })
    }

    use Op::{Read, Write};

    #[test]
    fn calls_in_turn_see_each_other() {
        assert!(check(vec![(1, 2, Write(1)), (3, 4, Read(1))]));
        assert!(!check(vec![(1, 2, Write(1)), (3, 4, Read(0))]));
    }

    #[test]
    fn calls_at_once_have_some_order() {
        assert!(check(vec![
            (1, 9, Write(1)),
            (2, 3, Read(0)),
            (4, 5, Read(1))
        ]));
        assert!(!check(vec![
            (1, 9, Write(1)),
            (2, 3, Read(1)),
            (4, 5, Read(0))
        ]));
        let both = |first, second| {
            check(vec![
                (1, 9, Write(1)),
                (1, 9, Write(2)),
                (10, 11, Read(first)),
                (12, 13, Read(second)),
            ])
        };
        assert!(both(1, 1) && both(2, 2));
        assert!(!both(1, 2) && !both(0, 0));
    }

    #[test]
    fn calls_without_an_answer_may_take_effect_late_or_never() {
        assert!(check(vec![
            (1, 0, Write(1)),
            (2, 3, Read(0)),
            (4, 5, Read(1))
        ]));
        assert!(check(vec![(1, 0, Write(1)), (2, 3, Read(0))]));
        assert!(!check(vec![
            (1, 0, Write(1)),
            (2, 3, Read(1)),
            (4, 5, Read(0))
        ]));
        assert!(!check(vec![(1, 3, Read(1)), (4, 0, Write(1))]));
    }

    #[test]
    fn nothing_is_an_order() {
        assert!(check(vec![]));
    }
}
