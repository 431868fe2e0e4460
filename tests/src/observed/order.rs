//! Strict serializability by revisions: the revisions are the order, so it is enough that every answer fits its place in it and
//! that the order respects time.
//!
//! * Every revision was made by one call, or by the end of a lease, whole.
//! * Every acknowledged write is at the revision of its answer, and nothing is there twice.
//! * Every answer is what the state at its place makes it.
//! * A call that was made after something was answered or seen comes after it.
//! * No lease ended before its time.

use super::{Model, Operation, Outcome, Request};
use crate::{
    event_text,
    history::{History, is_delete, mod_revision},
};
use bytes::Bytes;
use holdfast_proto::{etcdserverpb as pb, mvccpb::Event};
use pb::{request_op::Request as Op, response_op::Response};
use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

/// Checks what clients were told against all events. `seen` has the moments at which watchers first saw revisions. Gives what
/// cannot be.
pub fn check_order(
    operations: &[Operation],
    history: &History,
    seen: &HashMap<i64, Instant>,
) -> Vec<String> {
    let mut check = Check {
        operations,
        history,
        seen,
        wrongs: Vec::new(),
        makers: HashMap::new(),
        written: written_by(operations),
    };
    check.place_acknowledged();
    check.sweep();
    check.check_time();
    check.wrongs
}

struct Check<'a> {
    operations: &'a [Operation],
    history: &'a History,
    seen: &'a HashMap<i64, Instant>,
    wrongs: Vec<String>,
    /// Which call made a revision.
    makers: HashMap<i64, usize>,
    /// Which call puts a value to a key.
    written: HashMap<(Bytes, Bytes), usize>,
}

fn written_by(operations: &[Operation]) -> HashMap<(Bytes, Bytes), usize> {
    let mut written = HashMap::new();
    for (index, operation) in operations.iter().enumerate() {
        let mut puts = Vec::new();
        match &operation.request {
            Request::Put(put) => puts.push(put),
            Request::Txn(txn) => collect_puts(txn, &mut puts),
            _ => {}
        }
        for put in puts {
            let former = written.insert((put.key.clone(), put.value.clone()), index);
            assert!(
                former.is_none_or(|former| former == index),
                "clients must put different values"
            );
        }
    }
    written
}

fn collect_puts<'a>(txn: &'a pb::TxnRequest, puts: &mut Vec<&'a pb::PutRequest>) {
    for op in txn.success.iter().chain(&txn.failure) {
        match op.request.as_ref() {
            Some(Op::RequestPut(put)) => puts.push(put),
            Some(Op::RequestTxn(txn)) => collect_puts(txn, puts),
            _ => {}
        }
    }
}

/// An answer without the headers in it.
fn bare(outcome: &Outcome) -> Option<Response> {
    fn strip(response: &mut Response) {
        match response {
            Response::ResponseRange(range) => range.header = None,
            Response::ResponsePut(put) => put.header = None,
            Response::ResponseDeleteRange(delete) => delete.header = None,
            Response::ResponseTxn(txn) => {
                txn.header = None;
                for response in &mut txn.responses {
                    strip(response.response.as_mut().expect("a response"));
                }
            }
        }
    }
    let mut response = match outcome.clone() {
        Outcome::Range(range) => Response::ResponseRange(range),
        Outcome::Put(put) => Response::ResponsePut(put),
        Outcome::Delete(delete) => Response::ResponseDeleteRange(delete),
        Outcome::Txn(txn) => Response::ResponseTxn(txn),
        _ => return None,
    };
    strip(&mut response);
    Some(response)
}

fn texts(events: &[Event]) -> Vec<String> {
    events.iter().map(event_text).collect()
}

impl Check<'_> {
    fn wrong(&mut self, what: String) {
        self.wrongs.push(what);
    }

    fn place_acknowledged(&mut self) {
        for (index, operation) in self.operations.iter().enumerate() {
            let Some((revision, wrote)) = operation.place() else {
                continue;
            };
            if revision > self.history.last_revision() {
                let last = self.history.last_revision();
                self.wrong(format!(
                    "{revision} was answered, the last is {last}: {operation:?}"
                ));
            }
            if wrote && let Some(other) = self.makers.insert(revision, index) {
                let other = &self.operations[other];
                self.wrong(format!("two made {revision}: {operation:?} and {other:?}"));
            }
        }
    }

    /// Goes through all revisions in order, with the calls that belong to each.
    fn sweep(&mut self) {
        let mut readers: HashMap<i64, Vec<usize>> = HashMap::new();
        for (index, operation) in self.operations.iter().enumerate() {
            let Some((revision, false)) = operation.place() else {
                continue;
            };
            let at = match &operation.request {
                Request::Range(range) if range.revision > 0 => range.revision,
                _ => revision,
            };
            readers.entry(at).or_default().push(index);
        }
        let mut used = HashSet::new();
        let mut state = Model::default();
        for revision in 1..=self.history.last_revision() {
            let events = self.history.at(revision);
            if !events.is_empty() {
                self.check_maker(revision, events, &state, &mut used);
                state.apply(events);
            }
            for index in readers.get(&revision).into_iter().flatten() {
                self.check_answer(*index, revision, &state, &[]);
            }
        }
    }

    /// The events of a revision are what its maker asked for.
    fn check_maker(
        &mut self,
        revision: i64,
        events: &[Event],
        before: &Model,
        used: &mut HashSet<usize>,
    ) {
        if let Some(index) = self.makers.get(&revision).copied() {
            used.insert(index);
            self.check_answer(index, revision, before, events);
            return;
        }
        let written: Vec<_> = events.iter().filter(|event| !is_delete(event)).collect();
        let maker = match written.first() {
            Some(event) => {
                let kv = event.kv.as_ref().expect("an event has a key");
                self.written
                    .get(&(kv.key.clone(), kv.value.clone()))
                    .copied()
            }
            None => self.find_deleter(revision, events, before, used),
        };
        let Some(index) = maker else {
            if written.is_empty() && self.is_lease_end(revision, events, before) {
                return;
            }
            let events = texts(events);
            return self.wrong(format!("nobody asked for {revision}: {events:?}"));
        };
        let operation = &self.operations[index];
        if !matches!(operation.outcome, Outcome::Unknown | Outcome::Revoked) {
            let events = texts(events);
            self.wrong(format!(
                "{revision} has {events:?} of a call that was answered otherwise: {operation:?}"
            ));
        }
        if !used.insert(index) {
            self.wrong(format!(
                "executed twice, the second time as {revision}: {operation:?}"
            ));
        }
        if before.effect(&operation.request, revision).events != events {
            let events = texts(events);
            self.wrong(format!(
                "{revision} has {events:?}, which is not what was asked for: {operation:?}"
            ));
        }
        self.makers.insert(revision, index);
    }

    /// Who without an answer, or with a revoked lease, may have deleted this.
    fn find_deleter(
        &self,
        revision: i64,
        events: &[Event],
        before: &Model,
        used: &HashSet<usize>,
    ) -> Option<usize> {
        let seen = self.seen.get(&revision);
        let fits = |(index, operation): &(usize, &Operation)| {
            matches!(operation.outcome, Outcome::Unknown | Outcome::Revoked)
                && !used.contains(index)
                && seen.is_none_or(|seen| operation.called < *seen)
                && before.effect(&operation.request, revision).events == events
        };
        let mut operations = self.operations.iter().enumerate();
        operations.find(fits).map(|(index, _)| index)
    }

    /// Whether these are all keys of a lease, whose time was over.
    fn is_lease_end(&mut self, revision: i64, events: &[Event], before: &Model) -> bool {
        let key = |event: &Event| event.kv.as_ref().expect("an event has a key").key.clone();
        let lease = before.get(&key(&events[0])).map_or(0, |kv| kv.lease);
        let all: Vec<_> = before.leased(lease).map(|kv| kv.key.clone()).collect();
        if lease == 0 || events.iter().map(key).collect::<Vec<_>>() != all {
            return false;
        }
        let Some(seen) = self.seen.get(&revision) else {
            return true;
        };
        // It lived at some moment after each of these calls was made, and for its time from then on.
        let kept = self.operations.iter().filter_map(|operation| {
            let of = match &operation.request {
                Request::Grant(grant) => grant.id,
                Request::Renew(id) => *id,
                _ => return None,
            };
            match operation.outcome {
                Outcome::Lease(ttl @ 1..) if of == lease => {
                    Some(operation.called + Duration::from_secs(ttl.unsigned_abs()))
                }
                _ => None,
            }
        });
        if let Some(until) = kept.max()
            && *seen < until
        {
            let early = until - *seen;
            self.wrong(format!(
                "lease {lease} ended {early:?} early, as {revision}"
            ));
        }
        true
    }

    /// An answer is what this state makes it, and so are the events.
    fn check_answer(&mut self, index: usize, revision: i64, state: &Model, events: &[Event]) {
        let operation = &self.operations[index];
        let effect = state.effect(&operation.request, revision);
        let answer = bare(&operation.outcome);
        if answer != effect.answer {
            let expected = effect.answer;
            self.wrong(format!(
                "the answer at {revision} should be {expected:?}: {operation:?}"
            ));
        }
        if effect.events != events {
            let (found, expected) = (texts(events), texts(&effect.events));
            self.wrong(format!(
                "{revision} has {found:?}, not {expected:?}: {operation:?}"
            ));
        }
    }

    /// What was answered or seen before a call was made is before it.
    fn check_time(&mut self) {
        // (when, what was known from then on)
        let mut known: Vec<(Instant, i64)> = self
            .seen
            .iter()
            .map(|(revision, at)| (*at, *revision))
            .collect();
        let mut calls: Vec<(Instant, i64, bool, usize)> = Vec::new();
        for (index, operation) in self.operations.iter().enumerate() {
            if let Some((revision, wrote)) = operation.place() {
                known.push((operation.returned, revision));
                if !operation.is_local() {
                    calls.push((operation.called, revision, wrote, index));
                }
            }
        }
        for (revision, index) in &self.makers {
            let operation = &self.operations[*index];
            if operation.place().is_none() {
                calls.push((operation.called, *revision, true, *index));
            }
        }
        known.sort_unstable();
        calls.sort_unstable();
        let (mut next, mut floor) = (0, 0);
        for (called, revision, wrote, index) in calls {
            while known.get(next).is_some_and(|(at, _)| *at < called) {
                floor = floor.max(known[next].1);
                next += 1;
            }
            if revision < floor || (wrote && revision == floor) {
                let operation = &self.operations[index];
                self.wrong(format!(
                    "{floor} was known before this call, which is at {revision}: {operation:?}"
                ));
            }
        }
    }
}

/// The revisions of events, in order, each once.
pub(super) fn revisions(events: &[Event]) -> Vec<i64> {
    let mut revisions: Vec<_> = events.iter().map(mod_revision).collect();
    revisions.dedup();
    revisions
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{del, get, put, put_leased};

    /// Calls that follow each other, each answered as it must be.
    struct Story {
        start: Instant,
        operations: Vec<Operation>,
        history: History,
        state: Model,
    }

    impl Story {
        fn new() -> Self {
            Self {
                start: Instant::now(),
                operations: Vec::new(),
                history: History::default(),
                state: Model::default(),
            }
        }

        fn at(&self, seconds: usize) -> Instant {
            self.start + Duration::from_secs(u64::try_from(seconds).unwrap())
        }

        fn add(&mut self, request: Request, outcome: Outcome) {
            let now = self.operations.len() * 10;
            self.operations.push(Operation {
                client: 0,
                member: 0,
                called: self.at(now),
                returned: self.at(now + 1),
                request,
                outcome,
            });
        }

        fn happens(&mut self, request: &Request) -> Option<pb::ResponseHeader> {
            let revision = self.history.last_revision() + 1;
            let events = self.state.effect(request, revision).events;
            self.state.apply(&events);
            self.history.extend(events);
            Some(pb::ResponseHeader {
                revision: self.history.last_revision(),
                ..Default::default()
            })
        }

        fn put(&mut self, key: &str, value: &str) {
            let request = Request::Put(put(key, value));
            let header = self.happens(&request);
            let answer = pb::PutResponse {
                header,
                prev_kv: None,
            };
            self.add(request, Outcome::Put(answer));
        }

        fn get(&mut self, key: &str) {
            let answer = pb::RangeResponse {
                header: Some(pb::ResponseHeader {
                    revision: self.history.last_revision(),
                    ..Default::default()
                }),
                ..self.state.range(&get(key))
            };
            self.add(Request::Range(get(key)), Outcome::Range(answer));
        }

        fn delete(&mut self, key: &str) {
            let request = Request::Delete(del(key));
            let header = self.happens(&request);
            let answer = pb::DeleteRangeResponse {
                header,
                deleted: 1,
                prev_kvs: Vec::new(),
            };
            self.add(request, Outcome::Delete(answer));
        }

        fn wrongs(&self) -> Vec<String> {
            check_order(&self.operations, &self.history, &HashMap::new())
        }
    }

    fn good() -> Story {
        let mut story = Story::new();
        story.put("a", "1");
        story.get("a");
        story.put("a", "2");
        story.get("a");
        story.delete("a");
        story.get("a");
        story
    }

    #[test]
    fn a_true_story_passes() {
        assert_eq!(good().wrongs(), [""; 0]);
    }

    #[test]
    fn a_stale_read_is_found() {
        let mut story = good();
        story.operations[3].outcome = story.operations[1].outcome.clone();
        assert_ne!(story.wrongs(), [""; 0]);
    }

    #[test]
    fn a_read_of_what_is_not_there_is_found() {
        let mut story = good();
        if let Outcome::Range(answer) = &mut story.operations[3].outcome {
            answer.kvs[0].value = "3".into();
        }
        assert_ne!(story.wrongs(), [""; 0]);
    }

    #[test]
    fn a_lost_write_is_found() {
        let mut story = good();
        let mut history = History::default();
        history.extend(story.history.events()[..2].to_vec());
        story.history = history;
        assert_ne!(story.wrongs(), [""; 0]);
    }

    #[test]
    fn a_write_that_was_done_twice_is_found() {
        let mut story = good();
        story.happens(&Request::Put(put("a", "2")));
        assert_ne!(story.wrongs(), [""; 0]);
        let mut story = Story::new();
        let request = Request::Put(put("a", "1"));
        story.happens(&request);
        story.happens(&request);
        story.add(request, Outcome::Unknown);
        assert_ne!(story.wrongs(), [""; 0]);
    }

    #[test]
    fn a_refused_write_that_was_done_is_found() {
        let mut story = good();
        let request = Request::Put(put("a", "3"));
        story.happens(&request);
        story.add(
            request,
            Outcome::Refused(tonic::Status::permission_denied("")),
        );
        assert_ne!(story.wrongs(), [""; 0]);
    }

    #[test]
    fn what_nobody_asked_for_is_found() {
        let mut story = good();
        story.happens(&Request::Put(put("b", "3")));
        assert_ne!(story.wrongs(), [""; 0]);
        let mut story = Story::new();
        story.put("a", "1");
        story.happens(&Request::Delete(del("a")));
        assert_ne!(story.wrongs(), [""; 0]);
        story.add(Request::Delete(del("a")), Outcome::Unknown);
        assert_eq!(story.wrongs(), [""; 0]);
    }

    #[test]
    fn an_order_against_time_is_found() {
        let mut story = good();
        // The first put is made only after the others were answered.
        story.operations[0].called = story.at(100);
        story.operations[0].returned = story.at(101);
        assert_ne!(story.wrongs(), [""; 0]);
        // It was without an answer, and its place is between calls that were made and answered before it.
        story.operations[0].outcome = Outcome::Unknown;
        assert_ne!(story.wrongs(), [""; 0]);
        // In doubt from the beginning on, it may be anywhere.
        story.operations[0].called = story.at(0);
        assert_eq!(story.wrongs(), [""; 0]);
    }

    #[test]
    fn a_lease_that_ended_early_is_found() {
        let mut story = Story::new();
        let grant = pb::LeaseGrantRequest { ttl: 25, id: 7 };
        story.add(Request::Grant(grant), Outcome::Lease(25));
        let request = Request::Put(put_leased("l", "1", 7));
        let header = story.happens(&request);
        let answer = pb::PutResponse {
            header,
            prev_kv: None,
        };
        story.add(request, Outcome::Put(answer));
        story.add(Request::Renew(7), Outcome::Lease(25));
        story.happens(&Request::Revoke(7));
        let ended = |story: &Story, seconds| {
            let seen = [(3, story.at(seconds))].into_iter().collect();
            check_order(&story.operations, &story.history, &seen).len()
        };
        assert_eq!(ended(&story, 46), 0);
        assert_ne!(ended(&story, 44), 0);
        assert_ne!(ended(&story, 26), 0);
    }
}
