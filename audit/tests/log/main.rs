//! Audit files from outside: what is written, what survives, and what verifying notices.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "test code: a panic is the report of a failure"
)]

mod place;
mod reading;
mod records;
mod reload;
mod restart;
mod rotation;
mod syslog;
mod tamper;

use holdfast_audit::{
    Auditor, AuditorConfig, AuthMethod, End, FileConfig, KeySpan, NodeKey, Outcome, Plan, Record,
    Rules, SinkConfig, Subject, SyncPolicy, Writer,
    read::{self, Report, VerifyOptions},
};
use std::{
    fs,
    path::PathBuf,
    time::{Duration, Instant, SystemTime},
};
use tempfile::TempDir;

/// Longer than anything here takes.
pub(crate) const LONG: Duration = Duration::from_secs(20);

/// A folder with a log.
pub(crate) struct Log {
    pub(crate) folder: TempDir,
    pub(crate) path: PathBuf,
    pub(crate) key: NodeKey,
}

impl Log {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.log");
        let key = NodeKey::from_seed([7; 32]).unwrap();
        Self { folder, path, key }
    }

    pub(crate) fn file(&self) -> FileConfig {
        FileConfig {
            sync: SyncPolicy::None,
            ..FileConfig::new(&self.path)
        }
    }

    pub(crate) fn config(&self) -> AuditorConfig {
        AuditorConfig {
            sinks: vec![SinkConfig::File(self.file())],
            retry_after: Duration::from_millis(20),
            ..AuditorConfig::new("node-1", "cluster-1", "0.1.0", self.key.clone())
        }
    }

    /// Runs a node that records `count` requests, each in a block of its own, and stops.
    pub(crate) fn session(&self, count: u64) {
        let (auditor, _) = Auditor::start(self.config()).unwrap();
        let node = Node::new(&auditor);
        for id in 0..count {
            node.put(id);
            assert!(auditor.flush(LONG));
        }
        auditor.stop(LONG);
    }

    pub(crate) fn options(&self) -> VerifyOptions {
        VerifyOptions {
            trusted: vec![self.key.public()],
            closed: true,
            expect: None,
        }
    }

    pub(crate) fn verify(&self) -> Report {
        let files = read::files(&self.path).unwrap();
        read::verify(&files, &self.options()).unwrap()
    }

    #[track_caller]
    pub(crate) fn assert_intact(&self) -> Report {
        let report = self.verify();
        assert!(report.is_intact(), "{:#?}", report.problems);
        report
    }

    pub(crate) fn text(&self) -> String {
        fs::read_to_string(&self.path).unwrap()
    }
}

/// Makes requests.
pub(crate) struct Node {
    pub(crate) writer: Writer,
    pub(crate) plan: Plan,
}

impl Node {
    pub(crate) fn new(auditor: &Auditor) -> Self {
        Self {
            writer: auditor.writer(),
            plan: auditor.plan(&alice(), "KV/Put"),
        }
    }

    pub(crate) fn put(&self, id: u64) {
        let keys = self.plan.keys([KeySpan::Point(b"/a/key")]);
        let record = Record {
            time: SystemTime::now(),
            id,
            keys: &keys,
            object: None,
            request_bytes: 100,
        };
        self.writer.end(&self.plan, &record, &ok());
    }
}

pub(crate) fn alice() -> Subject<'static> {
    Subject {
        tenant: "default",
        principal: Some("alice"),
        auth: AuthMethod::Certificate,
        source: Some(([127, 0, 0, 1], 4711).into()),
    }
}

pub(crate) fn ok() -> End<'static> {
    End {
        outcome: Outcome::Ok,
        revision: Some(5),
        duration: Duration::from_micros(250),
    }
}

pub(crate) fn rules(text: &str) -> Rules {
    Rules::parse(text).unwrap()
}

/// Waits for something that other threads bring about.
#[track_caller]
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < LONG, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}
