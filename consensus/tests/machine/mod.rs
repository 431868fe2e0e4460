//! A state machine whose commands are numbers, and what a core of it takes beside a log.

use bytes::Bytes;
use holdfast_consensus::{CoreOptions, Members, Observer, StateMachine};
use holdfast_storage::LogPosition;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// With one of these a number is a change of the member whose id its lowest bits have. A change must be proposed as one.
pub(crate) const VOTER: u32 = CHANGE | 1 << 30;
pub(crate) const LEARNER: u32 = CHANGE | 1 << 29;
pub(crate) const REMOVE: u32 = CHANGE | 1 << 28;

const CHANGE: u32 = 1 << 31;
const KIND: u32 = 0xf << 28;
const ID: u32 = 0xffff;

/// What was applied, and the members; also as it goes with a snapshot.
#[derive(Clone, Default)]
pub(crate) struct State {
    /// As they came, also the empty ones with which leaders begin.
    pub(crate) entries: Vec<(LogPosition, Bytes)>,
    pub(crate) members: Members,
}

impl State {
    /// Before the first entry.
    pub(crate) fn of(voters: &[u64]) -> Arc<Mutex<State>> {
        Arc::new(Mutex::new(State {
            entries: Vec::new(),
            members: Members {
                voters: voters.to_vec(),
                learners: Vec::new(),
            },
        }))
    }

    pub(crate) fn position(&self) -> LogPosition {
        self.entries
            .last()
            .map_or(LogPosition::default(), |(position, _)| *position)
    }

    /// All commands in their order, without changes of members.
    pub(crate) fn numbers(&self) -> Vec<u32> {
        self.entries
            .iter()
            .flat_map(|(_, data)| numbers(data))
            .filter(|number| number & CHANGE == 0)
            .collect()
    }

    fn change(&mut self, kind: u32, id: u64) -> Result<(), String> {
        let members = &mut self.members;
        members.voters.retain(|voter| *voter != id);
        members.learners.retain(|learner| *learner != id);
        match kind {
            VOTER => members.voters.push(id),
            LEARNER => members.learners.push(id),
            REMOVE => {}
            _ => return Err(format!("no change is of the kind {kind:#x}")),
        }
        members.voters.sort_unstable();
        members.learners.sort_unstable();
        Ok(())
    }
}

pub(crate) fn numbers(data: &[u8]) -> impl Iterator<Item = u32> {
    let (numbers, _) = data.as_chunks();
    numbers.iter().map(|number| u32::from_le_bytes(*number))
}

/// An entry is a list of numbers (u32 LE), each with an outcome.
pub(crate) struct Machine<O> {
    /// Shared with the test: it outlives the machine as a store does a process.
    pub(crate) state: Arc<Mutex<State>>,
    /// How often this member became the leader.
    pub(crate) led: usize,
    /// What a number comes to that was applied with the entry at this position.
    outcome: fn(LogPosition, u32) -> O,
}

impl<O> Machine<O> {
    pub(crate) fn new(state: &Arc<Mutex<State>>, outcome: fn(LogPosition, u32) -> O) -> Machine<O> {
        Machine {
            state: state.clone(),
            led: 0,
            outcome,
        }
    }
}

impl<O: Send + 'static> StateMachine for Machine<O> {
    type Outcome = O;
    type View = State;
    type Incoming = State;

    fn check(&self, data: &Bytes) -> Result<(), String> {
        if data.len().is_multiple_of(4) {
            Ok(())
        } else {
            Err("half a number".to_owned())
        }
    }

    fn describe(incoming: &State) -> (LogPosition, Members) {
        (incoming.position(), incoming.members.clone())
    }

    fn apply(
        &mut self,
        position: LogPosition,
        data: Bytes,
        outcomes: &mut Vec<O>,
    ) -> Result<(), String> {
        self.check(&data)?;
        let mut state = self.state.lock();
        for number in numbers(&data) {
            outcomes.push((self.outcome)(position, number));
            if number & CHANGE != 0 {
                state.change(number & KIND, u64::from(number & ID))?;
            }
        }
        state.entries.push((position, data));
        Ok(())
    }

    fn members(&self) -> Members {
        self.state.lock().members.clone()
    }

    fn view(&mut self) -> Result<State, String> {
        Ok(self.state.lock().clone())
    }

    fn install(&mut self, position: LogPosition, incoming: State) -> Result<(), String> {
        assert_eq!(incoming.position(), position);
        *self.state.lock() = incoming;
        Ok(())
    }

    fn recorded(&mut self) -> Result<(), String> {
        Ok(())
    }

    fn lead(&mut self) {
        self.led += 1;
    }

    fn follow(&mut self) {}
}

/// Counts what the log does.
#[derive(Default)]
pub(crate) struct Counter {
    pub(crate) syncs: AtomicUsize,
    pub(crate) bytes: AtomicUsize,
}

impl Observer for Counter {
    fn synced(&self, _: Duration) {
        self.syncs.fetch_add(1, Ordering::Relaxed);
    }

    fn appended(&self, bytes: usize) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// Of member 1, which is alone.
pub(crate) fn core_options() -> CoreOptions {
    CoreOptions {
        member: 1,
        incarnation: 1,
        election_ticks: 10,
        heartbeat_ticks: 1,
        pre_vote: true,
        advance_first_election: false,
        patience_ticks: 70,
        keep_entries: 0,
        keep_bytes: 0,
        seed: 1,
    }
}
