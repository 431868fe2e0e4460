//! The binary against its own do-nothing server, in clear and with certificates on both sides.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use serde_json::Value;
use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
};

const BENCH: &str = env!("CARGO_BIN_EXE_holdfast-bench");

/// A do-nothing server on a free port; stopped when dropped.
struct Noop {
    child: Child,
    address: String,
}

impl Noop {
    fn start(arguments: &[&str]) -> Self {
        let mut child = Command::new(BENCH)
            .args(["noop-server", "--threads", "1"])
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let (_, address) = line
            .trim()
            .rsplit_once("ready to serve client requests on ")
            .unwrap();
        let address = address.to_owned();
        Self { child, address }
    }

    fn load(&self, scheme: &str, arguments: &[&str]) -> (bool, Value) {
        let output = Command::new(BENCH)
            .args(arguments)
            .args(["--json", "--quiet", "--pid", &self.child.id().to_string()])
            .args(["--endpoint", &format!("{scheme}://{}", self.address)])
            .output()
            .unwrap();
        let report = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
        (output.status.success(), report)
    }
}

impl Drop for Noop {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

#[test]
fn a_put_load_reports_as_json() {
    let server = Noop::start(&[]);
    let (success, report) = server.load(
        "http",
        &["put", "--seconds", "0.3", "--warmup", "0.1", "--seed", "7"],
    );
    assert!(success, "{report}");
    assert_eq!(report["load"], "put");
    assert_eq!(report["seed"], 7);
    assert_eq!(report["errors"], 0);
    assert_eq!(report["in_flight"], 100);
    let requests = report["requests"].as_f64().unwrap();
    let rate = report["throughput_per_second"].as_f64().unwrap();
    let seconds = report["seconds"].as_f64().unwrap();
    assert!(requests > 100.0 && seconds >= 0.3, "{report}");
    assert!((rate * seconds / requests - 1.0).abs() < 0.01);
    let latency = |name: &str| report["latency_us"][name].as_f64().unwrap();
    assert!(0.0 < latency("p50") && latency("p50") <= latency("p99"));
    assert!(latency("p99") <= latency("max"));
    assert!(report["server_peak_rss_bytes"].as_u64().unwrap() > 0);
    assert!(report["server_cpu_us_per_request"].is_number());
}

#[test]
fn a_load_by_count_ends_after_it() {
    let server = Noop::start(&[]);
    for load in ["put", "txn", "lease-grant", "lease-keep-alive"] {
        let (success, report) = server.load(
            "http",
            &[
                load,
                "--requests",
                "500",
                "--in-flight",
                "7",
                "--keys",
                "70",
            ],
        );
        assert!(success, "{report}");
        assert_eq!(report["requests"], 500, "{load}");
    }
}

#[test]
fn several_endpoints_share_a_load() {
    let servers = [Noop::start(&[]), Noop::start(&[])];
    let url = |server: &Noop| format!("http://{}", server.address);
    let cpu = |server: &Noop| {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", server.child.id())).unwrap();
        let fields: Vec<_> = stat
            .rsplit_once(')')
            .unwrap()
            .1
            .split_whitespace()
            .collect();
        [11, 12].map(|field: usize| fields[field].parse::<u64>().unwrap())
    };
    let output = Command::new(BENCH)
        .args(["put", "--requests", "20000", "--json", "--quiet"])
        .args(["--endpoint", &servers.each_ref().map(url).join(",")])
        .arg("--pid")
        .arg(
            servers
                .each_ref()
                .map(|server| server.child.id().to_string())
                .join(","),
        )
        .output()
        .unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(output.status.success(), "{report}");
    assert_eq!(report["requests"], 20_000);
    assert_eq!(report["endpoint"], servers.each_ref().map(url).join(","));
    // Twenty thousand answers cost a server more than one tick of 10 ms, half of them as well.
    for server in &servers {
        assert!(cpu(server).iter().sum::<u64>() > 0, "{}", server.address);
    }
}

#[test]
fn mutual_tls_with_made_certificates() {
    let directory = tempfile::tempdir().unwrap();
    let certs = directory.path().join("certs");
    let made = Command::new(BENCH)
        .arg("make-certs")
        .arg(&certs)
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    let file = |name: &str| path(&certs, name);
    let (ca, cert, key) = (file("ca.crt"), file("server.crt"), file("server.key"));
    let server = Noop::start(&[
        "--cert-file",
        &cert,
        "--key-file",
        &key,
        "--trusted-ca-file",
        &ca,
    ]);
    let short = ["get", "--skip-setup", "--requests", "200", "--cacert", &ca];
    let (client, client_key) = (file("client-root.crt"), file("client-root.key"));
    let with_certificate = [&short[..], &["--cert", &client, "--key", &client_key]].concat();
    let (success, report) = server.load("https", &with_certificate);
    assert!(success, "{report}");
    assert_eq!(
        (&report["tls"], &report["requests"]),
        (&Value::Bool(true), &Value::from(200))
    );

    let without = Command::new(BENCH)
        .args(short)
        .args(["--quiet", "--endpoint"])
        .arg(format!("https://{}", server.address))
        .status()
        .unwrap();
    assert!(!without.success());
}

fn path(directory: &Path, name: &str) -> String {
    directory.join(name).into_os_string().into_string().unwrap()
}

#[test]
fn wrong_answers_and_wrong_flags_do_not_pass() {
    let server = Noop::start(&[]);
    // The do-nothing server counts 1,000 keys whatever is asked.
    let (success, report) = server.load(
        "http",
        &["count", "--skip-setup", "--keys", "5000", "--requests", "5"],
    );
    assert!(!success);
    assert_eq!(report["errors"], 5);
    for arguments in [
        &["put", "--secs", "1"][..],
        &["fly"],
        &["put", "--rate", "0"],
        &["put", "--pid", "1,x"],
        &["put", "--endpoint", "http://127.0.0.1:1,nowhere"],
        &["cluster", "--tls", "plain"],
        &["failover", "--holdfast", "x", "--tls", "maybe"],
        &["catchup", "--holdfast", "x", "--writes", "0"],
    ] {
        let status = Command::new(BENCH)
            .args(arguments)
            .stderr(Stdio::null())
            .status()
            .unwrap();
        assert_eq!(status.code(), Some(2), "{arguments:?}");
    }
}
