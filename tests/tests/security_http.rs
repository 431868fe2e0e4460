//! Pages over HTTP: what is open, to whom the rest is, and that nothing else answers.

#![expect(
    clippy::unwrap_used,
    reason = "test code: a panic is the report of a failure"
)]

mod security;

use holdfast_certs::testing::TestLeaf;
use holdfast_proto::etcdserverpb as pb;
use holdfast_tests::{
    Guarded,
    Kind::Readwrite,
    Server, ServerOptions, holdfast_only, password_of,
    wire::{b, get, put, put_leased},
};
use prost::Message;
use security::{Dial, Secured, Site, ask};
use std::net::Ipv4Addr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Pages for everybody.
const OPEN: &[&str] = &[
    "/version",
    "/health",
    "/health?serializable=true",
    "/livez",
    "/livez?verbose",
    "/livez/serializable_read",
    "/readyz",
    "/readyz?verbose",
    "/readyz/data_corruption",
];
/// Pages for users, in profile `strict`.
const CLOSED: &[&str] = &["/metrics", "/debug/vars"];

/// What a listener answers to a page asked for with these headers.
async fn status(dial: &Dial, page: &str, headers: &[(&str, &str)]) -> u16 {
    let mut all = vec![("Host", "127.0.0.1")];
    all.extend_from_slice(headers);
    ask(dial, "GET", page, &all).await.unwrap().status
}

/// What the pages answer to one caller on one listener: the open ones, which must be open, and the others.
async fn expect(what: &str, dial: &Dial, headers: &[(&str, &str)], closed: u16) {
    for page in OPEN {
        assert_eq!(status(dial, page, headers).await, 200, "{what}: {page}");
    }
    for page in CLOSED {
        assert_eq!(status(dial, page, headers).await, closed, "{what}: {page}");
    }
}

async fn with_users(secured: &Secured<'_>) -> String {
    let root = secured.root().await;
    secured.add_user(&root, "alice", "a", "").await;
    root.change_password("alice", "a long password")
        .await
        .unwrap();
    root.authenticate("alice", "a long password").await.unwrap()
}

#[tokio::test]
async fn issue_20580_what_is_open_over_http_is_a_short_list() {
    holdfast_only!();
    let site = Site::new();
    let secured = site.strict(&[]);
    let token = with_users(&secured).await;
    let bearer = format!("Bearer {token}");
    let nobody = secured.http(Some(&site.nobody()));
    expect("nobody", &nobody, &[], 401).await;
    expect("a bad token", &nobody, &[("token", "garbage")], 401).await;
    expect(
        "a bad token",
        &nobody,
        &[("Authorization", "Bearer garbage")],
        401,
    )
    .await;
    expect(
        "basic",
        &nobody,
        &[("Authorization", "Basic cm9vdDpyb290")],
        401,
    )
    .await;
    expect("a token", &nobody, &[("token", &token)], 200).await;
    expect("a token", &nobody, &[("Authorization", &bearer)], 200).await;
    for (name, closed) in [("mallory", 401), ("alice", 200), ("root", 200)] {
        expect(name, &secured.http(Some(&site.client(name))), &[], closed).await;
    }
    let root = secured.http(Some(&site.client("root")));
    expect("two users", &root, &[("token", &token)], 401).await;
    // The listener for metrics is for who scrapes them, whose certificate names no user.
    for name in ["", "mallory", "alice", "root"] {
        let dial = secured.metrics_http(Some(&site.client(name)));
        expect(name, &dial, &[], 200).await;
    }
    // It knows no RPC.
    let tls = site.tls(Some(&site.client("root")), "h2");
    if let Ok(raw) = Dial::tls(secured.metrics_port, tls).raw().await {
        raw.range(get("a")).await.unwrap_err();
        raw.auth_status().await.unwrap_err();
    }
}

#[tokio::test]
async fn in_profile_etcd_all_pages_are_open_as_there() {
    holdfast_only!();
    let site = Site::new();
    let secured = site.start(&["--profile=etcd", "--initial-auth=true"]);
    let token = with_users(&secured).await;
    for name in ["", "mallory", "alice", "root"] {
        let dial = secured.http(Some(&site.client(name)));
        expect(name, &dial, &[], 200).await;
        expect(name, &dial, &[("token", &token)], 200).await;
    }
}

/// Paths at which etcd or others answer, or that might be taken for one of ours.
const NOTHING: &[&str] = &[
    "/",
    "/index.html",
    "/v2/keys",
    "/v2/members",
    "/v2/stats/self",
    "/v3/kv/range",
    "/v3/kv/put",
    "/v3/auth/authenticate",
    "/v3/maintenance/status",
    "/v3/cluster/member/list",
    "/v3beta/kv/range",
    "/v3alpha/kv/range",
    "/debug",
    "/debug/",
    "/debug/pprof",
    "/debug/pprof/",
    "/debug/pprof/heap",
    "/debug/requests",
    "/debug/events",
    "/config/local/log",
    "/raft",
    "/raft/stream",
    "/raft/snapshot",
    "/members",
    "/leases",
    "/leases/internal",
    "/admin",
    "/metrics/",
    "/metrics/x",
    "/METRICS",
    "//metrics",
    "/./metrics",
    "/livez/../metrics",
    "/livez/%2e%2e/metrics",
    "/%6detrics",
    "/metrics%20",
    "/metrics;x",
    "/debug/vars/",
    "/health/",
    "/version/..",
    "/etcdserverpb.KV/Range",
    "/etcdserverpb.Auth/Authenticate",
];

#[tokio::test]
async fn nothing_else_answers() {
    holdfast_only!();
    // The server's own certificate is named root: what went through etcd's gateway was once made in its name (CVE-2018-16886).
    let site = Site::with_server(&TestLeaf {
        common_name: "root".to_owned(),
        client_auth: true,
        ..TestLeaf::server(&["localhost", "127.0.0.1"])
    });
    let secured = site.strict(&[]);
    let token = with_users(&secured).await;
    let root = secured.root().await;
    root.put(put("a", "before")).await.unwrap();
    for (who, dial) in [
        ("nobody", secured.http(Some(&site.nobody()))),
        ("root", secured.http(Some(&site.client("root")))),
        ("metrics", secured.metrics_http(Some(&site.nobody()))),
    ] {
        for path in NOTHING {
            for method in ["GET", "POST", "PUT", "DELETE"] {
                let headers = [("Host", "127.0.0.1"), ("Content-Length", "0")];
                let answer = ask(&dial, method, path, &headers).await.unwrap();
                // What is below a closed page is as closed.
                let nothing = [401, 404].contains(&answer.status);
                assert!(nothing, "{who}: {method} {path}: {answer:?}");
                assert!(!answer.text.contains("etcd_"), "{who}: {method} {path}");
            }
        }
        for page in OPEN.iter().chain(CLOSED) {
            for method in ["POST", "PUT", "DELETE", "PATCH", "TRACE", "PROPFIND"] {
                let headers = [("Host", "127.0.0.1"), ("Content-Length", "0")];
                let answer = ask(&dial, method, page, &headers).await.unwrap();
                assert!(
                    [401, 405].contains(&answer.status),
                    "{who}: {method} {page}: {answer:?}"
                );
            }
        }
    }
    let dial = secured.http(Some(&site.nobody()));
    for path in [
        "/v3/kv/range",
        "/v3/auth/user/list",
        "/v3/maintenance/snapshot",
    ] {
        for headers in [
            vec![("Host", "127.0.0.1"), ("Grpc-Metadata-Token", &*token)],
            vec![("Host", "127.0.0.1"), ("Authorization", &*token)],
        ] {
            let answer = ask(&dial, "POST", path, &headers).await.unwrap();
            assert_eq!(answer.status, 404, "{path}");
        }
    }
    let value = root.range(get("a")).await.unwrap().kvs[0].value.clone();
    assert_eq!(value, "before");
}

/// A plaintext server on loopback, as one has it while trying things out: where a browser could reach it.
fn plaintext(flags: &[&str]) -> (Server, Dial) {
    let options = flags
        .iter()
        .fold(ServerOptions::new(), |options, flag| options.flag(*flag));
    let server = Server::start_with(options);
    let dial = Dial::plain(server.port());
    (server, dial)
}

#[tokio::test]
async fn cve_2018_1099_a_page_of_another_host_is_not_answered() {
    holdfast_only!();
    let (_server, dial) = plaintext(&["--host-whitelist=127.0.0.1,localhost"]);
    let pages: Vec<_> = OPEN.iter().chain(CLOSED).chain(NOTHING).collect();
    for page in &pages {
        for host in [
            "evil.example",
            "evil.example:2379",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "evil.example#127.0.0.1",
            "2130706433",
            "",
        ] {
            let answer = ask(&dial, "GET", page, &[("Host", host)]).await.unwrap();
            assert!(
                [400, 421].contains(&answer.status),
                "{page} of {host:?}: {answer:?}"
            );
            assert!(
                !answer.text.contains("etcd"),
                "{page} of {host:?}: {answer:?}"
            );
        }
    }
    for headers in [
        &[][..],
        &[("Host", "127.0.0.1"), ("Host", "evil.example")],
        &[("Host", "evil.example"), ("Host", "127.0.0.1")],
        &[("X-Forwarded-Host", "127.0.0.1"), ("Host", "evil.example")],
        &[("Forwarded", "host=127.0.0.1"), ("Host", "evil.example")],
    ] {
        let answer = ask(&dial, "GET", "/version", headers).await.unwrap();
        assert!(
            [400, 421].contains(&answer.status),
            "{headers:?}: {answer:?}"
        );
    }
    for target in [
        "http://evil.example/version",
        "http://evil.example:1/metrics",
    ] {
        let answer = ask(&dial, "GET", target, &[("Host", "127.0.0.1")])
            .await
            .unwrap();
        assert!([400, 421].contains(&answer.status), "{target}: {answer:?}");
    }
    for host in ["127.0.0.1", "localhost", "localhost:2379", "127.0.0.1:1"] {
        let answer = ask(&dial, "GET", "/version", &[("Host", host)])
            .await
            .unwrap();
        assert_eq!(answer.status, 200, "{host}: {answer:?}");
    }
}

#[tokio::test]
async fn cve_2018_1098_only_named_origins_may_read_an_answer() {
    holdfast_only!();
    let (_server, dial) = plaintext(&["--cors=https://good.example"]);
    let allow = "access-control-allow-origin";
    for page in OPEN.iter().chain(CLOSED) {
        for method in ["GET", "OPTIONS"] {
            for origin in [
                "https://evil.example",
                "http://good.example",
                "https://good.example.evil.example",
                "https://good.example:8443",
                "null",
                "",
            ] {
                let headers = [
                    ("Host", "127.0.0.1"),
                    ("Origin", origin),
                    ("Access-Control-Request-Method", "POST"),
                    ("Access-Control-Request-Headers", "content-type"),
                ];
                let answer = ask(&dial, method, page, &headers).await.unwrap();
                assert_eq!(
                    answer.header(allow),
                    None,
                    "{page} for {origin}: {answer:?}"
                );
            }
            let headers = [("Host", "127.0.0.1"), ("Origin", "https://good.example")];
            let answer = ask(&dial, method, page, &headers).await.unwrap();
            assert_eq!(
                answer.header(allow),
                Some("https://good.example"),
                "{answer:?}"
            );
            assert_eq!(answer.header("vary"), Some("Origin"));
        }
    }
}

/// A browser cannot speak HTTP/2 without TLS, so what a page can send to a plaintext port is HTTP/1.1, with any type of content once the
/// name of the page resolves to this address.
#[tokio::test]
async fn cve_2018_1098_and_1099_a_browser_cannot_make_a_call() {
    holdfast_only!();
    for flags in [
        vec![],
        vec!["--host-whitelist=127.0.0.1", "--cors=https://good.example"],
    ] {
        let (server, dial) = plaintext(&flags);
        let raw = server.raw().await;
        raw.put(put("a", "before")).await.unwrap();
        let message = put("a", "by a browser").encode_to_vec();
        let mut body = vec![0];
        body.extend((message.len() as u32).to_be_bytes());
        body.extend(message);
        for kind in [
            "application/grpc",
            "application/grpc+proto",
            "application/grpc-web",
            "application/grpc-web+proto",
            "application/grpc-web-text",
            "application/json",
            "text/plain",
        ] {
            let head = format!(
                "POST /etcdserverpb.KV/Put HTTP/1.1\r\nHost: evil.example:{}\r\nOrigin: http://evil.example\r\n\
                 Content-Type: {kind}\r\nTE: trailers\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
                server.port(),
                body.len()
            );
            let mut io = dial.open().await.unwrap();
            io.write_all(&[head.as_bytes(), &body].concat())
                .await
                .unwrap();
            let mut answer = Vec::new();
            let _ = io.read_to_end(&mut answer).await;
            let value = raw.range(get("a")).await.unwrap().kvs[0].value.clone();
            let answer = String::from_utf8_lossy(&answer);
            assert_eq!(
                value, "before",
                "{kind} with {flags:?} was carried out: {answer}"
            );
        }
    }
}

#[tokio::test]
async fn no_page_tells_keys_values_or_names() {
    holdfast_only!();
    const MARK: &str = "zanzibar";
    let guarded = Guarded::start_with(ServerOptions::new().flag("--metrics=extensive")).await;
    let root = &guarded.root;
    let name = format!("user-{MARK}");
    let user = guarded.user(&name, &[(Readwrite, MARK, "zanzibas")]).await;
    let lease = user
        .grant(pb::LeaseGrantRequest {
            ttl: 100,
            id: 7_777_777_777,
        })
        .await
        .unwrap();
    user.put(put_leased(MARK, &format!("value-{MARK}"), lease.id))
        .await
        .unwrap();
    user.range(get(MARK)).await.unwrap();
    user.range(get("elsewhere")).await.unwrap_err();
    guarded
        .anonymous()
        .authenticate(&name, &format!("wrong-{MARK}"))
        .await
        .unwrap_err();
    guarded
        .anonymous()
        .authenticate(&format!("nobody-{MARK}"), "x")
        .await
        .unwrap_err();
    root.user_add(&format!("other-{MARK}"), &format!("password-{MARK}"))
        .await
        .unwrap();
    root.with_metadata(&[("token", MARK), ("client-api-version", MARK)])
        .range(get("a"))
        .await
        .unwrap_err();
    let token = guarded
        .anonymous()
        .authenticate(&name, &password_of(&name))
        .await
        .unwrap();
    for page in OPEN.iter().chain(CLOSED).chain(NOTHING) {
        for headers in [
            vec![("Host", "127.0.0.1")],
            vec![("Host", "127.0.0.1"), ("token", &*token)],
        ] {
            let dial = Dial::plain(guarded.server.port());
            let answer = ask(&dial, "GET", page, &headers).await.unwrap();
            // A version that a client claims to have is counted by what it claims, as in etcd.
            let text: Vec<_> = answer
                .text
                .lines()
                .filter(|line| line.contains(MARK))
                .collect();
            let leaks = text.iter().any(|line| !line.contains("client_api_version"));
            assert!(!leaks, "{page}: {text:#?}");
            assert!(
                !answer.text.contains("7777777777") && !answer.text.contains(&token),
                "{page}"
            );
        }
    }
}

#[tokio::test]
async fn bytes_that_are_no_text_reach_no_metric() {
    holdfast_only!();
    let guarded = Guarded::start().await;
    let raw = guarded.anonymous();
    for text in ["a\"} 1", "x\\", "{le=\"1\"}", &"v".repeat(5_000)] {
        let _ = raw
            .with_metadata(&[("client-api-version", text)])
            .auth_status()
            .await;
        let _ = raw.authenticate(text, text).await;
    }
    // What a client library would not send.
    let port = guarded.server.port();
    for line in [
        &b"client-api-version: \xff\xfe\x80"[..],
        b"client-api-version: 3.6\"} 1\\n",
        b"token: \xff\xff",
        b"user-agent: \xc3\x28",
    ] {
        for kind in ["application/grpc", "text/plain"] {
            let mut io = tokio::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port))
                .await
                .unwrap();
            let head = format!(
                "POST /etcdserverpb.KV/Range HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {kind}\r\nConnection: close\r\n"
            );
            io.write_all(&[head.as_bytes(), line, b"\r\n\r\n"].concat())
                .await
                .unwrap();
            let mut rest = Vec::new();
            let _ = io.read_to_end(&mut rest).await;
        }
    }
    let odd = b("k\u{0}\u{7f}\n");
    guarded
        .root
        .put(pb::PutRequest {
            key: odd,
            ..put("", "v")
        })
        .await
        .unwrap();
    let answer = ask(
        &Dial::plain(port),
        "GET",
        "/metrics",
        &[("Host", "127.0.0.1")],
    )
    .await
    .unwrap();
    assert!(!answer.text.contains('\u{fffd}'), "the page is UTF-8");
    for line in answer.body().lines() {
        let good = line.starts_with('#')
            || line.rsplit_once(' ').is_some_and(|(series, value)| {
                let named = series.starts_with(|first: char| first.is_ascii_alphabetic());
                let closed = !series.contains('{') || series.ends_with('}');
                named && closed && value.parse::<f64>().is_ok()
            });
        assert!(good, "{line:?}");
    }
}
