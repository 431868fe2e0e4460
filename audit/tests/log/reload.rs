//! New rules and sinks without a gap.

use crate::{LONG, Log, Node, alice, rules};
use holdfast_audit::{Auditor, FileConfig, SinkConfig, StartError, SyslogTarget};

#[test]
fn new_rules_hold_for_new_plans() {
    let log = Log::new();
    let (auditor, _) = Auditor::start(log.config()).unwrap();
    let before = auditor.generation();
    assert!(!auditor.plan(&alice(), "KV/Put").is_silent());
    let mut config = log.config();
    config.rules = rules("rules: [{level: none}]");
    auditor.reload(config).unwrap();
    assert_ne!(auditor.generation(), before);
    let plan = auditor.plan(&alice(), "KV/Put");
    assert!(plan.is_silent());
    assert_eq!(plan.generation(), auditor.generation());
    auditor.stop(LONG);
    let text = log.text();
    // Whoever turns auditing off leaves a trace.
    assert!(text.contains(r#"{"type":"rules","#), "{text}");
    assert!(
        text.contains(r#""generation":2,"rules":"sha256:"#),
        "{text}"
    );
    log.assert_intact();
}

#[test]
fn sinks_come_and_go_and_those_that_stay_have_no_gap() {
    let log = Log::new();
    let mut second = Log::new();
    second.key = log.key.clone();
    let (auditor, _) = Auditor::start(log.config()).unwrap();
    let node = Node::new(&auditor);
    node.put(1);
    assert!(auditor.flush(LONG));

    let mut both = log.config();
    both.sinks.push(SinkConfig::File(second.file()));
    auditor.reload(both).unwrap();
    node.put(2);
    assert!(auditor.flush(LONG));

    let mut only_second = log.config();
    only_second.sinks = vec![SinkConfig::File(second.file())];
    auditor.reload(only_second).unwrap();
    node.put(3);
    assert!(auditor.flush(LONG));
    let names: Vec<String> = auditor
        .stats()
        .sinks
        .into_iter()
        .map(|sink| sink.name)
        .collect();
    assert_eq!(names, [format!("file:{}", second.path.display())]);
    auditor.stop(LONG);

    crate::until("the first sink is closed", || log.verify().is_intact());
    assert_eq!(log.assert_intact().records, 2);
    assert_eq!(second.assert_intact().records, 2);
    assert!(!log.text().contains(r#""type":"resumed""#));
}

#[test]
fn a_reload_that_fails_changes_nothing() {
    let log = Log::new();
    let (auditor, _) = Auditor::start(log.config()).unwrap();
    let generation = auditor.generation();
    let mut config = log.config();
    config.rules = rules("rules: [{level: none}]");
    config.sinks = vec![SinkConfig::File(FileConfig::new("/proc/nowhere/audit.log"))];
    assert!(matches!(
        auditor.reload(config),
        Err(StartError::Sink { .. })
    ));
    let mut config = log.config();
    config.sinks.clear();
    config.rules = rules("rules: [{level: keys, delivery: strict}]");
    assert!(matches!(
        auditor.reload(config),
        Err(StartError::StrictWithoutSink)
    ));
    let mut config = log.config();
    config.sinks.extend(log.config().sinks);
    assert!(matches!(auditor.reload(config), Err(StartError::Twice(_))));

    assert_eq!(auditor.generation(), generation);
    Node::new(&auditor).put(1);
    auditor.stop(LONG);
    assert_eq!(log.assert_intact().records, 1);
    assert!(matches!(auditor.reload(log.config()), Err(StartError::Off)));
}

#[test]
fn records_after_the_end_are_counted() {
    let log = Log::new();
    let (auditor, _) = Auditor::start(log.config()).unwrap();
    let node = Node::new(&auditor);
    node.put(1);
    auditor.stop(LONG);
    node.put(2);
    Node::new(&auditor).put(3);
    let stats = auditor.stats();
    assert_eq!((stats.records, stats.lost), (1, 2), "{stats:?}");
    assert_eq!(stats.sinks[0].written, 1, "{stats:?}");
    assert_eq!(log.assert_intact().records, 1);
}

#[test]
fn a_sink_that_is_not_there_yet_does_not_keep_a_node_from_starting() {
    let log = Log::new();
    let mut config = log.config();
    let socket = log.folder.path().join("log.sock");
    config
        .sinks
        .push(SinkConfig::Syslog(SyslogTarget::Socket(socket)));
    let (auditor, _) = Auditor::start(config).unwrap();
    Node::new(&auditor).put(1);
    assert!(auditor.flush(LONG));
    let stats = auditor.stats();
    assert_eq!(stats.sinks[0].written, 1, "{stats:?}");
    assert_eq!(
        (stats.sinks[1].written, stats.sinks[1].lost),
        (0, 1),
        "{stats:?}"
    );
    assert!(stats.sinks[1].errors > 0);
    let notices = auditor.notices();
    assert_eq!(notices.len(), 1, "{notices:?}");
    assert!(notices[0].to_string().contains("log.sock"), "{notices:?}");
    auditor.stop(LONG);
}
