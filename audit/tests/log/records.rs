//! What a record says.

use crate::{LONG, Log, alice, ok, rules};
use holdfast_audit::{
    Auditor, AuthMethod, Code, End, KeySpan, Keys, Outcome, Plan, Record, Subject,
};
use serde_json::Value;
use std::time::{Duration, SystemTime};

fn record(keys: &Keys) -> Record<'_> {
    Record {
        time: SystemTime::UNIX_EPOCH + Duration::from_micros(1_763_633_359_123_456),
        id: 0xab,
        keys,
        object: None,
        request_bytes: 321,
    }
}

/// The request lines that a node writes under some rules.
fn written(log: &Log, text: &str, requests: impl FnOnce(&Auditor)) -> Vec<String> {
    let mut config = log.config();
    config.rules = rules(text);
    let (auditor, _) = Auditor::start(config).unwrap();
    requests(&auditor);
    auditor.stop(LONG);
    log.assert_intact();
    let text = log.text();
    let lines = text.lines().filter(|line| line.contains(r#""type":"rpc""#));
    lines.map(str::to_owned).collect()
}

fn send(auditor: &Auditor, plan: &Plan, keys: &Keys, end: &End<'_>) {
    auditor.writer().end(plan, &record(keys), end);
}

#[test]
fn a_record_has_the_documented_fields() {
    let log = Log::new();
    let lines = written(&log, "rules: [{level: keys}]", |auditor| {
        let plan = auditor.plan(&alice(), "KV/Put");
        let keys = plan.keys([KeySpan::Span(b"a", b"b")]);
        send(auditor, &plan, &keys, &ok());
    });
    let [line] = lines.as_slice() else {
        panic!("{lines:?}");
    };
    assert_eq!(
        line,
        r#"{"type":"rpc","time":"2025-11-20T10:09:19.123456Z","node":"node-1","tenant":"default","principal":"alice","auth":"certificate","source":"127.0.0.1:4711","rpc":"KV/Put","id":"00000000000000ab","stage":"end","request_bytes":321,"keys":[["a","b"]],"outcome":"OK","class":"ok","revision":5,"duration_us":250}"#
    );
}

#[test]
fn what_clients_send_cannot_break_a_line() {
    let log = Log::new();
    let evil = "x\",\"class\":\"ok\"}\n{\"type\":\"rpc\"";
    let lines = written(&log, "rules: [{level: keys}]", |auditor| {
        let subject = Subject {
            tenant: evil,
            principal: Some(evil),
            auth: AuthMethod::None,
            source: None,
        };
        let plan = auditor.plan(&subject, evil);
        let keys = plan.keys([KeySpan::Point(evil.as_bytes()), KeySpan::From(b"\xff\n")]);
        let outcome = Outcome::Denied {
            code: Code::PermissionDenied,
            reason: evil,
        };
        let record = Record {
            object: Some(evil),
            ..record(&keys)
        };
        auditor
            .writer()
            .end(&plan, &record, &End { outcome, ..ok() });
    });
    let [line] = lines.as_slice() else {
        panic!("{lines:?}");
    };
    let read: Value = serde_json::from_str(line).unwrap();
    assert_eq!(read["class"], "denied");
    assert_eq!(read["reason"], evil);
    assert_eq!(read["object"], evil);
    assert_eq!(read["principal"]["b64"], read["tenant"]["b64"]);
    assert!(read["principal"]["b64"].is_string());
    assert_eq!(read["keys"][1][0]["b64"], "/wo=");
    assert_eq!(read["keys"][1][1], Value::Null);
}

#[test]
fn rules_choose_by_outcome_and_keys() {
    let log = Log::new();
    let text = "rules:\n\
        - {key_prefix: /secret/, level: keys_hashed}\n\
        - {outcome: denied, level: keys}\n\
        - {outcome: failed, level: metadata}\n\
        - {level: none}\n";
    let denied = Outcome::Denied {
        code: Code::InvalidArgument,
        reason: "etcdserver: user name is empty",
    };
    let failed = Outcome::Failed {
        code: Code::Unavailable,
        reason: "no leader",
    };
    let lines = written(&log, text, |auditor| {
        let plan = auditor.plan(&alice(), "KV/Put");
        for (outcome, key) in [
            (Outcome::Ok, "/open/1"),
            (denied, "/open/2"),
            (failed, "/open/3"),
            (Outcome::Ok, "/secret/4"),
        ] {
            let keys = plan.keys([KeySpan::Point(key.as_bytes())]);
            send(auditor, &plan, &keys, &End { outcome, ..ok() });
        }
    });
    let has = |index: usize, part: &str| {
        let line: &String = &lines[index];
        assert!(line.contains(part), "{part} is not in {line}");
    };
    assert_eq!(lines.len(), 3, "{lines:?}");
    has(0, r#""keys":[["/open/2"]]"#);
    has(
        0,
        r#""outcome":"InvalidArgument","class":"denied","reason":"etcdserver: user name is empty""#,
    );
    has(1, r#""outcome":"Unavailable","class":"failed""#);
    assert!(!lines[1].contains("keys"), "{}", lines[1]);
    has(2, r#""keys_hashed":[[""#);
    assert!(!lines[2].contains("/secret/"), "{}", lines[2]);
}

#[test]
fn strict_rules_say_that_a_request_begins() {
    let log = Log::new();
    let text = "rules: [{outcome: denied, level: keys}, {rpc: KV/Put, level: metadata, delivery: strict}, {level: metadata}]";
    let lines = written(&log, text, |auditor| {
        let put = auditor.plan(&alice(), "KV/Put");
        let range = auditor.plan(&alice(), "KV/Range");
        let keys = Keys::none();
        assert!(put.is_strict(&keys));
        assert!(!range.is_strict(&keys));
        let (sender, receiver) = std::sync::mpsc::channel();
        let told = sender.clone();
        let writer = auditor.writer();
        writer.begin(
            &put,
            &record(&keys),
            Box::new(move |taken| told.send(taken).unwrap()),
        );
        assert_eq!(receiver.recv_timeout(LONG), Ok(Ok(())));
        writer.end(&put, &record(&keys), &ok());
        // Not strict: there is nothing to wait for, and nothing to say.
        writer.begin(
            &range,
            &record(&keys),
            Box::new(move |taken| sender.send(taken).unwrap()),
        );
        assert_eq!(receiver.recv_timeout(LONG), Ok(Ok(())));
    });
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(
        lines[0].contains(r#""stage":"begin""#) && !lines[0].contains("outcome"),
        "{lines:?}"
    );
    assert!(lines[1].contains(r#""stage":"end""#), "{lines:?}");
}

#[test]
fn without_a_matching_rule_or_a_sink_nothing_is_planned() {
    let log = Log::new();
    let (auditor, _) = Auditor::start(log.config()).unwrap();
    let keep_alive = auditor.plan(&alice(), "Lease/LeaseKeepAlive");
    assert!(!keep_alive.wants_keys());
    send(&auditor, &keep_alive, &Keys::none(), &ok());
    assert!(auditor.flush(LONG));
    assert!(!log.text().contains("KeepAlive"));
    assert!(!auditor.plan(&alice(), "KV/Range").is_silent());
    let mut config = log.config();
    config.sinks.clear();
    assert!(
        Auditor::start(config.clone())
            .unwrap()
            .0
            .plan(&alice(), "KV/Range")
            .is_silent()
    );
    config.rules = rules("rules: [{level: keys, delivery: strict}]");
    let error = Auditor::start(config).unwrap_err().to_string();
    assert!(error.contains("strict"), "{error}");
    let off = Auditor::off();
    let plan = off.plan(&alice(), "KV/Put");
    assert!(plan.is_silent());
    send(&off, &plan, &Keys::none(), &ok());
    assert!(off.flush(LONG));
    off.stop(LONG);
}
