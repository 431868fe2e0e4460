//! What watchers were sent, and etcd's promises about it: ordered, unique, atomic, reliable, resumable, bookmarkable, with the
//! right previous values.

use super::{Model, effects::covers, order::revisions};
use crate::{
    Raw, RawWatch, event_text,
    history::{History, mod_revision},
};
use holdfast_proto::{
    etcdserverpb as pb,
    mvccpb::{Event, KeyValue},
};
use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::task::JoinHandle;

/// How often a watcher asks how far it is.
const PROGRESS: Duration = Duration::from_millis(150);

/// One answer of a watch.
#[derive(Clone, Debug)]
pub struct Sighting {
    /// When it came.
    pub at: Instant,
    /// Which stream of the watcher it came on; each begins where the one before ended.
    pub stream: usize,
    /// Where that stream began.
    pub start: i64,
    /// The answer.
    pub answer: pb::WatchResponse,
}

#[derive(Default)]
struct Seen {
    sightings: Mutex<Vec<Sighting>>,
    last: AtomicI64,
}

/// A watcher of one member, which goes on after each end of its stream. It ends when it is dropped.
pub struct Observer {
    request: pb::WatchCreateRequest,
    member: usize,
    seen: Arc<Seen>,
    task: JoinHandle<()>,
}

impl Observer {
    /// Watches through `raw`, which is of `member`, from the revision that `request` names, which must not be 0.
    pub fn start(member: usize, raw: Raw, request: pb::WatchCreateRequest) -> Self {
        assert!(request.start_revision > 0);
        let seen = Arc::new(Seen::default());
        seen.last
            .store(request.start_revision - 1, Ordering::Relaxed);
        let task = tokio::spawn(observe(raw, request.clone(), seen.clone()));
        Self {
            request,
            member,
            seen,
            task,
        }
    }

    /// Up to which revision it has been told everything.
    pub fn last(&self) -> i64 {
        self.seen.last.load(Ordering::Relaxed)
    }

    /// Tells [`Self::last`] to others.
    pub fn progress(&self) -> impl Fn() -> i64 + Send + use<> {
        let seen = self.seen.clone();
        move || seen.last.load(Ordering::Relaxed)
    }

    /// Which member it watches.
    pub fn member(&self) -> usize {
        self.member
    }

    /// What it asked for.
    pub fn request(&self) -> &pb::WatchCreateRequest {
        &self.request
    }

    /// Everything it was sent.
    pub fn sightings(&self) -> Vec<Sighting> {
        self.seen
            .sightings
            .lock()
            .expect("no panic with it")
            .clone()
    }

    /// All events, in the order in which they came.
    pub fn events(&self) -> Vec<Event> {
        let sightings = self.sightings();
        sightings
            .into_iter()
            .flat_map(|sighting| sighting.answer.events)
            .collect()
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn observe(raw: Raw, request: pb::WatchCreateRequest, seen: Arc<Seen>) {
    for stream in 0.. {
        let start = seen.last.load(Ordering::Relaxed) + 1;
        let mut watch = RawWatch::open(&raw);
        let request = pb::WatchCreateRequest {
            start_revision: start,
            ..request.clone()
        };
        watch.request(request).await;
        let mut asks = tokio::time::interval(PROGRESS);
        loop {
            let answer = tokio::select! {
                answer = watch.message() => answer,
                _ = asks.tick() => {
                    if watch.try_progress().is_err() {
                        break;
                    }
                    continue;
                }
            };
            let Ok(Some(answer)) = answer else { break };
            // The header of events may be ahead of them; where there are none, everything up to it was sent.
            let last = match answer.events.last() {
                Some(event) => mod_revision(event),
                None if answer.created || answer.canceled => 0,
                None => answer.header.as_ref().map_or(0, |header| header.revision),
            };
            let ended = answer.canceled;
            seen.sightings
                .lock()
                .expect("no panic with it")
                .push(Sighting {
                    at: Instant::now(),
                    stream,
                    start,
                    answer,
                });
            seen.last.fetch_max(last, Ordering::Relaxed);
            if ended {
                break;
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// When each revision was first seen by any watcher.
pub fn first_seen(observers: &[Observer]) -> HashMap<i64, Instant> {
    let mut first = HashMap::new();
    for sighting in observers.iter().flat_map(Observer::sightings) {
        for revision in revisions(&sighting.answer.events) {
            let at = first.entry(revision).or_insert(sighting.at);
            *at = sighting.at.min(*at);
        }
    }
    first
}

/// The events of one revision that a watch gets, each with its previous value.
struct Due {
    revision: i64,
    events: Vec<(Event, Option<KeyValue>)>,
}

fn dues(history: &History, request: &pb::WatchCreateRequest) -> Vec<Due> {
    let mut dues = Vec::new();
    let mut state = Model::default();
    for revision in 2..=history.last_revision() {
        let events = history.at(revision);
        let mut due = Vec::new();
        for event in events {
            let kv = event.kv.as_ref().expect("an event has a key");
            if covers(&request.key, &request.range_end, &kv.key) {
                // Previous values are those before the revision, also for the second event of a key in it.
                due.push((event.clone(), state.get(&kv.key).cloned()));
            }
        }
        state.apply(events);
        if !due.is_empty() {
            dues.push(Due {
                revision,
                events: due,
            });
        }
    }
    dues
}

/// Checks what a watcher was sent against all events. `compacted` is the highest revision at which there was a compaction:
/// previous values below it may be missing.
pub fn check_sightings(observer: &Observer, history: &History, compacted: i64) -> Vec<String> {
    let who = format!("the watcher of m{}", observer.member);
    check(
        &who,
        &observer.request,
        &observer.sightings(),
        history,
        compacted,
    )
}

fn check(
    who: &str,
    request: &pb::WatchCreateRequest,
    sightings: &[Sighting],
    history: &History,
    compacted: i64,
) -> Vec<String> {
    let dues = dues(history, request);
    let mut wrongs = Vec::new();
    let (mut stream, mut next, mut told) = (usize::MAX, 0, 0);
    for sighting in sightings {
        let answer = &sighting.answer;
        if sighting.stream != stream {
            stream = sighting.stream;
            next = dues.partition_point(|due| due.revision < sighting.start);
            told = sighting.start - 1;
        }
        if answer.canceled {
            wrongs.push(format!("{who} was cancelled: {answer:?}"));
        }
        let header = answer.header.as_ref().map_or(0, |header| header.revision);
        for revision in revisions(&answer.events) {
            let of = |event: &&Event| mod_revision(event) == revision;
            let sent: Vec<_> = answer.events.iter().filter(of).collect();
            if revision <= told || header < revision {
                wrongs.push(format!(
                    "{who} was told of {told}, then sent {revision} under {header}"
                ));
            }
            let Some(due) = dues.get(next).filter(|due| due.revision == revision) else {
                let due = dues.get(next).map(|due| due.revision);
                wrongs.push(format!("{who} was sent {revision} instead of {due:?}"));
                continue;
            };
            next += 1;
            check_revision(who, &sent, due, request.prev_kv, compacted, &mut wrongs);
        }
        if answer.events.is_empty() && !answer.created && !answer.canceled {
            told = told.max(header);
            if let Some(due) = dues.get(next).filter(|due| due.revision <= told) {
                wrongs.push(format!(
                    "{who} was told of {told} before it was sent {}",
                    due.revision
                ));
            }
        }
    }
    if let Some(due) = dues.get(next) {
        wrongs.push(format!("{who} was never sent {}", due.revision));
    }
    wrongs
}

fn check_revision(
    who: &str,
    sent: &[&Event],
    due: &Due,
    previous: bool,
    compacted: i64,
    wrongs: &mut Vec<String>,
) {
    let bare = |event: &Event| Event {
        prev_kv: None,
        ..event.clone()
    };
    let revision = due.revision;
    let same = sent
        .iter()
        .map(|event| bare(event))
        .eq(due.events.iter().map(|(event, _)| bare(event)));
    if !same {
        let sent: Vec<_> = sent.iter().map(|event| event_text(event)).collect();
        let due: Vec<_> = due
            .events
            .iter()
            .map(|(event, _)| event_text(event))
            .collect();
        wrongs.push(format!(
            "{who} was sent {sent:?} at {revision}, not {due:?}"
        ));
        return;
    }
    for (event, (_, before)) in sent.iter().zip(&due.events) {
        let before = if previous { before.as_ref() } else { None };
        let may_miss = event.prev_kv.is_none() && revision - 1 < compacted;
        if event.prev_kv.as_ref() != before && !may_miss {
            let (text, found) = (event_text(event), &event.prev_kv);
            wrongs.push(format!(
                "{who}: {text} has {found:?} before it, not {before:?}"
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        observed::Request,
        watch_prefix,
        wire::{IntoOp, always, del, put},
    };

    /// `a` is put, then `a` and `b` at once, then `c`, which nobody watches, then `a` is deleted.
    fn history() -> History {
        let requests = [
            Request::Put(put("w/a", "1")),
            Request::Txn(always(vec![put("w/a", "2").op(), put("w/b", "3").op()])),
            Request::Put(put("c", "4")),
            Request::Delete(del("w/a")),
        ];
        let (mut history, mut state) = (History::default(), Model::default());
        for (request, revision) in requests.iter().zip(2..) {
            let events = state.effect(request, revision).events;
            state.apply(&events);
            history.extend(events);
        }
        history
    }

    fn answer(revision: i64, events: Vec<Event>) -> pb::WatchResponse {
        pb::WatchResponse {
            header: Some(pb::ResponseHeader {
                revision,
                ..Default::default()
            }),
            events,
            ..Default::default()
        }
    }

    /// What a good server sends to a watch with previous values.
    fn good() -> Vec<pb::WatchResponse> {
        let request = watch_prefix("w/");
        let sent = dues(&history(), &request).into_iter().map(|due| {
            let with_previous = |(event, prev_kv)| Event { prev_kv, ..event };
            answer(
                due.revision,
                due.events.into_iter().map(with_previous).collect(),
            )
        });
        sent.chain([answer(5, Vec::new())]).collect()
    }

    fn wrongs(answers: Vec<pb::WatchResponse>) -> usize {
        let request = pb::WatchCreateRequest {
            prev_kv: true,
            ..watch_prefix("w/")
        };
        let sightings = answers.into_iter().map(|answer| Sighting {
            at: Instant::now(),
            stream: 0,
            start: 1,
            answer,
        });
        check("w", &request, &sightings.collect::<Vec<_>>(), &history(), 0).len()
    }

    /// What a server that does this to its answers is told.
    fn spoilt(how: impl FnOnce(&mut Vec<pb::WatchResponse>)) -> usize {
        let mut answers = good();
        how(&mut answers);
        wrongs(answers)
    }

    #[test]
    fn a_good_watch_passes() {
        assert_eq!(good().len(), 4);
        assert_eq!(wrongs(good()), 0);
    }

    #[test]
    fn a_broken_promise_is_found() {
        assert_ne!(spoilt(|answers| answers.swap(0, 1)), 0, "order");
        assert_ne!(
            spoilt(|answers| answers.insert(1, answers[0].clone())),
            0,
            "twice"
        );
        assert_ne!(
            spoilt(|answers| drop(answers[1].events.pop())),
            0,
            "in part"
        );
        assert_ne!(spoilt(|answers| drop(answers.remove(1))), 0, "not at all");
        assert_ne!(
            spoilt(|answers| drop(answers.remove(2))),
            0,
            "not at the end"
        );
        assert_ne!(
            spoilt(|answers| answers.insert(0, answer(3, vec![]))),
            0,
            "progress"
        );
        assert_ne!(
            spoilt(|answers| answers[2].events[0].prev_kv = None),
            0,
            "no previous value"
        );
        let older = |answers: &mut Vec<pb::WatchResponse>| {
            let older = answers[1].events[0].prev_kv.clone();
            answers[2].events[0].prev_kv = older;
        };
        assert_ne!(spoilt(older), 0, "an older previous value");
        let invented = |answers: &mut Vec<pb::WatchResponse>| {
            let first = answers[0].events[0].clone();
            answers[2].events.push(first);
        };
        assert_ne!(spoilt(invented), 0, "an event from nowhere");
        assert_ne!(spoilt(|answers| answers[0].canceled = true), 0, "cancelled");
    }
}
