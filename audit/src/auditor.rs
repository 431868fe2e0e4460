//! The front door: starting, stopping, reloading, and making plans and writers.

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use std::{
    fmt, io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{self, RecvTimeoutError},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crate::{
    AuditorConfig, Notice, OnTaken, Plan, Record, Rules, SinkConfig, StartError, Stats, Subject,
    Writer,
    chain::Identity,
    collect::Collected,
    line,
    sink::{
        Disk, FileSink, FileSinkConfig, Handle, Notices, RealDisk, Sink, StreamSink, SyslogSink,
    },
    text,
};

/// The audit log of a node. Clones are the same one; when the last is dropped, it ends without a stop line.
#[derive(Clone)]
pub struct Auditor(Option<Arc<Inner>>);

struct Inner {
    /// As at the start; rules, sinks and deadline are in force as below.
    config: AuditorConfig,
    /// The fields of every line of this node.
    fixed: Vec<u8>,
    rules: ArcSwap<Installed>,
    generation: AtomicU64,
    collected: Arc<Collected>,
    thread: Mutex<Option<JoinHandle<()>>>,
    notices: Notices,
    disk: Arc<dyn Disk>,
}

struct Installed {
    rules: Rules,
    generation: u64,
    /// Without sinks nothing is planned.
    has_sinks: bool,
}

impl Auditor {
    /// Opens the sinks and starts the threads. Also gives what the operator should hear.
    ///
    /// # Errors
    ///
    /// A file cannot be opened or continued, or a strict rule has no sink.
    pub fn start(config: AuditorConfig) -> Result<(Self, Vec<Notice>), StartError> {
        Self::start_on(config, Arc::new(RealDisk))
    }

    pub(crate) fn start_on(
        config: AuditorConfig,
        disk: Arc<dyn Disk>,
    ) -> Result<(Self, Vec<Notice>), StartError> {
        let collected = Arc::new(Collected::new(config.writer_limit_bytes, config.deadline));
        let mut fixed = br#","node":"#.to_vec();
        text::name(&mut fixed, config.node.as_bytes());
        let inner = Inner {
            fixed,
            rules: ArcSwap::from_pointee(Installed {
                rules: config.rules.clone(),
                generation: 1,
                has_sinks: !config.sinks.is_empty(),
            }),
            generation: AtomicU64::new(1),
            collected: Arc::clone(&collected),
            thread: Mutex::new(None),
            notices: Notices::default(),
            disk,
            config,
        };
        let config = &inner.config;
        check(config)?;
        let mut sinks = Vec::new();
        for sink in &config.sinks {
            sinks.push(inner.open(sink, config.deadline)?);
        }
        *collected.sinks.lock() = sinks;
        let rules = Some((1, config.rules.digest()));
        let started = line::event("start", &inner.fixed, rules);
        collected.own.push_line(&started);
        let thread = thread::Builder::new()
            .name("hf-audit".to_owned())
            .spawn(move || collected.run())
            .map_err(StartError::Thread)?;
        *inner.thread.lock() = Some(thread);
        let notices = inner.notices.take();
        Ok((Self(Some(Arc::new(inner))), notices))
    }

    /// An auditor that records nothing.
    pub fn off() -> Self {
        Self(None)
    }

    /// A writer. Each thread that serves requests should have its own.
    pub fn writer(&self) -> Writer {
        let inner = self.0.as_ref();
        Writer::new(inner.map(|inner| inner.collected.buffer()))
    }

    /// What is recorded of a caller's requests of an RPC: `"KV/Put"`, the last part of the service's name and the method's.
    pub fn plan(&self, subject: &Subject<'_>, rpc: &str) -> Plan {
        let Some(inner) = &self.0 else {
            return Plan::silent(0);
        };
        let installed = inner.rules.load();
        if !installed.has_sinks {
            return Plan::silent(installed.generation);
        }
        Plan::new(
            &installed.rules,
            installed.generation,
            &inner.fixed,
            inner.config.key.hashing(),
            subject,
            rpc,
        )
    }

    /// Changes with every reload: plans of another generation are out of date.
    pub fn generation(&self) -> u64 {
        let inner = self.0.as_ref();
        inner.map_or(0, |inner| inner.generation.load(Ordering::Acquire))
    }

    /// Takes over rules, sinks and deadline; all else stays as at the start. A sink that was there before goes on without a gap (a syslog
    /// socket with the send timeout that it has); new ones are opened; others finish what they have, and end. Gives what the operator
    /// should hear.
    ///
    /// # Errors
    ///
    /// As [`Auditor::start`]; then nothing has changed. Or auditing is off.
    pub fn reload(&self, config: AuditorConfig) -> Result<Vec<Notice>, StartError> {
        let inner = self.0.as_ref().ok_or(StartError::Off)?;
        inner.reload(config)
    }

    /// Waits until every sink has taken or given up everything that was recorded before. False if that took too long. For a sink that hangs
    /// in a write nobody waits.
    pub fn flush(&self, wait: Duration) -> bool {
        let Some(inner) = &self.0 else {
            return true;
        };
        is_closed(&inner.collected.bell.flush(), Instant::now() + wait)
    }

    /// Records that the node stops, signs a last checkpoint, and ends the threads. Records that come later are lost. A sink that is not done in
    /// time is left behind.
    pub fn stop(&self, wait: Duration) {
        if let Some(inner) = &self.0 {
            inner.stop(wait);
        }
    }

    /// Figures for metrics.
    pub fn stats(&self) -> Stats {
        let inner = self.0.as_ref();
        inner.map_or_else(Stats::default, |inner| inner.collected.stats())
    }

    /// What the operator should hear and was not told yet: sinks that fail, and those that work again.
    pub fn notices(&self) -> Vec<Notice> {
        let inner = self.0.as_ref();
        inner.map_or_else(Vec::new, |inner| inner.notices.take())
    }

    /// As [`Writer::begin`], for those who have no writer.
    pub fn submit_strict(&self, plan: &Plan, record: &Record<'_>, on_taken: OnTaken) {
        match &self.0 {
            Some(inner) => inner.collected.own.begin(plan, record, on_taken),
            None => on_taken(Ok(())),
        }
    }
}

impl Inner {
    fn open(&self, config: &SinkConfig, deadline: Duration) -> Result<Arc<Handle>, StartError> {
        let failed = |source| StartError::Sink {
            sink: config.to_string(),
            source,
        };
        let sink: Box<dyn Sink> = match config {
            SinkConfig::File(file) => {
                let sink = FileSink::open(FileSinkConfig {
                    file: file.clone(),
                    identity: Identity {
                        version: self.config.version.clone(),
                        node: self.config.node.clone(),
                        cluster: self.config.cluster.clone(),
                        public: self.config.key.public(),
                    },
                    key: self.config.key.clone(),
                    checkpoint_every: self.config.checkpoint_every,
                    retry_after: self.config.retry_after,
                    disk: Arc::clone(&self.disk),
                    notices: self.notices.clone(),
                });
                Box::new(sink.map_err(failed)?)
            }
            SinkConfig::Stdout => Box::new(StreamSink::stdout().map_err(failed)?),
            SinkConfig::Syslog(target) => {
                Box::new(SyslogSink::new(target.clone(), &self.config.node, deadline))
            }
        };
        self.run(config.clone(), sink).map_err(failed)
    }

    fn run(&self, config: SinkConfig, sink: Box<dyn Sink>) -> io::Result<Arc<Handle>> {
        Handle::start(
            config,
            sink,
            self.config.sink_limit_bytes,
            self.config.retry_after,
            self.notices.clone(),
        )
    }

    fn reload(&self, config: AuditorConfig) -> Result<Vec<Notice>, StartError> {
        check(&config)?;
        // Held for one reload at a time.
        let thread = self.thread.lock();
        if thread.is_none() {
            return Err(StartError::Off);
        }
        let old = self.collected.sinks.lock().clone();
        let stays = |handle: &Handle, wanted: &SinkConfig| {
            let current = handle.config.lock();
            current.is_same_place(wanted)
        };
        let mut sinks = Vec::new();
        let mut opened = Vec::new();
        for wanted in &config.sinks {
            match old.iter().find(|handle| stays(handle, wanted)) {
                Some(handle) => sinks.push(Arc::clone(handle)),
                None => match self.open(wanted, config.deadline) {
                    Ok(handle) => {
                        opened.push(Arc::clone(&handle));
                        sinks.push(handle);
                    }
                    Err(error) => {
                        for handle in opened {
                            drop(handle.close());
                        }
                        return Err(error);
                    }
                },
            }
        }
        // From here on nothing fails.
        for (handle, wanted) in sinks.iter().zip(&config.sinks) {
            if *handle.config.lock() != *wanted {
                handle.configure(wanted.clone());
            }
        }
        *self.collected.deadline.lock() = config.deadline;
        let generation = self.generation.load(Ordering::Acquire) + 1;
        let line = line::event(
            "rules",
            &self.fixed,
            Some((generation, config.rules.digest())),
        );
        self.collected.own.push_line(&line);
        self.rules.store(Arc::new(Installed {
            rules: config.rules,
            generation,
            has_sinks: !sinks.is_empty(),
        }));
        *self.collected.sinks.lock() = sinks.clone();
        // Only now: what the collector has under way still goes to the old ones.
        for handle in &old {
            if !sinks.iter().any(|kept| Arc::ptr_eq(kept, handle)) {
                drop(handle.close());
            }
        }
        self.generation.store(generation, Ordering::Release);
        drop(thread);
        Ok(self.notices.take())
    }

    fn stop(&self, wait: Duration) {
        let Some(thread) = self.thread.lock().take() else {
            return;
        };
        let until = Instant::now() + wait;
        self.collected.close();
        let line = line::event("stop", &self.fixed, None);
        self.collected.own.push_line(&line);
        self.collected.own.close();
        // Two rounds, since records may stand before those that the first one took.
        is_closed(&self.collected.bell.flush(), until);
        self.collected.bell.stop();
        // The collector waits for nobody.
        if thread.join().is_err() {
            self.notices.push(Notice::Failed {
                sink: "all".to_owned(),
                error: "the collector ended early".to_owned(),
            });
        }
        let sinks = std::mem::take(&mut *self.collected.sinks.lock());
        let closed: Vec<_> = sinks.iter().map(|sink| sink.close()).collect();
        for closed in closed {
            is_closed(&closed, until);
        }
        // For figures after the end.
        *self.collected.sinks.lock() = sinks;
    }
}

#[cfg(test)]
impl Auditor {
    /// Adds a sink that no configuration can make.
    pub(crate) fn add_sink(&self, sink: Box<dyn Sink>) {
        let inner = self.0.as_ref().unwrap();
        let handle = inner.run(SinkConfig::Stdout, sink).unwrap();
        inner.collected.sinks.lock().push(handle);
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.collected.close();
        self.collected.own.close();
        self.collected.bell.stop();
        if let Some(thread) = self.thread.lock().take() {
            // Its last round hands on what there is. A panic there was reported when it happened.
            drop(thread.join());
        }
        for sink in self.collected.sinks.lock().iter() {
            drop(sink.close());
        }
    }
}

impl fmt::Debug for Auditor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Auditor").field(&self.stats()).finish()
    }
}

fn check(config: &AuditorConfig) -> Result<(), StartError> {
    if config.sinks.is_empty() && config.rules.has_strict() {
        return Err(StartError::StrictWithoutSink);
    }
    for (index, sink) in config.sinks.iter().enumerate() {
        if config.sinks[..index]
            .iter()
            .any(|other| other.is_same_place(sink))
        {
            return Err(StartError::Twice(sink.to_string()));
        }
    }
    Ok(())
}

/// Waits for the other end to be dropped.
fn is_closed(receiver: &mpsc::Receiver<()>, until: Instant) -> bool {
    let wait = until.saturating_duration_since(Instant::now());
    matches!(
        receiver.recv_timeout(wait),
        Err(RecvTimeoutError::Disconnected)
    )
}
