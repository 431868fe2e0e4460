use super::*;
use holdfast_config::LogFormat;
use serde_json::Value;
use std::fs;
use std::path::PathBuf;

/// Logs through a file output and returns the lines.
fn logged(level: LogLevel, format: LogFormat, work: impl FnOnce()) -> Vec<String> {
    let dir = tempfile::tempdir().expect("dir");
    let path: PathBuf = dir.path().join("log");
    let output = holdfast_config::LogOutput::File(path.clone());
    let lines = Lines {
        format,
        level,
        outputs: vec![Output::open(&output, None, &mut Vec::new()).expect("open")],
    };
    tracing::subscriber::with_default(tracing_subscriber::registry().with(lines), work);
    let text = fs::read_to_string(path).expect("utf-8");
    text.lines().map(str::to_owned).collect()
}

#[test]
fn json_lines_have_etcds_shape() {
    let lines = logged(LogLevel::Info, LogFormat::Json, || {
        tracing::info!(
            target: "holdfast::serve",
            address = "127.0.0.1:2379",
            count = 3,
            share = 0.5,
            odd = f64::NAN,
            secure = true,
            none = ?None::<u8>,
            "remote-addr" = %"::1",
            r#type = "x",
            "ready to serve client requests"
        );
        let error = io::Error::other("broken");
        tracing::error!(target: "holdfast", %error, "stopped");
    });
    assert_eq!(lines.len(), 2);
    assert!(
        lines[0].starts_with(r#"{"level":"info","ts":""#),
        "{}",
        lines[0]
    );
    let first: Value = serde_json::from_str(&lines[0]).expect("JSON");
    let position = |key: &str| lines[0].find(&format!("\"{key}\":")).expect("key");
    let order = ["level", "ts", "caller", "msg", "address"].map(position);
    assert!(order.is_sorted(), "{}", lines[0]);
    assert_eq!(first["msg"], "ready to serve client requests");
    assert_eq!(first["address"], "127.0.0.1:2379");
    assert_eq!(first["count"], 3);
    assert_eq!(first["share"], 0.5);
    assert_eq!(first["odd"], "NaN");
    assert_eq!(first["secure"], true);
    assert_eq!(first["none"], "None");
    assert_eq!(first["remote-addr"], "::1");
    assert_eq!(first["type"], "x");
    let caller = first["caller"].as_str().expect("caller");
    let (file, line) = caller.split_once(':').expect("file:line");
    assert_eq!(file, "logging/tests.rs");
    assert!(line.parse::<u32>().is_ok());
    let ts = first["ts"].as_str().expect("ts");
    assert_eq!(ts.len(), "2026-01-02T15:04:05.999999Z".len());
    assert!(ts.ends_with('Z') && ts.as_bytes()[10] == b'T' && ts.as_bytes()[19] == b'.');
    let second: Value = serde_json::from_str(&lines[1]).expect("JSON");
    assert_eq!(
        (&second["level"], &second["error"]),
        (&"error".into(), &"broken".into())
    );
}

#[test]
fn nothing_in_a_value_breaks_the_line() {
    let nasty = "\u{1b}[31m\r\n\"}\\ \u{0}\u{7f}\u{9b}\u{2028} ü";
    let long = "é".repeat(100_000);
    let key: &[u8] = b"\xff\xfe\n";
    for format in [LogFormat::Json, LogFormat::Console] {
        let lines = logged(LogLevel::Info, format, || {
            tracing::info!(target: "holdfast", nasty, key = ?key, long, "{nasty}");
        });
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(lines[0].len() < 20_000);
        assert!(
            !lines[0].chars().any(|c| c.is_control() && c != '\t'),
            "{lines:?}"
        );
        if format == LogFormat::Json {
            let line: Value = serde_json::from_str(&lines[0]).expect("JSON");
            assert_eq!(line["msg"], nasty);
            assert_eq!(line["nasty"], nasty);
            assert!(
                line["long"]
                    .as_str()
                    .is_some_and(|long| long.ends_with("(cut)"))
            );
        }
    }
}

#[test]
fn console_lines_are_tabbed_and_never_coloured() {
    let lines = logged(LogLevel::Info, LogFormat::Console, || {
        tracing::warn!(target: "holdfast", key = 1, "text");
        tracing::warn!(target: "holdfast", "bare");
    });
    let columns: Vec<_> = lines[0].split('\t').collect();
    assert_eq!(columns[1], "warn");
    assert_eq!(columns[3..], ["text", r#"{"key":1}"#]);
    assert!(lines[1].ends_with("\tbare"));
}

#[test]
fn levels_and_targets() {
    let all = || {
        tracing::debug!(target: "holdfast", "ours debug");
        tracing::info!(target: "holdfast_consensus::core", "ours info");
        tracing::warn!(target: "holdfast", "ours warn");
        tracing::error!(target: "holdfast", "ours error");
        tracing::trace!(target: "holdfast", "ours trace");
        tracing::info!(target: "raft", "raft info");
        tracing::warn!(target: "raft", "raft warn");
        tracing::debug!(target: "h2::codec", "h2 debug");
        tracing::warn!(target: "h2::codec", "h2 warn");
    };
    for (level, expected) in [
        (LogLevel::Off, vec![]),
        (LogLevel::Error, vec!["ours error"]),
        (
            LogLevel::Warn,
            vec!["ours warn", "ours error", "raft warn", "h2 warn"],
        ),
        (
            LogLevel::Info,
            vec![
                "ours info",
                "ours warn",
                "ours error",
                "raft warn",
                "h2 warn",
            ],
        ),
        (
            LogLevel::Debug,
            vec![
                "ours debug",
                "ours info",
                "ours warn",
                "ours error",
                "raft info",
                "raft warn",
                "h2 warn",
            ],
        ),
    ] {
        let messages: Vec<_> = logged(level, LogFormat::Json, all)
            .iter()
            .map(|line| {
                let line: Value = serde_json::from_str(line).expect("JSON");
                line["msg"].as_str().expect("msg").to_owned()
            })
            .collect();
        assert_eq!(messages, expected, "{level:?}");
    }
}
