//! The ways in which supervisors and old unit files configure a server, and what they hear from it (behaviour §4.1, §6).

use holdfast_tests::{
    Server, ServerOptions, eventually, free_port, server_binary,
    wire::{get, put},
};
use std::{
    fs,
    os::unix::net::UnixDatagram,
    process::{Command, Stdio},
    time::Duration,
};

#[tokio::test]
async fn the_log_level_and_outputs_are_flags() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("server.log");
    let options = ServerOptions::new()
        .flag(format!("--log-outputs=stderr,{}", file.display()))
        .flag("--log-level=debug");
    let server = Server::start_with(options);
    eventually(
        Duration::from_secs(10),
        "the same lines in the file",
        || async {
            let text = fs::read_to_string(&file).unwrap_or_default();
            text.contains("ready to serve client requests")
                .then_some(())
        },
    )
    .await;
    drop(server);
}

#[tokio::test]
async fn an_environment_file_is_enough() {
    let (client, peer) = (free_port(), free_port());
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let file = format!(
        "# as a unit's EnvironmentFile holds them\nETCD_NAME=node1\nETCD_DATA_DIR={}\nETCD_LISTEN_CLIENT_URLS=http://127.0.0.1:{client}\n\
         ETCD_ADVERTISE_CLIENT_URLS=http://127.0.0.1:{client}\nETCD_LISTEN_PEER_URLS=http://127.0.0.1:{peer}\n\
         ETCD_INITIAL_ADVERTISE_PEER_URLS=http://127.0.0.1:{peer}\nETCD_INITIAL_CLUSTER=node1=http://127.0.0.1:{peer}\n\
         ETCD_INITIAL_CLUSTER_STATE=new\nETCD_INITIAL_CLUSTER_TOKEN=token\nETCD_SNAPSHOT_COUNT=10000\nETCD_MAX_TXN_OPS=3\n\
         ETCD_UNKNOWN_SETTING=1\nETCD_UNSUPPORTED_ARCH=arm\n",
        data.display()
    );
    let variables = file
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_once('='));
    let mut child = Command::new(server_binary())
        .env_clear()
        .envs(variables)
        .current_dir(folder.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let log = holdfast_tests::Log::default();
    log.follow(child.stderr.take().unwrap());
    let ready = log.wait_after(0, "ready to serve client requests", Duration::from_secs(60));
    let outcome = match ready {
        None => Err(log.tail(30)),
        Some(_) => {
            let raw = holdfast_tests::Raw::connect(&format!("http://127.0.0.1:{client}")).await;
            let ops =
                holdfast_tests::wire::always(vec![holdfast_tests::wire::IntoOp::op(get("a")); 4]);
            Ok((
                raw.put(put("a", "1")).await.is_ok(),
                raw.txn(ops).await.is_err(),
            ))
        }
    };
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(
        outcome,
        Ok((true, true)),
        "serves, with the limit of the file"
    );
    assert!(data.is_dir());
}

#[tokio::test]
async fn a_config_file_is_enough() {
    let (client, peer) = (free_port(), free_port());
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let file = folder.path().join("etcd.yaml");
    let text = format!(
        "name: node1\ndata-dir: {}\nlisten-client-urls: http://127.0.0.1:{client}\nadvertise-client-urls: http://127.0.0.1:{client}\n\
         listen-peer-urls: http://127.0.0.1:{peer}\ninitial-advertise-peer-urls: http://127.0.0.1:{peer}\n\
         initial-cluster: node1=http://127.0.0.1:{peer}\ninitial-cluster-state: new\nmax-txn-ops: 3\n",
        data.display()
    );
    fs::write(&file, text).unwrap();
    let mut child = Command::new(server_binary())
        .env_clear()
        .current_dir(folder.path())
        .arg(format!("--config-file={}", file.display()))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let log = holdfast_tests::Log::default();
    log.follow(child.stderr.take().unwrap());
    let ready = log.wait_after(0, "ready to serve client requests", Duration::from_secs(60));
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(ready.is_some(), "{}", log.tail(30));
    assert!(data.is_dir());
}

#[tokio::test]
async fn the_flags_that_wrappers_give_are_taken() {
    let options = ServerOptions::new()
        .flag("--initial-cluster-token=etcd-cluster-1")
        .flag("--initial-cluster-state=new")
        .flag("--snapshot-count=10000")
        .flag("--strict-reconfig-check=false")
        .flag("--quota-backend-bytes=8589934592")
        .flag("--heartbeat-interval=100")
        .flag("--election-timeout=1000")
        .flag("--max-snapshots=5")
        .flag("--max-wals=5")
        .flag("--auto-compaction-retention=1")
        .flag("--watch-progress-notify-interval=5s")
        .flag("--feature-gates=InitialCorruptCheck=true")
        .flag("-logger=zap")
        .flag("--enable-pprof=false");
    let server = Server::start_with(options);
    server.raw().await.put(put("a", "1")).await.unwrap();
}

#[tokio::test]
async fn systemd_is_notified_when_clients_are_served() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    let options = ServerOptions::new().env("NOTIFY_SOCKET", path.to_str().unwrap());
    let server = Server::start_with(options);
    let mut heard = String::new();
    while !heard.lines().any(|line| line == "READY=1") {
        let mut message = [0; 4096];
        let size = socket.recv(&mut message).expect("READY=1 is sent");
        heard.push_str(std::str::from_utf8(&message[..size]).unwrap());
        heard.push('\n');
    }
    server.raw().await.put(put("a", "1")).await.unwrap();
}
