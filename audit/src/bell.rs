//! How the collector is woken.

use parking_lot::{Condvar, Mutex};
use std::{sync::mpsc, time::Duration};

/// Wakes the collector; it may also wake by itself.
#[derive(Debug, Default)]
pub(crate) struct Bell {
    rung: Mutex<Rung>,
    changed: Condvar,
}

/// What the collector is asked for.
#[derive(Debug, Default)]
pub(crate) struct Rung {
    /// Something is worth a round before its time.
    pub(crate) now: bool,
    /// Who waits until everything before was handed on and let go.
    pub(crate) flushes: Vec<mpsc::Sender<()>>,
    pub(crate) stop: bool,
}

impl Bell {
    pub(crate) fn ring(&self) {
        let mut rung = self.rung.lock();
        // Whoever rang first woke it.
        if !rung.now {
            rung.now = true;
            self.changed.notify_one();
        }
    }

    pub(crate) fn flush(&self) -> mpsc::Receiver<()> {
        let (sender, receiver) = mpsc::channel();
        self.rung.lock().flushes.push(sender);
        self.changed.notify_one();
        receiver
    }

    pub(crate) fn stop(&self) {
        self.rung.lock().stop = true;
        self.changed.notify_one();
    }

    /// Waits to be asked for something, or for the time to pass.
    pub(crate) fn wait(&self, time: Duration) -> Rung {
        let mut rung = self.rung.lock();
        if !rung.now && rung.flushes.is_empty() && !rung.stop {
            self.changed.wait_for(&mut rung, time);
        }
        std::mem::take(&mut *rung)
    }
}
