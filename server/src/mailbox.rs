//! Where handlers wait for what other threads bring: outcomes of commands and readiness of watch streams.
//!
//! One mailbox per worker. Another thread leaves everything that it has and wakes the worker once (DESIGN §11.2); the worker's
//! postman task then wakes the tasks concerned on their own thread, so that their answers leave in few writes.

use holdfast_consensus::{Completions, Done, Failure, Ticket};
use holdfast_tenant::Outcome;
use parking_lot::Mutex;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

/// What a command or read came to, or why to nothing.
pub(crate) type Completion = Result<Done<Outcome>, Failure>;

enum State {
    Free,
    Waiting(Option<Waker>),
    Done(Completion),
}

struct Slot {
    turn: u32,
    since: Instant,
    state: State,
}

#[derive(Default)]
struct Inner {
    slots: Vec<Slot>,
    free: Vec<u32>,
    /// Tasks to wake on the worker's own thread.
    ready: Vec<Waker>,
    postman: Option<Waker>,
}

/// See the module's text.
pub(crate) struct Mailbox {
    id: u32,
    inner: Mutex<Inner>,
}

impl Mailbox {
    fn new(id: u32) -> Mailbox {
        Mailbox {
            id,
            inner: Mutex::default(),
        }
    }

    /// Opens a slot for a command's outcome. `now` may be coarse.
    pub(crate) fn expect(self: &Arc<Self>, now: Instant) -> (Ticket, Expected) {
        let mut inner = self.inner.lock();
        let slot = match inner.free.pop() {
            Some(slot) => {
                let entry = &mut inner.slots[slot as usize];
                entry.since = now;
                entry.state = State::Waiting(None);
                slot
            }
            None => {
                inner.slots.push(Slot {
                    turn: 0,
                    since: now,
                    state: State::Waiting(None),
                });
                (inner.slots.len() - 1) as u32
            }
        };
        let ticket = Ticket {
            mailbox: self.id,
            slot,
            turn: inner.slots[slot as usize].turn,
        };
        drop(inner);
        let expected = Expected {
            mailbox: self.clone(),
            ticket,
        };
        (ticket, expected)
    }

    fn deliver(&self, items: impl Iterator<Item = (Ticket, Completion)>) {
        let mut inner = self.inner.lock();
        for (ticket, completion) in items {
            let Some(slot) = inner.slots.get_mut(ticket.slot as usize) else {
                continue;
            };
            // A slot on another turn was given up by its handler: the client is gone or was told of a time-out.
            if slot.turn == ticket.turn
                && let State::Waiting(waker) = &mut slot.state
            {
                let waker = waker.take();
                slot.state = State::Done(completion);
                inner.ready.extend(waker);
            }
        }
        let postman = inner.postman.take();
        drop(inner);
        if let Some(postman) = postman {
            postman.wake();
        }
    }

    /// Adds a task to be woken with the next [`Mailbox::ring`].
    pub(crate) fn ready(&self, waker: Waker) {
        self.inner.lock().ready.push(waker);
    }

    /// Wakes the worker if there is something for it.
    pub(crate) fn ring(&self) {
        let mut inner = self.inner.lock();
        if inner.ready.is_empty() {
            return;
        }
        let postman = inner.postman.take();
        drop(inner);
        if let Some(postman) = postman {
            postman.wake();
        }
    }

    /// Gives up on commands that wait longer than `limit`: their handlers are told [`Expected`]'s `None`.
    fn expire(&self, limit: Duration) {
        let mut inner = self.inner.lock();
        let now = Instant::now();
        let mut late = Vec::new();
        for slot in &mut inner.slots {
            if let State::Waiting(waker) = &mut slot.state
                && now.saturating_duration_since(slot.since) > limit
            {
                slot.turn = slot.turn.wrapping_add(1);
                late.extend(waker.take());
            }
        }
        drop(inner);
        for waker in late {
            waker.wake();
        }
    }

    /// Wakes tasks as they become ready. Never ends; one per worker.
    pub(crate) async fn serve(self: Arc<Self>, limit: Duration) {
        let postman = Postman {
            mailbox: self.clone(),
        };
        let sweep = async {
            let mut interval = tokio::time::interval(Duration::from_millis(500));
            loop {
                interval.tick().await;
                self.expire(limit);
            }
        };
        tokio::join!(postman, sweep);
    }
}

struct Postman {
    mailbox: Arc<Mailbox>,
}

impl Future for Postman {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let ready = {
            let mut inner = self.mailbox.inner.lock();
            match &mut inner.postman {
                Some(postman) => postman.clone_from(context.waker()),
                None => inner.postman = Some(context.waker().clone()),
            }
            std::mem::take(&mut inner.ready)
        };
        for waker in ready {
            waker.wake();
        }
        Poll::Pending
    }
}

/// A command's outcome to come; `None` when it took too long. Dropping it gives up on the outcome, not on the command.
pub(crate) struct Expected {
    mailbox: Arc<Mailbox>,
    ticket: Ticket,
}

impl Future for Expected {
    type Output = Option<Completion>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut inner = self.mailbox.inner.lock();
        let slot = &mut inner.slots[self.ticket.slot as usize];
        if slot.turn != self.ticket.turn {
            return Poll::Ready(None);
        }
        match std::mem::replace(&mut slot.state, State::Free) {
            State::Done(completion) => Poll::Ready(Some(completion)),
            State::Waiting(waker) => {
                let waker = match waker {
                    Some(waker) if waker.will_wake(context.waker()) => waker,
                    _ => context.waker().clone(),
                };
                slot.state = State::Waiting(Some(waker));
                Poll::Pending
            }
            State::Free => Poll::Ready(None),
        }
    }
}

impl Drop for Expected {
    fn drop(&mut self) {
        let mut inner = self.mailbox.inner.lock();
        let slot = &mut inner.slots[self.ticket.slot as usize];
        slot.turn = slot.turn.wrapping_add(1);
        slot.state = State::Free;
        inner.free.push(self.ticket.slot);
    }
}

/// All mailboxes of the process.
pub(crate) struct Mailboxes {
    all: Vec<Arc<Mailbox>>,
}

impl Mailboxes {
    /// One for each worker.
    pub(crate) fn new(workers: usize) -> Mailboxes {
        Mailboxes {
            all: (0..workers as u32)
                .map(|id| Arc::new(Mailbox::new(id)))
                .collect(),
        }
    }

    /// A worker's mailbox.
    pub(crate) fn of(&self, worker: usize) -> &Arc<Mailbox> {
        &self.all[worker]
    }
}

impl Completions<Outcome> for Mailboxes {
    fn complete(&self, done: &mut Vec<(Ticket, Completion)>) {
        if self.all.len() == 1 {
            self.all[0].deliver(done.drain(..));
            return;
        }
        // Outcomes of one batch come in runs per mailbox; a stable sort keeps each client's order.
        done.sort_by_key(|(ticket, _)| ticket.mailbox);
        let mut items = done.drain(..).peekable();
        while let Some((first, _)) = items.peek() {
            let id = first.mailbox;
            let run = std::iter::from_fn(|| items.next_if(|(ticket, _)| ticket.mailbox == id));
            match self.all.get(id as usize) {
                Some(mailbox) => mailbox.deliver(run),
                None => run.for_each(drop),
            }
        }
    }
}

impl holdfast_tenant::watch::Wake for Mailboxes {
    fn wake(&self) {
        for mailbox in &self.all {
            mailbox.ring();
        }
    }
}
