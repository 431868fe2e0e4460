//! The process: how supervisors start, watch and stop it (behaviour §6), and what it refuses to start on.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "test code: a panic is the report of a failure"
)]

use holdfast_tests::{
    Exit, Server, ServerOptions, holdfast_only, is_reference, server_binary,
    wire::{get, put, values},
};
use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Output, Stdio},
    time::Duration,
};

fn run(arguments: &[&str]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    Command::new(server_binary())
        .env_clear()
        .current_dir(folder.path())
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn both(output: &Output) -> String {
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&output.stderr));
    text
}

#[test]
fn version_prints_the_line_that_wrappers_parse() {
    for spelling in ["--version", "-version"] {
        let output = run(&[spelling]);
        assert_eq!(output.status.code(), Some(0));
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(
            text.lines().any(|line| line == "etcd Version: 3.7.1"),
            "{text}"
        );
    }
}

#[test]
fn help_prints_the_usage() {
    let output = run(&["--help"]);
    assert_eq!(output.status.code(), Some(0));
    let text = both(&output);
    for flag in [
        "--data-dir",
        "--listen-client-urls",
        "--quota-backend-bytes",
    ] {
        assert!(text.contains(flag), "{flag}");
    }
}

#[test]
fn bad_command_lines_are_refused_with_a_reason() {
    for (arguments, reason) in [
        (&["--no-such-flag=1"][..], "no-such-flag"),
        (&["--heartbeat-interval=abc"], "heartbeat-interval"),
        (
            &["--client-cert-auth", "extra"],
            "'extra' is not a valid flag",
        ),
        (
            &["--listen-client-urls=http://127.0.0.1:1234", "--data-dir=d"],
            "advertise-client-urls",
        ),
        (&["--data-dir"], "data-dir"),
    ] {
        let output = run(arguments);
        assert!(
            output.status.code().is_some_and(|code| code != 0),
            "{arguments:?}"
        );
        let text = both(&output);
        // etcd does not always say why on its way out.
        assert!(
            is_reference() || text.contains(reason),
            "{arguments:?}: {text}"
        );
    }
}

#[test]
fn an_unknown_flag_is_answered_with_the_nearest() {
    holdfast_only!();
    let text = both(&run(&["--listen-client-url=http://127.0.0.1:1"]));
    assert!(text.contains("listen-client-urls"), "{text}");
    let text = both(&run(&["--quota-backend-byte", "5"]));
    assert!(text.contains("quota-backend-bytes"), "{text}");
}

#[test]
fn print_config_names_the_origin_of_each_value() {
    holdfast_only!();
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(server_binary())
        .env_clear()
        .env("ETCD_MAX_TXN_OPS", "77")
        .current_dir(folder.path())
        .args(["--print-config", "--quota-backend-bytes=12345"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", both(&output));
    let text = String::from_utf8(output.stdout).unwrap();
    let line = |name: &str| {
        let found = text.lines().find(|line| line.contains(name));
        found
            .unwrap_or_else(|| panic!("no {name} in {text}"))
            .to_owned()
    };
    let flag = line("quota-backend-bytes");
    assert!(flag.contains("12345") && flag.contains("flag"), "{flag}");
    let environment = line("max-txn-ops");
    assert!(
        environment.contains("77") && environment.contains("ETCD_MAX_TXN_OPS"),
        "{environment}"
    );
    assert!(line("max-request-bytes").contains("default"));
    assert_eq!(
        fs::read_dir(folder.path()).unwrap().count(),
        0,
        "it only prints"
    );
}

#[tokio::test]
async fn readiness_is_a_log_line_of_json() {
    let mut server = Server::start();
    let raw = server.raw().await;
    raw.put(put("a", "1")).await.unwrap();
    let exit = server.terminate();
    let lines: Vec<_> = exit
        .log
        .iter()
        .filter(|line| line.starts_with('{'))
        .collect();
    assert!(!lines.is_empty());
    for line in &lines {
        let json: serde_json::Value = serde_json::from_str(line).unwrap();
        for field in ["level", "ts", "caller", "msg"] {
            assert!(json[field].is_string(), "{field} of {line}");
        }
        let ts = json["ts"].as_str().unwrap();
        assert!(ts.len() >= 20 && ts.as_bytes()[10] == b'T', "{ts}");
        let level = json["level"].as_str().unwrap();
        assert!(
            ["debug", "info", "warn", "error"].contains(&level),
            "{line}"
        );
        if !is_reference() {
            assert_ne!(level, "error", "normal life has no errors: {line}");
        }
        assert!(!line.contains('\u{1b}'), "no colours");
    }
    let ready = lines
        .iter()
        .filter(|line| line.contains("ready to serve client requests"))
        .count();
    assert_eq!(ready, 1, "once for each client listener");
    if !is_reference() {
        assert_eq!(
            lines.len(),
            exit.log.len(),
            "nothing but JSON: {:?}",
            exit.log
        );
    }
}

#[tokio::test]
async fn sigterm_and_sigint_stop_in_order() {
    for signal in [rustix::process::Signal::TERM, rustix::process::Signal::INT] {
        let mut server = Server::start();
        let raw = server.raw().await;
        raw.put(put("a", "1")).await.unwrap();
        let term = raw.status().await.unwrap().raft_term;
        let started = std::time::Instant::now();
        server.signal(signal);
        let status = server.wait_exit(Duration::from_secs(10)).expect("it ends");
        let took = started.elapsed();
        if !is_reference() {
            assert!(
                took < Duration::from_millis(1_500),
                "{signal:?} took {took:?}"
            );
            assert_eq!(status.code(), Some(0));
        }
        server.restart();
        let raw = server.raw().await;
        assert_eq!(values(&raw.range(get("a")).await.unwrap()), ["1"]);
        assert_eq!(
            raw.status().await.unwrap().raft_term,
            term + 1,
            "a restart costs one term"
        );
    }
}

#[tokio::test]
async fn open_streams_do_not_hold_up_the_stop() {
    holdfast_only!();
    let mut server = Server::start();
    let raw = server.raw().await;
    let (mut watch, _) = holdfast_tests::RawWatch::on(&raw, holdfast_tests::watch_key("a")).await;
    let silent = std::net::TcpStream::connect(("127.0.0.1", server.port())).unwrap();
    let exit = server.terminate();
    assert!(exit.took < Duration::from_millis(1_500), "{:?}", exit.took);
    let end = holdfast_tests::soon("the end of the stream", watch.message()).await;
    assert!(
        end.is_err()
            || end.is_ok_and(
                |answer| answer.is_none() || answer.is_some_and(|answer| answer.canceled)
            )
    );
    drop(silent);
}

#[tokio::test]
async fn a_restart_keeps_everything() {
    let mut server = Server::start();
    let raw = server.raw().await;
    for index in 0..500 {
        raw.put(put(&format!("k{}", index % 50), &index.to_string()))
            .await
            .unwrap();
    }
    let before = raw.range(holdfast_tests::wire::everything()).await.unwrap();
    let hash = raw.hash_kv(0).await.unwrap().hash;
    for kill in [true, false, true, true] {
        if kill {
            server.kill();
        } else {
            server.terminate();
        }
        server.restart();
        let raw = server.raw().await;
        let after = raw.range(holdfast_tests::wire::everything()).await.unwrap();
        assert_eq!((after.kvs, after.count), (before.kvs.clone(), 50));
        assert_eq!(raw.revision().await, 501);
        assert_eq!(raw.hash_kv(0).await.unwrap().hash, hash);
    }
}

#[test]
fn a_second_process_on_the_directory_is_refused() {
    holdfast_only!();
    let server = Server::start();
    let exit = Server::refusal(ServerOptions::new().data(server.data_dir()));
    assert!(exit.failed(), "{exit:#?}");
    assert!(
        exit.says(&server.data_dir().display().to_string()) && exit.says("another process"),
        "{exit:#?}"
    );
}

#[test]
fn a_directory_of_a_newer_version_is_refused_untouched() {
    holdfast_only!();
    let mut server = Server::start();
    server.terminate();
    let file = server.data_dir().join("FORMAT");
    let text = fs::read_to_string(&file).unwrap();
    let newer: String = text
        .chars()
        .map(|c| if c.is_ascii_digit() { '9' } else { c })
        .collect();
    fs::write(&file, &newer).unwrap();
    let before = contents(&server.data_dir());
    let exit = server.try_restart().expect_err("a newer format");
    assert!(exit.failed(), "{exit:#?}");
    assert!(exit.says("format 9"), "{exit:#?}");
    assert_eq!(contents(&server.data_dir()), before);
    fs::write(&file, text).unwrap();
    server.restart();
}

#[test]
fn a_directory_without_its_identity_is_refused_untouched() {
    holdfast_only!();
    let mut server = Server::start();
    server.terminate();
    let file = server.data_dir().join("identity");
    let kept = fs::read(&file).unwrap();
    fs::remove_file(&file).unwrap();
    let before = contents(&server.data_dir());
    let exit = server.try_restart().expect_err("nobody knows who it is");
    assert!(
        exit.failed() && exit.says("identity, is missing"),
        "{exit:#?}"
    );
    assert_eq!(contents(&server.data_dir()), before);
    fs::write(&file, kept).unwrap();
    server.restart();
}

/// The names and sizes of all files below a directory, without the lock.
fn contents(folder: &Path) -> Vec<(String, u64)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let path = entry.path();
        if path.is_dir() {
            found.extend(contents(&path));
        } else if entry.file_name() != "LOCK" {
            found.push((path.display().to_string(), entry.metadata().unwrap().len()));
        }
    }
    found.sort();
    found
}

fn refused_for(exit: &Exit, path: &Path) {
    assert!(exit.failed(), "{exit:#?}");
    assert!(
        exit.says(&path.display().to_string()),
        "the log names {}: {exit:#?}",
        path.display()
    );
    assert!(!exit.says("panicked"), "{exit:#?}");
}

#[test]
fn directories_that_can_not_be_used_are_named() {
    holdfast_only!();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "x").unwrap();
    refused_for(
        &Server::refusal(ServerOptions::new().data(file.clone())),
        &file,
    );
    let foreign = folder.path().join("foreign");
    fs::create_dir(&foreign).unwrap();
    fs::write(foreign.join("thesis.txt"), "years of work").unwrap();
    refused_for(
        &Server::refusal(ServerOptions::new().data(foreign.clone())),
        &foreign,
    );
    assert_eq!(
        fs::read_to_string(foreign.join("thesis.txt")).unwrap(),
        "years of work"
    );
    assert_eq!(fs::read_dir(&foreign).unwrap().count(), 1, "untouched");
    let etcds = folder.path().join("etcds");
    fs::create_dir_all(etcds.join("member/wal")).unwrap();
    fs::create_dir_all(etcds.join("member/snap")).unwrap();
    refused_for(
        &Server::refusal(ServerOptions::new().data(etcds.clone())),
        &etcds,
    );
}

#[test]
fn a_read_only_directory_is_refused() {
    holdfast_only!();
    let folder = tempfile::tempdir().unwrap();
    let locked = folder.path().join("locked");
    fs::create_dir(&locked).unwrap();
    fs::set_permissions(&locked, fs::Permissions::from_mode(0o500)).unwrap();
    let data = locked.join("data");
    if fs::create_dir(&data).is_ok() {
        // Whoever runs as root is not held back by a mode; /proc holds back everyone.
        let data = Path::new("/proc/holdfast-test").to_owned();
        refused_for(
            &Server::refusal(ServerOptions::new().data(data.clone())),
            &data,
        );
        return;
    }
    refused_for(
        &Server::refusal(ServerOptions::new().data(data.clone())),
        &data,
    );
    fs::set_permissions(&locked, fs::Permissions::from_mode(0o700)).unwrap();
}

#[tokio::test]
async fn the_data_directory_is_private() {
    let server = Server::start();
    let mode = fs::metadata(server.data_dir())
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o700);
}
