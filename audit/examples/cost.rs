//! What a record costs: formatting it where the request is served, and chaining and writing it on the audit threads.
//!
//! `cargo run --profile bench-quick -p holdfast-audit --example cost`

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a tool to be looked at"
)]

use holdfast_audit::{
    Auditor, AuditorConfig, AuthMethod, End, FileConfig, KeySpan, Keys, NodeKey, Outcome, Record,
    Rules, SinkConfig, Subject, SyncPolicy,
    read::{self, VerifyOptions},
};
use std::time::{Duration, Instant, SystemTime};

const RECORDS: u64 = 2_000_000;
/// Records between pauses, so that the sink keeps up as it does at a rate that requests can have.
const BATCH: u64 = 10_000;

fn main() {
    for (name, rules, has_keys) in [
        ("metadata", "rules: [{level: metadata}]", false),
        ("keys", "rules: [{level: keys}]", true),
        ("keys_hashed", "rules: [{level: keys_hashed}]", true),
    ] {
        measure(name, rules, has_keys);
    }
}

fn measure(name: &str, rules: &str, has_keys: bool) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.log");
    let key = NodeKey::from_seed([7; 32]).unwrap();
    let config = AuditorConfig {
        rules: Rules::parse(rules).unwrap(),
        sinks: vec![SinkConfig::File(FileConfig {
            sync: SyncPolicy::None,
            max_bytes: 1 << 40,
            ..FileConfig::new(&path)
        })],
        ..AuditorConfig::new("node-1", "cluster-1", "0.1.0", key)
    };
    let (auditor, _) = Auditor::start(config).unwrap();
    let writer = auditor.writer();
    let subject = Subject {
        tenant: "default",
        principal: Some("client"),
        auth: AuthMethod::Certificate,
        source: Some(([127, 0, 0, 1], 40_000).into()),
    };
    let plan = auditor.plan(&subject, "KV/Put");
    let mut formatting = Duration::ZERO;
    let all = Instant::now();
    let cpu = cpu_time();
    for batch in 0..RECORDS / BATCH {
        let start = Instant::now();
        for id in batch * BATCH..(batch + 1) * BATCH {
            let keys = if has_keys {
                plan.keys([KeySpan::Point(b"/registry/pods/default/pod-1234")])
            } else {
                Keys::none()
            };
            let record = Record {
                time: SystemTime::now(),
                id,
                keys: &keys,
                object: None,
                request_bytes: 300,
            };
            let end = End {
                outcome: Outcome::Ok,
                revision: Some(id as i64),
                duration: Duration::from_micros(id % 1000),
            };
            writer.end(&plan, &record, &end);
        }
        formatting += start.elapsed();
        auditor.flush(Duration::from_secs(60));
    }
    let all = all.elapsed();
    let cpu = cpu_time() - cpu;
    auditor.stop(Duration::from_secs(60));
    let stats = auditor.stats();
    assert_eq!(stats.sinks[0].written, RECORDS, "{stats:?}");
    let bytes = std::fs::metadata(&path).unwrap().len();
    let start = Instant::now();
    let report = read::verify(std::slice::from_ref(&path), &VerifyOptions::default()).unwrap();
    let verifying = start.elapsed();
    assert!(report.is_intact());
    let each = |time: Duration| time.as_nanos() as f64 / RECORDS as f64;
    println!(
        "{name}: format {:.0} ns, all CPU {:.0} ns, elapsed {:.0} ns a record; {} bytes a record; verify {:.0} ns a record ({:.0} MB/s)",
        each(formatting),
        each(cpu),
        each(all),
        bytes / RECORDS,
        each(verifying),
        bytes as f64 / verifying.as_secs_f64() / 1e6,
    );
}

/// User and system time of all threads of this process.
fn cpu_time() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}
