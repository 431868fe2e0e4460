//! The quick start: a bare `holdfast` that one can talk to with the lines it prints.
//!
//! It listens on etcd's own ports; where something else has them, the test is skipped.

#![expect(
    clippy::unwrap_used,
    reason = "test code: a panic is the report of a failure"
)]

use holdfast_tests::{Log, eventually, holdfast_only, server_binary, skip_without};
use std::{
    env,
    net::TcpListener,
    path::Path,
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn shell(folder: &Path, line: &str) -> Output {
    Command::new("sh")
        .args(["-c", line])
        .current_dir(folder)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn is_on_path(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

#[tokio::test]
async fn the_printed_lines_work() {
    holdfast_only!();
    if [2379, 2380]
        .iter()
        .any(|port| TcpListener::bind(("127.0.0.1", *port)).is_err())
    {
        eprintln!("skipped: something else listens on etcd's ports");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut child = Command::new(server_binary())
        .env_clear()
        .env("PATH", env::var_os("PATH").unwrap_or_default())
        .current_dir(folder.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (shown, log) = (Log::default(), Log::default());
    shown.follow(child.stdout.take().unwrap());
    log.follow(child.stderr.take().unwrap());
    let _running = Running(child);
    let ready = log.wait_after(0, "ready to serve client requests", Duration::from_secs(60));
    assert!(ready.is_some(), "{}", log.tail(30));
    let last = shown.wait_after(0, "holdfastctl", Duration::from_secs(10));
    assert!(last.is_some(), "no lines to copy: {:?}", shown.lines());
    eventually(Duration::from_secs(10), "all lines", || async {
        let copied = |line: &String| line.contains("etcdctl ") || line.contains("holdfastctl ");
        let found = shown.lines().iter().filter(|line| copied(line)).count();
        (found >= 6).then_some(())
    })
    .await;
    let lines = |program: &str| -> Vec<String> {
        let both = shown.lines().into_iter().chain(log.lines());
        both.map(|line| line.trim().to_owned())
            .filter(|line| line.starts_with(&format!("{program} ")))
            .collect()
    };
    assert_eq!(
        (lines("etcdctl").len(), lines("holdfastctl").len()),
        (3, 3),
        "{:?}",
        shown.lines()
    );

    // What the lines say, by a client library.
    let certs = folder.path().join("holdfast-data/certs");
    assert!(certs.is_dir());
    let arguments: Vec<String> = lines("etcdctl")[0]
        .split_whitespace()
        .map(str::to_owned)
        .collect();
    let file = |flag: &str| {
        let at = arguments
            .iter()
            .position(|argument| argument == flag)
            .unwrap();
        std::fs::read(folder.path().join(&arguments[at + 1])).unwrap()
    };
    let ca = || etcd_client::Certificate::from_pem(file("--cacert"));
    let identity = etcd_client::Identity::from_pem(file("--cert"), file("--key"));
    let tls = etcd_client::TlsOptions::new().ca_certificate(ca());
    let with = |tls| {
        etcd_client::ConnectOptions::new()
            .with_tls(tls)
            .with_connect_timeout(Duration::from_secs(5))
    };
    let options = with(tls.clone().identity(identity));
    let mut client = etcd_client::Client::connect(["https://localhost:2379"], Some(options))
        .await
        .unwrap();
    client.put("greeting", "hello", None).await.unwrap();
    let answer = client.get("greeting", None).await.unwrap();
    assert_eq!(answer.kvs()[0].value(), b"hello");

    // Without the certificate, and without TLS, there is nothing to be had.
    for (endpoint, options) in [
        ("https://localhost:2379", Some(with(tls))),
        ("http://localhost:2379", None),
    ] {
        if let Ok(mut stranger) = etcd_client::Client::connect([endpoint], options).await {
            assert!(stranger.get("greeting", None).await.is_err(), "{endpoint}");
        }
    }

    // The lines themselves, where there is an etcdctl.
    if !is_on_path("etcdctl") {
        skip_without("etcdctl on PATH");
        return;
    }
    for line in lines("etcdctl") {
        let output = shell(folder.path(), &format!("ETCDCTL_API=3 {line}"));
        assert!(output.status.success(), "{line}: {output:?}");
        if line.contains(" get ") {
            assert_eq!(String::from_utf8_lossy(&output.stdout), "greeting\nhello\n");
        }
    }
}
