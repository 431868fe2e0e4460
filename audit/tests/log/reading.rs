//! Following and searching.

use crate::{LONG, Log, Node, alice, ok, rules};
use holdfast_audit::{
    Auditor, Code, End, KeySpan, Outcome, Record, SinkConfig, Subject,
    read::{self, Entry, Filter, Kind},
};
use std::{fs, io::Write, time::SystemTime};

fn ids(entries: impl IntoIterator<Item = Entry>) -> Vec<u64> {
    let ids = entries.into_iter().filter_map(|entry| entry.id);
    ids.map(|id| u64::from_str_radix(&id, 16).unwrap())
        .collect()
}

#[test]
fn the_end_of_a_log_reaches_into_rotated_files() {
    let log = Log::new();
    let mut config = log.config();
    let mut file = log.file();
    file.max_bytes = 2000;
    file.keep = 100;
    config.sinks = vec![SinkConfig::File(file)];
    let (auditor, _) = Auditor::start(config).unwrap();
    let node = Node::new(&auditor);
    for id in 0..50 {
        node.put(id);
        assert!(auditor.flush(LONG));
    }
    auditor.stop(LONG);
    assert!(read::files(&log.path).unwrap().len() > 3);
    let last = |count| -> Vec<Entry> {
        let tail = read::tail(&log.path, count, false).unwrap();
        tail.collect::<Result<_, _>>().unwrap()
    };
    for count in [0, 1, 5, 20] {
        assert_eq!(last(count).len(), count);
    }
    let all = last(10_000);
    assert_eq!(ids(all.clone()), (0..50).collect::<Vec<u64>>());
    assert!(all.last().unwrap().line.contains(r#""type":"stop""#));
    assert!(!all.iter().any(|entry| entry.line.contains(r#""seal""#)));
    assert_eq!(ids(last(6)), (45..50).collect::<Vec<u64>>());
}

#[test]
fn a_log_is_followed_through_rotations() {
    let log = Log::new();
    let mut config = log.config();
    let mut file = log.file();
    file.max_bytes = 2000;
    file.keep = 100;
    config.sinks = vec![SinkConfig::File(file)];
    let (auditor, _) = Auditor::start(config).unwrap();
    let node = Node::new(&auditor);
    node.put(0);
    assert!(auditor.flush(LONG));
    let mut tail = read::tail(&log.path, 1, true).unwrap();
    let mut seen = Vec::new();
    for id in 1..60 {
        node.put(id);
        assert!(auditor.flush(LONG));
        // Sometimes several rotations happen between two looks.
        if id % 25 == 0 {
            while let Some(entry) = tail.poll().unwrap() {
                seen.push(entry);
            }
        }
    }
    auditor.stop(LONG);
    while let Some(entry) = tail.poll().unwrap() {
        seen.push(entry);
    }
    assert!(read::files(&log.path).unwrap().len() > 3);
    assert_eq!(ids(seen), (0..60).collect::<Vec<u64>>());
}

#[test]
fn half_a_line_is_waited_for() {
    let log = Log::new();
    log.session(1);
    let mut tail = read::tail(&log.path, 0, true).unwrap();
    let mut file = fs::OpenOptions::new().append(true).open(&log.path).unwrap();
    file.write_all(br#"{"type":"start","ti"#).unwrap();
    assert!(tail.poll().unwrap().is_none());
    file.write_all(b"me\":\"2026\"}\n{\"type\":\"seal\",\"\x1b[31m\n\x1b[31mred\n")
        .unwrap();
    let entry = tail.poll().unwrap().unwrap();
    assert_eq!((entry.kind, entry.time.as_str()), (Kind::Event, "2026"));
    // What somebody else wrote cannot play with the terminal.
    let entry = tail.poll().unwrap().unwrap();
    assert_eq!(entry.kind, Kind::Unknown);
    assert_eq!(entry.line, r"\u{1b}[31mred");
    assert!(tail.poll().unwrap().is_none());
    file.set_len(10).unwrap();
    assert!(tail.poll().unwrap_err().to_string().contains("shorter"));
}

#[test]
fn requests_are_found_by_what_they_are() {
    let log = Log::new();
    let mut config = log.config();
    config.rules = rules("rules: [{level: keys}]");
    let (auditor, _) = Auditor::start(config).unwrap();
    let writer = auditor.writer();
    let denied = Outcome::Denied {
        code: Code::PermissionDenied,
        reason: "no",
    };
    let nobody = Subject {
        principal: None,
        ..alice()
    };
    let bob = Subject {
        principal: Some("bob"),
        tenant: "other",
        ..alice()
    };
    let spans: [KeySpan<'_>; 4] = [
        KeySpan::Point(b"/a/1"),
        KeySpan::Span(b"/a/", b"/b"),
        KeySpan::From(b"/z\xff"),
        KeySpan::Point(b"/b/\n"),
    ];
    for (id, (subject, rpc, outcome)) in [
        (alice(), "KV/Put", Outcome::Ok),
        (bob, "KV/Range", Outcome::Ok),
        (nobody, "KV/Range", denied),
        (alice(), "Auth/UserAdd", denied),
    ]
    .into_iter()
    .enumerate()
    {
        let plan = auditor.plan(&subject, rpc);
        let keys = plan.keys([spans[id]]);
        let record = Record {
            time: SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(id as u64 * 3600),
            id: id as u64,
            keys: &keys,
            object: None,
            request_bytes: 1,
        };
        writer.end(&plan, &record, &End { outcome, ..ok() });
    }
    auditor.stop(LONG);
    let files = read::files(&log.path).unwrap();
    let found = |filter: Filter| ids(read::grep(&files, filter).map(Result::unwrap));
    assert_eq!(found(Filter::default()), [0, 1, 2, 3]);
    let name = |text: &str| Some(text.into());
    let by = |change: fn(&mut Filter, Option<read::NamePattern>), text| {
        let mut filter = Filter::default();
        change(&mut filter, name(text));
        found(filter)
    };
    assert_eq!(by(|filter, name| filter.principal = name, "alice"), [0, 3]);
    assert_eq!(by(|filter, name| filter.principal = name, "b*"), [1]);
    assert_eq!(by(|filter, name| filter.principal = name, ""), [2]);
    assert_eq!(by(|filter, name| filter.rpc = name, "KV/*"), [0, 1, 2]);
    assert_eq!(by(|filter, name| filter.tenant = name, "other"), [1]);
    let outcome = |text: &str| {
        found(Filter {
            outcome: Some(text.parse().unwrap()),
            ..Filter::default()
        })
    };
    assert_eq!(outcome("denied"), [2, 3]);
    assert_eq!(outcome("PermissionDenied"), [2, 3]);
    assert_eq!(outcome("ok"), [0, 1]);
    assert!("perhaps".parse::<read::OutcomeFilter>().is_err());
    let prefix = |text: &str| {
        found(Filter {
            key_prefix: Some(text.into()),
            ..Filter::default()
        })
    };
    assert_eq!(prefix("/a/"), [0, 1]);
    assert_eq!(prefix("/zz"), Vec::<u64>::new());
    assert_eq!(prefix("/b/"), [3]);
    let between = |since: &str, until: &str| {
        found(Filter {
            since: Some(since.parse().unwrap()),
            until: Some(until.parse().unwrap()),
            ..Filter::default()
        })
    };
    assert_eq!(between("1970", "1970-01-01T01"), [0, 1]);
    assert_eq!(
        between("1970-01-01T02:00:00Z", "2000-01-01T00:00:00.000000Z"),
        [2, 3]
    );
    assert_eq!(between("1970-01-01T01:00:01Z", "1970-01-01T02:00:00Z"), [2]);
    for wrong in ["", "197", "1970/01", "now", "1970-01-01T00:00:00.0000000Z"] {
        assert!(wrong.parse::<read::TimePrefix>().is_err(), "{wrong}");
    }
}
