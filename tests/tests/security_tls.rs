//! Certificates that should not get in, on every listener, and certificates that say who somebody is.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "test code: a panic is the report of a failure"
)]

mod security;

use holdfast_certs::{
    Issued,
    testing::{TestCa, TestCrl, TestLeaf},
};
use holdfast_tests::{
    PATIENCE, Raw, RawWatch, eventually, holdfast_only, skip_without, soon, watch_key,
    watch_prefix, wire::put, within,
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use security::{Dial, Secured, Site, dial};
use std::{
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant, SystemTime},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// The certificate opens neither listener, for HTTP/1.1 and gRPC, and the server says for which reason.
async fn refused_everywhere(secured: &Secured<'_>, shown: &Issued, reason: &str) {
    let shown = Some(shown);
    let before = secured.failed_handshakes("certificate").await;
    let mark = secured.server.log().len();
    for (listener, dial) in [
        ("clients", secured.http(shown)),
        ("metrics", secured.metrics_http(shown)),
    ] {
        for page in ["/version", "/health", "/metrics"] {
            let refused = security::get(&dial, page).await;
            let refused = refused.expect_err(listener);
            assert!(refused.contains("alert"), "{listener}: {refused}");
        }
    }
    // With TLS 1.3 the refusal may come after the client's side of the handshake is done.
    if let Ok(raw) = secured.try_raw(shown).await {
        raw.auth_status().await.expect_err("gRPC");
    }
    let counted = secured.failed_handshakes("certificate").await - before;
    assert_eq!(counted, 7.0, "refused certificates");
    let lines = secured.server.log().lines();
    let said = lines[mark..]
        .iter()
        .filter(|line| line.contains("client certificate refused"));
    // Of many in a second only some are written.
    for line in said {
        assert!(line.contains(reason), "not for {reason:?}: {line}");
    }
}

/// The certificate opens both listeners.
async fn accepted_everywhere(secured: &Secured<'_>, shown: &Issued) {
    for dial in [secured.http(Some(shown)), secured.metrics_http(Some(shown))] {
        assert_eq!(security::get(&dial, "/version").await.unwrap().status, 200);
    }
    secured.raw(shown).await.auth_status().await.unwrap();
}

/// A server of profile `strict` refuses what `make` makes, and goes on to serve others.
async fn refuses(reason: &str, make: impl Fn(&Site) -> Issued) {
    let site = Site::new();
    let secured = site.strict(&[]);
    let good = site.client("root");
    accepted_everywhere(&secured, &good).await;
    refused_everywhere(&secured, &make(&site), reason).await;
    // The log comes through a pipe, later than the answer.
    let said = secured.server.log().wait_after(0, reason, PATIENCE);
    assert!(said.is_some(), "{reason:?} in the log");
    accepted_everywhere(&secured, &good).await;
}

#[tokio::test]
async fn no_certificate_opens_no_listener() {
    holdfast_only!();
    let site = Site::new();
    let secured = site.strict(&[]);
    for dial in [secured.http(None), secured.metrics_http(None)] {
        security::get(&dial, "/version").await.unwrap_err();
        security::get(&dial, "/metrics").await.unwrap_err();
    }
    if let Ok(raw) = secured.try_raw(None).await {
        raw.auth_status().await.unwrap_err();
    }
    // Nor does plaintext.
    for port in [secured.port, secured.metrics_port] {
        let answer = security::get(&Dial::plain(port), "/version").await;
        assert!(answer.is_err_and(|text| !text.contains("HTTP")));
    }
}

#[tokio::test]
async fn a_wrong_ca_opens_no_listener() {
    holdfast_only!();
    let stranger = |_: &Site| {
        let ca = TestCa::new("another CA").unwrap();
        ca.issue(&TestLeaf::client("root")).unwrap()
    };
    refuses("not issued by a trusted CA", stranger).await;
}

#[tokio::test]
async fn a_ca_of_the_same_name_with_another_key_opens_no_listener() {
    holdfast_only!();
    let forged = |_: &Site| {
        let ca = TestCa::new("the clients' CA").unwrap();
        ca.issue(&TestLeaf::client("root")).unwrap()
    };
    refuses("wrong signature", forged).await;
}

#[tokio::test]
async fn an_expired_certificate_opens_no_listener() {
    holdfast_only!();
    refuses("expired on", |site| {
        site.issue(&TestLeaf::client("root").expired())
    })
    .await;
}

#[tokio::test]
async fn a_certificate_of_tomorrow_opens_no_listener() {
    holdfast_only!();
    let leaf = TestLeaf::client("root").not_yet_valid();
    refuses("not valid before", |site| site.issue(&leaf)).await;
}

#[tokio::test]
async fn a_server_or_peer_certificate_is_no_client() {
    holdfast_only!();
    let leaf = TestLeaf {
        client_auth: false,
        server_auth: true,
        ..TestLeaf::client("root")
    };
    refuses("not for client authentication", |site| site.issue(&leaf)).await;
}

#[tokio::test]
async fn a_certificate_without_a_purpose_is_no_client_in_strict() {
    holdfast_only!();
    let leaf = TestLeaf {
        client_auth: false,
        ..TestLeaf::client("root")
    };
    refuses("not for client authentication", |site| site.issue(&leaf)).await;
}

#[tokio::test]
async fn a_ca_certificate_is_no_client() {
    holdfast_only!();
    let leaf = TestLeaf {
        is_ca: true,
        ..TestLeaf::client("root")
    };
    refuses("a CA certificate", |site| site.issue(&leaf)).await;
    refuses("a CA certificate", |site| site.ca.itself()).await;
}

#[tokio::test]
async fn two_uri_names_open_no_listener() {
    holdfast_only!();
    let leaf = TestLeaf {
        uris: ["alice", "bob"]
            .map(|user| format!("spiffe://x/tenant/default/user/{user}"))
            .into(),
        ..TestLeaf::client("root")
    };
    refuses("several URI names", |site| site.issue(&leaf)).await;
}

#[tokio::test]
async fn two_common_names_open_no_listener() {
    holdfast_only!();
    let leaf = TestLeaf {
        second_common_name: "root".to_owned(),
        ..TestLeaf::client("alice")
    };
    refuses("several common names", |site| site.issue(&leaf)).await;
}

#[tokio::test]
async fn only_listed_common_names_open_a_listener() {
    holdfast_only!();
    let site = Site::new();
    let secured = site.start(&["--client-cert-allowed-cn=alice"]);
    let alice = site.client("alice");
    accepted_everywhere(&secured, &alice).await;
    for name in ["bob", "Alice", "alice2", ""] {
        let shown = site.client(name);
        for dial in [
            secured.http(Some(&shown)),
            secured.metrics_http(Some(&shown)),
        ] {
            let refused = security::get(&dial, "/version").await;
            assert!(refused.is_err(), "{name:?}: {refused:?}");
        }
    }
}

/// A ClientHello of a client that knows nothing newer than TLS 1.2 (RFC 5246).
fn hello_of_tls_1_2() -> Vec<u8> {
    let extensions = [
        &[0, 10, 0, 6, 0, 4, 0, 29, 0, 23][..], // groups: x25519, secp256r1
        &[0, 11, 0, 2, 1, 0],                   // uncompressed points
        &[0, 13, 0, 8, 0, 6, 4, 3, 8, 4, 4, 1], // signatures: ECDSA, RSA-PSS, RSA
        &[0, 23, 0, 0],                         // extended master secret
    ]
    .concat();
    let suites = [0xc0, 0x2b, 0xc0, 0x2f, 0xc0, 0x2c, 0xc0, 0x30];
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    body.extend([0, 0, suites.len() as u8]);
    body.extend(suites);
    body.extend([1, 0, 0, extensions.len() as u8]);
    body.extend(extensions);
    let mut hello = vec![22, 3, 1, 0, body.len() as u8 + 4, 1, 0, 0, body.len() as u8];
    hello.extend(body);
    hello
}

#[tokio::test]
async fn tls_1_2_is_refused_on_every_listener_unless_allowed() {
    holdfast_only!();
    let site = Site::new();
    const ALERT: u8 = 21;
    const PROTOCOL_VERSION: u8 = 70;
    const HANDSHAKE: u8 = 22;
    for (flags, allowed) in [(vec![], false), (vec!["--tls-min-version=TLS1.2"], true)] {
        let secured = site.strict(&flags);
        for port in [secured.port, secured.metrics_port] {
            let mut socket = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
            socket.write_all(&hello_of_tls_1_2()).await.unwrap();
            let mut head = [0; 7];
            soon("an answer", socket.read_exact(&mut head))
                .await
                .unwrap();
            if allowed {
                assert_eq!(head[0], HANDSHAKE, "{head:?}");
            } else {
                assert_eq!((head[0], head[6]), (ALERT, PROTOCOL_VERSION), "{head:?}");
            }
        }
    }
}

/// `openssl s_client` with a request on its standard input; gives all it said.
fn s_client(site: &Site, port: u16, arguments: &[&str]) -> String {
    let at = |name: &str| site.path(name).display().to_string();
    let line = format!(
        "printf 'GET /version HTTP/1.1\\r\\nHost: 127.0.0.1\\r\\nConnection: close\\r\\n\\r\\n' | \
         openssl s_client -connect 127.0.0.1:{port} -CAfile {} -cert {} -key {} -ign_eof {}",
        at("ca.crt"),
        at("held.crt"),
        at("held.key"),
        arguments.join(" ")
    );
    let output = Command::new("sh")
        .args(["-c", &line])
        .stdin(Stdio::null())
        .output();
    let output = output.unwrap();
    let text = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8_lossy(&text).into_owned()
}

/// What is in `certs/tests/protocol.rs` for the library, with another's client: no session is resumed, so none outlives a revocation.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_from_before_the_revocation_opens_no_listener() {
    holdfast_only!();
    if Command::new("openssl").arg("version").output().is_err() {
        skip_without("openssl on PATH");
        return;
    }
    let site = Site::new();
    site.revoke(&TestCrl::of(&[]));
    let list = format!("--client-crl-file={}", site.path("list.crl").display());
    let secured = site.strict(&["--tls-min-version=TLS1.2", &list]);
    let held = site.client("root");
    held.write(Path::new(&site.path("")), "held").unwrap();
    let mut sessions = Vec::new();
    for (port, version) in [
        (secured.port, "-tls1_3"),
        (secured.port, "-tls1_2"),
        (secured.metrics_port, "-tls1_3"),
        (secured.metrics_port, "-tls1_2"),
    ] {
        let file = site.path(&format!("session-{port}{version}"));
        let first = s_client(
            &site,
            port,
            &[version, "-sess_out", &file.display().to_string()],
        );
        assert!(first.contains("200 OK"), "{first}");
        sessions.push((port, version, file));
    }
    let resume = |port: u16, version: &str, file: &Path| {
        let name = file.display().to_string();
        // Without a ticket and a session id there is nothing to save, and nothing to resume.
        if file.exists() {
            s_client(&site, port, &[version, "-sess_in", &name])
        } else {
            s_client(&site, port, &[version])
        }
    };
    for (port, version, file) in &sessions {
        let second = resume(*port, version, file);
        assert!(!second.contains("Reused,"), "{version}: {second}");
        assert!(second.contains("200 OK"), "{version}: {second}");
    }
    site.revoke(&TestCrl::of(&[&held]));
    let refused = || async { secured.page(Some(&held), "/version").await.err() };
    eventually(PATIENCE, "the revocation is in force", refused).await;
    for (port, version, file) in &sessions {
        let third = resume(*port, version, file);
        assert!(!third.contains("200 OK"), "{version}: {third}");
        assert!(!third.contains("Reused,"), "{version}: {third}");
    }
}

#[tokio::test]
async fn cve_2026_59818_a_revoked_certificate_is_refused_on_every_listener() {
    holdfast_only!();
    let site = Site::new();
    let alice = site.client("alice");
    site.revoke(&TestCrl::of(&[&alice]));
    let list = format!("--client-crl-file={}", site.path("list.crl").display());
    let secured = site.strict(&[&list]);
    refused_everywhere(&secured, &alice, "revoked").await;
    // Another certificate of the same holder, with the same key even, is not revoked.
    let again = TestLeaf {
        key_pem: Some(alice.key_pem.clone()),
        ..TestLeaf::client("alice")
    };
    accepted_everywhere(&secured, &site.issue(&again)).await;
}

/// A connection of HTTP/1.1 that has had an answer and stays open.
async fn kept_open(dial: &Dial) -> dial::Io {
    let mut io = dial.open().await.unwrap();
    io.write_all(b"GET /version HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        .await
        .unwrap();
    let mut seen = Vec::new();
    while !seen.ends_with(b"}") {
        let byte = soon("an answer", io.read_u8()).await.unwrap();
        seen.push(byte);
    }
    io
}

/// Waits for the end of a watch that nobody cancels; gives when it came.
async fn cut(mut watch: RawWatch) -> Instant {
    let end = soon("the end of the watch", async {
        loop {
            match watch.message().await {
                Ok(Some(answer)) => assert!(!answer.canceled, "{answer:?}"),
                other => return other,
            }
        }
    });
    assert!(!matches!(end.await, Ok(Some(_))));
    Instant::now()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cve_2026_59818_a_reloaded_list_ends_live_connections() {
    holdfast_only!();
    let site = Site::new();
    site.revoke(&TestCrl::of(&[]));
    let list = format!("--client-crl-file={}", site.path("list.crl").display());
    let secured = site.strict(&[&list]);
    let root = secured.root().await;
    let (alice, bob) = (site.client("alice"), site.client("bob"));
    secured.add_user(&root, "alice", "a", "").await;
    secured.add_user(&root, "bob", "b", "").await;
    let raw = secured.raw(&alice).await;
    let (watch, _) = RawWatch::on(&raw, watch_key("a")).await;
    let other = secured.raw(&bob).await;
    let (mut kept, _) = RawWatch::on(&other, watch_key("b")).await;
    let mut page = kept_open(&secured.metrics_http(Some(&alice))).await;
    let mut client_page = kept_open(&secured.http(Some(&alice))).await;
    raw.put(put("a", "1")).await.unwrap();
    site.revoke(&TestCrl::of(&[&alice]));
    cut(watch).await;
    dial::ends(&mut page, PATIENCE).await;
    dial::ends(&mut client_page, PATIENCE).await;
    raw.put(put("a", "2")).await.unwrap_err();
    refused_everywhere(&secured, &alice, "revoked").await;
    // Nobody else notices.
    other.put(put("b", "1")).await.unwrap();
    assert_eq!(kept.events(1).await.len(), 1);
    // Back from the list, the same certificate is good again.
    site.revoke(&TestCrl::of(&[]));
    let accepted = || async { secured.page(Some(&alice), "/version").await.ok() };
    eventually(PATIENCE, "the new list is in force", accepted).await;
}

#[tokio::test]
async fn a_list_past_its_next_update_vouches_for_nobody_in_strict() {
    holdfast_only!();
    let site = Site::new();
    let (alice, revoked) = (site.client("root"), site.client("root"));
    site.revoke(&TestCrl::of(&[&revoked]).outdated());
    let list = format!("--client-crl-file={}", site.path("list.crl").display());
    let secured = site.strict(&[&list]);
    for shown in [&alice, &revoked] {
        for dial in [secured.http(Some(shown)), secured.metrics_http(Some(shown))] {
            security::get(&dial, "/version").await.unwrap_err();
        }
    }
    site.revoke(&TestCrl::of(&[&revoked]));
    let accepted = || async { secured.page(Some(&alice), "/version").await.ok() };
    eventually(PATIENCE, "the fresh list is in force", accepted).await;
    refused_everywhere(&secured, &revoked, "revoked").await;
    drop(secured);
    // As etcd does, profile `etcd` goes on with an old list; what it revokes stays revoked.
    site.revoke(&TestCrl::of(&[&revoked]).outdated());
    let secured = site.start(&[&list, "--profile=etcd"]);
    accepted_everywhere(&secured, &alice).await;
    refused_everywhere(&secured, &revoked, "revoked").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_of_a_certificate_ends_its_connections() {
    holdfast_only!();
    let site = Site::new();
    let secured = site.strict(&[]);
    let life = Duration::from_secs(4);
    let not_after = SystemTime::now() + life;
    let short = site.issue(&TestLeaf {
        not_after,
        ..TestLeaf::client("root")
    });
    let raw = secured.raw(&short).await;
    let (watch, _) = RawWatch::on(&raw, watch_prefix("a")).await;
    let mut page = kept_open(&secured.metrics_http(Some(&short))).await;
    raw.put(put("a", "1")).await.unwrap();
    cut(watch).await;
    // Certificates count whole seconds.
    let early = not_after
        .duration_since(SystemTime::now())
        .unwrap_or_default();
    assert!(early <= Duration::from_secs(1), "{early:?} too early");
    dial::ends(&mut page, PATIENCE).await;
    raw.put(put("a", "2")).await.unwrap_err();
    let refused = || async { secured.page(Some(&short), "/version").await.err() };
    eventually(PATIENCE, "the certificate opens nothing more", refused).await;
    secured.root().await.put(put("a", "3")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cve_2026_73500_clients_that_never_say_hello_cost_nobody() {
    holdfast_only!();
    const SOCKETS: usize = 2_000;
    const MIB: u64 = 1 << 20;
    let limit = getrlimit(Resource::Nofile);
    let current = limit.maximum;
    setrlimit(Resource::Nofile, Rlimit { current, ..limit }).unwrap();
    let site = Site::new();
    let secured = site.start(&["--profile=etcd"]);
    let good = site.client("root");
    let before = holdfast_tests::rss_bytes(secured.server.pid());
    let hello = hello_of_tls_1_2();
    let mut silent = Vec::new();
    for index in 0..SOCKETS {
        let mut socket = TcpStream::connect(("127.0.0.1", secured.port))
            .await
            .unwrap();
        if index % 2 == 1 {
            // Half of a hello, and silence then.
            let _ = socket.write_all(&hello[..hello.len() / 2]).await;
        }
        silent.push(socket);
    }
    for round in 0..5 {
        let started = Instant::now();
        let raw = within(Duration::from_secs(5), "a connection", secured.raw(&good)).await;
        raw.put(put("a", &round.to_string())).await.unwrap();
        let took = started.elapsed();
        assert!(took < Duration::from_secs(2), "{took:?}");
    }
    let grown = holdfast_tests::peak_rss_bytes(secured.server.pid()).saturating_sub(before);
    eprintln!("2,000 silent sockets: {} MiB more", grown / MIB);
    assert!(grown < 128 * MIB, "{} MiB", grown / MIB);
    // None is kept for ever.
    let mut cut = tokio::task::JoinSet::new();
    for mut socket in silent {
        cut.spawn(async move {
            let mut rest = Vec::new();
            let _ = socket.read_to_end(&mut rest).await;
        });
    }
    let limit = Duration::from_secs(60);
    within(limit, "the server closes all of them", cut.join_all()).await;
}

#[tokio::test]
async fn one_source_cannot_have_all_connections() {
    holdfast_only!();
    let site = Site::new();
    let secured = site.strict(&["--max-connections-per-source=5"]);
    let root = site.client("root");
    let tls = || site.tls(Some(&root), "h2");
    let from = |host: u8| Dial::tls(secured.port, tls()).from([127, 0, 0, host]);
    let mut held: Vec<Raw> = Vec::new();
    for _ in 0..5 {
        let raw = from(3).raw().await.unwrap();
        raw.status().await.unwrap();
        held.push(raw);
    }
    for _ in 0..3 {
        if let Ok(raw) = from(3).raw().await {
            raw.status().await.unwrap_err();
        }
    }
    for raw in &held {
        raw.status().await.unwrap();
    }
    from(4).raw().await.unwrap().status().await.unwrap();
    // A place that was left can be had again.
    held.pop();
    let taken = || async {
        let raw = from(3).raw().await.ok()?;
        raw.status().await.ok().map(|_| raw)
    };
    eventually(PATIENCE, "a place", taken).await;
}
