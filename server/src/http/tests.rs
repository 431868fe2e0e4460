use super::*;
use ::http::Request;
use std::sync::Arc;

struct Fake {
    metrics: Arc<Metrics>,
    alarms: Vec<AlarmKind>,
    leader: bool,
    learner: bool,
    linearizable: Result<(), String>,
    serializable: Result<(), String>,
}

impl Default for Fake {
    fn default() -> Fake {
        Fake {
            metrics: Metrics::new(false),
            alarms: Vec::new(),
            leader: true,
            learner: false,
            linearizable: Ok(()),
            serializable: Ok(()),
        }
    }
}

impl Probe for Fake {
    fn alarms(&self) -> Vec<AlarmKind> {
        self.alarms.clone()
    }
    fn has_leader(&self) -> bool {
        self.leader
    }
    fn is_learner(&self) -> bool {
        self.learner
    }
    fn linearizable_read(&self) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(std::future::ready(self.linearizable.clone()))
    }
    fn serializable_read(&self) -> Result<(), String> {
        self.serializable.clone()
    }
    fn versions(&self) -> Versions {
        Versions {
            server: "3.7.1".to_owned(),
            cluster: self.leader.then(|| "3.7.0".to_owned()),
            storage: self.leader.then(|| "3.7.0".to_owned()),
            holdfast: "1.2.3".to_owned(),
            profile: "strict",
        }
    }
    fn metrics_text(&self) -> String {
        "a_metric 1\n".to_owned()
    }
    fn metrics(&self) -> &Metrics {
        &self.metrics
    }
    fn raft(&self) -> RaftState {
        RaftState {
            member: 0xa,
            term: 3,
            leader: 0xa,
            committed: 7,
            applied: 7,
        }
    }
}

fn parts(method: &str, target: &str, headers: &[(&str, &str)]) -> Parts {
    let mut request = Request::builder().method(method).uri(target);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(()).expect("request").into_parts().0
}

fn ask(probe: &Fake, method: &str, target: &str) -> (u16, String) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("runtime");
    let response = runtime.block_on(respond(probe, &parts(method, target, &[])));
    let body = String::from_utf8(response.body().to_vec()).expect("text");
    (response.status().as_u16(), body)
}

fn config(flags: &[&str]) -> Config {
    let flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
    match holdfast_config::load(flags, [], |_| unreachable!("no file")) {
        Ok(holdfast_config::Outcome::Serve(config)) => *config,
        other => panic!("{other:?}"),
    }
}

/// Statuses and bodies were taken from etcd 3.7.1.
#[test]
fn a_healthy_member_answers_as_etcd() {
    let probe = Fake::default();
    let healthy = r#"{"health":"true","reason":""}"#;
    let not_found = "404 page not found\n";
    for (target, status, body) in [
        (
            "/version",
            200,
            r#"{"etcdserver":"3.7.1","etcdcluster":"3.7.0","storage":"3.7.0","holdfast":{"version":"1.2.3","profile":"strict"}}"#,
        ),
        ("/health", 200, healthy),
        ("/health?serializable=true", 200, healthy),
        ("/health?exclude=NOSPACE", 200, healthy),
        ("/livez", 200, "ok\n"),
        ("/readyz", 200, "ok\n"),
        ("/livez/serializable_read", 200, "ok\n"),
        ("/livez?verbose", 200, "[+]serializable_read ok\nok\n"),
        (
            "/readyz?verbose",
            200,
            "[+]data_corruption ok\n[+]serializable_read ok\n[+]linearizable_read ok\n[+]non_learner ok\nok\n",
        ),
        (
            "/readyz?verbose=false&exclude=non_learner&exclude=nope&exclude=data_corruption",
            200,
            "[+]serializable_read ok\n[+]linearizable_read ok\nok\n",
        ),
        (
            "/readyz/linearizable_read?verbose",
            200,
            "[+]linearizable_read ok\nok\n",
        ),
        ("/metrics", 200, "a_metric 1\n"),
        ("/livez/linearizable_read", 404, not_found),
        ("/livez/", 404, not_found),
        ("/version/", 404, not_found),
        ("/", 404, not_found),
        ("/metricsx", 404, not_found),
        ("/v2/keys", 404, not_found),
        ("/debug/pprof/", 404, not_found),
        ("/config/local/log", 404, not_found),
    ] {
        assert_eq!(
            ask(&probe, "GET", target),
            (status, body.to_owned()),
            "{target}"
        );
    }
}

#[test]
fn trouble_is_told() {
    let timeout = || Err("etcdserver: request timed out".to_owned());
    let no_space = Fake {
        alarms: vec![AlarmKind::NoSpace],
        ..Fake::default()
    };
    let corrupt = Fake {
        alarms: vec![AlarmKind::NoSpace, AlarmKind::Corrupt],
        ..Fake::default()
    };
    let alone = Fake {
        leader: false,
        linearizable: timeout(),
        ..Fake::default()
    };
    let stuck = Fake {
        linearizable: timeout(),
        ..Fake::default()
    };
    let learner = Fake {
        learner: true,
        ..Fake::default()
    };
    let unwell = |reason: &str| format!("{{\"health\":\"false\",\"reason\":\"{reason}\"}}\n");
    let well = r#"{"health":"true","reason":""}"#.to_owned();
    let failed = "[-]linearizable_read failed: etcdserver: request timed out\n\n".to_owned();
    for (probe, target, status, body) in [
        (&no_space, "/health", 503, unwell("ALARM NOSPACE")),
        (&no_space, "/health?exclude=NOSPACE", 200, well.clone()),
        (&no_space, "/readyz", 200, "ok\n".to_owned()),
        (&corrupt, "/health?exclude=NOSPACE", 503, unwell("ALARM CORRUPT")),
        (&corrupt, "/health?exclude=NOSPACE&exclude=CORRUPT", 200, well.clone()),
        (
            &corrupt,
            "/readyz/data_corruption",
            503,
            "[-]data_corruption failed: alarm activated: CORRUPT\n\n".to_owned(),
        ),
        (&alone, "/health", 503, unwell("RAFT NO LEADER")),
        (&alone, "/health?serializable=true", 200, well),
        (
            &alone,
            "/version",
            200,
            r#"{"etcdserver":"3.7.1","etcdcluster":"not_decided","storage":"unknown","holdfast":{"version":"1.2.3","profile":"strict"}}"#
                .to_owned(),
        ),
        (
            &stuck,
            "/health",
            503,
            unwell("RANGE ERROR:etcdserver: request timed out"),
        ),
        (&stuck, "/livez", 200, "ok\n".to_owned()),
        (
            &stuck,
            "/readyz",
            503,
            "[+]data_corruption ok\n[+]serializable_read ok\n[-]linearizable_read failed: etcdserver: request timed out\n[+]non_learner ok\n\n".to_owned(),
        ),
        (&stuck, "/readyz/linearizable_read", 503, failed),
        (&stuck, "/readyz?exclude=linearizable_read", 200, "ok\n".to_owned()),
        (
            &learner,
            "/readyz/non_learner",
            503,
            "[-]non_learner failed: rpc not supported for learner\n\n".to_owned(),
        ),
    ] {
        assert_eq!(ask(probe, "GET", target), (status, body), "{target}");
    }
}

#[test]
fn only_get_and_for_metrics_head() {
    let probe = Fake::default();
    for method in ["POST", "PUT", "DELETE", "HEAD", "PATCH"] {
        for page in [
            "/version",
            "/health",
            "/livez",
            "/readyz/non_learner",
            "/debug/vars",
        ] {
            let answer = ask(&probe, method, page);
            assert_eq!(
                answer,
                (405, "Method Not Allowed\n".to_owned()),
                "{method} {page}"
            );
        }
        assert_eq!(ask(&probe, method, "/nope").0, 404);
    }
    assert_eq!(ask(&probe, "HEAD", "/metrics").0, 200);
    assert_eq!(ask(&probe, "POST", "/metrics").0, 405);
}

#[test]
fn checks_are_counted() {
    let probe = Fake {
        linearizable: Err("no".to_owned()),
        ..Fake::default()
    };
    ask(&probe, "GET", "/readyz");
    ask(&probe, "GET", "/livez");
    ask(&probe, "GET", "/health");
    let text = probe.metrics.render(&crate::metrics::Gauges::default());
    for line in [
        r#"etcd_server_healthcheck{name="linearizable_read",type="readyz"} 0"#,
        r#"etcd_server_healthcheck{name="serializable_read",type="livez"} 1"#,
        r#"etcd_server_healthchecks_total{name="linearizable_read",status="error",type="readyz"} 1"#,
        "etcd_server_health_failures 1",
        "etcd_server_health_success 0",
    ] {
        assert!(text.contains(line), "{line}");
    }
}

#[test]
fn variables_are_json() {
    let (status, body) = ask(&Fake::default(), "GET", "/debug/vars");
    assert_eq!(status, 200);
    let values: serde_json::Value = serde_json::from_str(&body).expect("JSON");
    assert!(
        values["file_descriptor_limit"]
            .as_u64()
            .is_some_and(|limit| limit > 2)
    );
    assert_eq!(values["raft.status"]["lead"], "a");
    assert_eq!(values["raft.status"]["raftState"], "StateLeader");
    assert!(values["cmdline"].is_array());
}

/// DNS rebinding, CVE-2018-1099.
#[test]
fn cve_2018_1099_a_strange_host_is_refused_on_plaintext_only() {
    let config = config(&["--host-whitelist=good,127.0.0.1,::1"]);
    for (host, admitted) in [
        ("good", true),
        ("GOOD:2379", true),
        ("127.0.0.1:2379", true),
        ("[::1]:2379", true),
        ("evil", false),
        ("evil:2379", false),
        ("good.evil", false),
        ("", false),
        ("good:2379:1", false),
    ] {
        let request = parts("GET", "/version", &[("host", host)]);
        let answer = admit(&request, true, &config);
        assert_eq!(answer.is_ok(), admitted, "{host}");
        if let Err(answer) = answer {
            assert_eq!(answer.status(), 421);
        }
        assert!(admit(&request, false, &config).is_ok(), "{host}");
    }
    assert!(admit(&parts("GET", "/version", &[]), true, &config).is_err());
    let both = [("host", "good"), ("host", "evil")];
    assert!(admit(&parts("GET", "/version", &both), true, &config).is_err());
    let absolute = parts("GET", "http://evil/version", &[("host", "good")]);
    assert!(admit(&absolute, true, &config).is_err());
}

/// Cross-site requests, CVE-2018-1098: a page of another origin does not get to read answers.
#[test]
fn cve_2018_1098_only_named_origins_may_read() {
    let any = config(&["--cors=*"]);
    let one = config(&["--cors=http://ok.example:80"]);
    let origin = |config: &Config, origin: &str| {
        let request = parts("GET", "/version", &[("origin", origin)]);
        let response = with_cors(Response::new(Bytes::new()), &request, config);
        let header = response.headers().get(ACCESS_CONTROL_ALLOW_ORIGIN);
        header.map(|value| value.to_str().expect("text").to_owned())
    };
    assert_eq!(origin(&any, "http://evil").as_deref(), Some("*"));
    assert_eq!(
        origin(&one, "http://ok.example:80").as_deref(),
        Some("http://ok.example:80")
    );
    assert_eq!(origin(&one, "http://evil"), None);
    let preflight = parts("OPTIONS", "/nope", &[]);
    let answer = admit(&preflight, true, &any).expect_err("answered");
    assert_eq!((answer.status().as_u16(), answer.body().len()), (200, 0));
}
