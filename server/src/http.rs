//! The pages that etcd serves beside gRPC (behaviour §1.13): version, health, metrics. Bodies and statuses are those of etcd 3.7.1.
//!
//! Which pages are open is the table `HTTP_POLICIES` of the auth crate. None tells what a tenant keeps.

use crate::headers::{allowed_origin, host_permitted};
use crate::metrics::{Metrics, fd_limit};
use ::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN, ALLOW,
    CONTENT_TYPE, ORIGIN, VARY, X_CONTENT_TYPE_OPTIONS,
};
use ::http::request::Parts;
use ::http::{HeaderName, HeaderValue, Method, Response, StatusCode};
use bytes::Bytes;
use futures::future::BoxFuture;
use holdfast_config::{Allowed, Config};
use holdfast_tenant::AlarmKind;
use serde_json::json;
use std::fmt::Write;
use std::time::Duration;

/// Longest wait for the read of a health check: five seconds and two election time-outs, etcd's time for a request (behaviour §3.9).
const READ_TIMEOUT: Duration = Duration::from_secs(7);

/// What the pages ask the node.
pub(crate) trait Probe: Send + Sync {
    /// Alarms of the default tenant.
    fn alarms(&self) -> Vec<AlarmKind>;
    /// Whether a leader is known.
    fn has_leader(&self) -> bool;
    /// Whether this member is a learner.
    fn is_learner(&self) -> bool;
    /// Whether a linearizable read works; if not, why.
    fn linearizable_read(&self) -> BoxFuture<'_, Result<(), String>>;
    /// Whether a read of this member's own state works; if not, why.
    fn serializable_read(&self) -> Result<(), String>;
    /// Versions to tell.
    fn versions(&self) -> Versions;
    /// All metrics as text.
    fn metrics_text(&self) -> String;
    /// Where checks are counted.
    fn metrics(&self) -> &Metrics;
    /// What raft is doing.
    fn raft(&self) -> RaftState;
}

/// What `/version` tells.
#[derive(Clone, Debug)]
pub(crate) struct Versions {
    /// The version of etcd that this server is compatible with.
    pub(crate) server: String,
    /// That of the cluster, once it is known.
    pub(crate) cluster: Option<String>,
    /// That of the storage, once it is known.
    pub(crate) storage: Option<String>,
    /// Our own.
    pub(crate) holdfast: String,
    /// The cluster's profile, `strict` or `etcd`.
    pub(crate) profile: &'static str,
}

/// What `/debug/vars` tells of raft.
#[derive(Clone, Debug)]
pub(crate) struct RaftState {
    pub(crate) member: u64,
    pub(crate) term: u64,
    /// 0 for none.
    pub(crate) leader: u64,
    pub(crate) committed: u64,
    pub(crate) applied: u64,
}

/// Turns away what must not be answered, and answers what browsers ask before they ask (CORS preflight). To be called before
/// [`respond`].
///
/// # Errors
///
/// The answer, if it is given here already.
#[expect(
    clippy::result_large_err,
    reason = "an answer is moved once per refused request"
)]
pub(crate) fn admit(
    parts: &Parts,
    plaintext: bool,
    config: &Config,
) -> Result<(), Response<Bytes>> {
    // A page of an attacker whose name resolves to this address is stopped by TLS, but not without (CVE-2018-1099).
    if plaintext && !host_permitted(parts, &config.host_whitelist) {
        return Err(plain_text(
            StatusCode::MISDIRECTED_REQUEST,
            "\nHoldfast does not answer to this Host header on a listener without TLS (DNS rebinding).\n\
             Use TLS, or name the host in --host-whitelist.\n",
        ));
    }
    if parts.method == Method::OPTIONS {
        return Err(Response::new(Bytes::new()));
    }
    Ok(())
}

/// Tells browsers which pages may read the answer (`--cors`).
pub(crate) fn with_cors(
    mut response: Response<Bytes>,
    parts: &Parts,
    config: &Config,
) -> Response<Bytes> {
    let Some(origin) = allowed_origin(&config.cors, parts.headers.get(ORIGIN)) else {
        return response;
    };
    let headers = response.headers_mut();
    if config.cors != Allowed::Any {
        headers.insert(VARY, HeaderValue::from_static("Origin"));
    }
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    for (name, value) in [
        (
            ACCESS_CONTROL_ALLOW_METHODS,
            "POST, GET, OPTIONS, PUT, DELETE",
        ),
        (
            ACCESS_CONTROL_ALLOW_HEADERS,
            "accept, content-type, authorization",
        ),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

/// A page.
enum Page {
    Version,
    Health,
    /// All checks of an endpoint, or one.
    Checks(&'static Endpoint, Option<Check>),
    Metrics,
    Variables,
}

/// `/livez` or `/readyz`.
struct Endpoint {
    name: &'static str,
    checks: &'static [Check],
}

const LIVEZ: Endpoint = Endpoint {
    name: "livez",
    checks: &[Check::SerializableRead],
};

const READYZ: Endpoint = Endpoint {
    name: "readyz",
    checks: &[
        Check::DataCorruption,
        Check::SerializableRead,
        Check::LinearizableRead,
        Check::NonLearner,
    ],
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Check {
    DataCorruption,
    SerializableRead,
    LinearizableRead,
    NonLearner,
}

impl Check {
    fn name(self) -> &'static str {
        match self {
            Self::DataCorruption => "data_corruption",
            Self::SerializableRead => "serializable_read",
            Self::LinearizableRead => "linearizable_read",
            Self::NonLearner => "non_learner",
        }
    }

    async fn run(self, probe: &dyn Probe) -> Result<(), String> {
        match self {
            Self::DataCorruption if probe.alarms().contains(&AlarmKind::Corrupt) => {
                Err("alarm activated: CORRUPT".to_owned())
            }
            Self::NonLearner if probe.is_learner() => {
                Err("rpc not supported for learner".to_owned())
            }
            Self::DataCorruption | Self::NonLearner => Ok(()),
            Self::SerializableRead => probe.serializable_read(),
            Self::LinearizableRead => linearizable_read(probe).await,
        }
    }
}

impl Page {
    fn find(path: &str) -> Option<Page> {
        Some(match path {
            "/version" => Page::Version,
            "/health" => Page::Health,
            "/metrics" => Page::Metrics,
            "/debug/vars" => Page::Variables,
            _ => {
                let (endpoint, check) = match path.strip_prefix('/')?.split_once('/') {
                    Some((endpoint, check)) => (endpoint, Some(check)),
                    None => (&path[1..], None),
                };
                let endpoint = [&LIVEZ, &READYZ]
                    .into_iter()
                    .find(|known| known.name == endpoint)?;
                let check = match check {
                    Some(name) => {
                        let found = endpoint.checks.iter().find(|check| check.name() == name);
                        Some(*found?)
                    }
                    None => None,
                };
                Page::Checks(endpoint, check)
            }
        })
    }
}

/// Answers a request that [`admit`] let pass.
pub(crate) async fn respond(probe: &dyn Probe, parts: &Parts) -> Response<Bytes> {
    let Some(page) = Page::find(parts.uri.path()) else {
        return plain_text(StatusCode::NOT_FOUND, "404 page not found");
    };
    let permitted = match page {
        // As in etcd only here.
        Page::Metrics => [Method::GET, Method::HEAD].contains(&parts.method),
        _ => parts.method == Method::GET,
    };
    if !permitted {
        let mut response = plain_text(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed");
        let headers = response.headers_mut();
        headers.insert(ALLOW, HeaderValue::from_static("GET"));
        return response;
    }
    let query = Query(parts.uri.query().unwrap_or_default());
    match page {
        Page::Version => version(&probe.versions()),
        Page::Health => health(probe, query).await,
        Page::Checks(endpoint, one) => checks(probe, endpoint, one, query).await,
        Page::Metrics => with_type(
            "text/plain; version=0.0.4; charset=utf-8",
            probe.metrics_text(),
        ),
        Page::Variables => with_type("application/json; charset=utf-8", variables(probe)),
    }
}

fn version(versions: &Versions) -> Response<Bytes> {
    // Written by hand for etcd's order of the fields. Ours is behind them: whoever reads etcd's does not see it.
    let body = format!(
        r#"{{"etcdserver":{},"etcdcluster":{},"storage":{},"holdfast":{{"version":{},"profile":{}}}}}"#,
        json!(versions.server),
        json!(versions.cluster.as_deref().unwrap_or("not_decided")),
        json!(versions.storage.as_deref().unwrap_or("unknown")),
        json!(versions.holdfast),
        json!(versions.profile),
    );
    with_type("application/json", body)
}

async fn health(probe: &dyn Probe, query: Query<'_>) -> Response<Bytes> {
    let reason = illness(probe, query).await;
    probe.metrics().health(reason.is_none());
    let body = |health, reason| format!(r#"{{"health":"{health}","reason":{}}}"#, json!(reason));
    match reason {
        None => with_type("text/plain; charset=utf-8", body("true", "")),
        Some(reason) => {
            tracing::warn!(%reason, "serving /health false");
            plain_text(StatusCode::SERVICE_UNAVAILABLE, &body("false", &reason))
        }
    }
}

/// Why this member is not healthy.
async fn illness(probe: &dyn Probe, query: Query<'_>) -> Option<String> {
    let alarm = probe
        .alarms()
        .into_iter()
        .map(alarm_name)
        .find(|alarm| !query.values("exclude").any(|excluded| excluded == *alarm));
    if let Some(alarm) = alarm {
        return Some(format!("ALARM {alarm}"));
    }
    let serializable = query.values("serializable").next() == Some("true");
    let read = if serializable {
        probe.serializable_read()
    } else if !probe.has_leader() {
        return Some("RAFT NO LEADER".to_owned());
    } else {
        linearizable_read(probe).await
    };
    read.err().map(|error| format!("RANGE ERROR:{error}"))
}

fn alarm_name(kind: AlarmKind) -> &'static str {
    match kind {
        AlarmKind::NoSpace => "NOSPACE",
        AlarmKind::Corrupt => "CORRUPT",
    }
}

async fn linearizable_read(probe: &dyn Probe) -> Result<(), String> {
    tokio::time::timeout(READ_TIMEOUT, probe.linearizable_read())
        .await
        .unwrap_or_else(|_| Err("etcdserver: request timed out".to_owned()))
}

async fn checks(
    probe: &dyn Probe,
    endpoint: &Endpoint,
    one: Option<Check>,
    query: Query<'_>,
) -> Response<Bytes> {
    let chosen = match &one {
        Some(check) => std::slice::from_ref(check),
        None => endpoint.checks,
    };
    let mut lines = String::new();
    let mut good = true;
    for check in chosen {
        let name = check.name();
        if one.is_none() && query.values("exclude").any(|excluded| excluded == name) {
            continue;
        }
        let result = check.run(probe).await;
        probe
            .metrics()
            .health_check(endpoint.name, name, result.is_ok());
        // Writing to a String cannot fail.
        let _ = match &result {
            Ok(()) => writeln!(lines, "[+]{name} ok"),
            Err(error) => {
                tracing::warn!(endpoint = endpoint.name, check = name, %error, "health check failed");
                good = false;
                writeln!(lines, "[-]{name} failed: {error}")
            }
        };
    }
    if !good {
        return plain_text(StatusCode::SERVICE_UNAVAILABLE, &lines);
    }
    if !query.has("verbose") {
        lines.clear();
    }
    lines.push_str("ok");
    plain_text(StatusCode::OK, &lines)
}

fn variables(probe: &dyn Probe) -> String {
    let raft = probe.raft();
    let state = match (raft.leader == raft.member, probe.is_learner()) {
        (true, _) => "StateLeader",
        (false, true) => "StateLearner",
        (false, false) => "StateFollower",
    };
    let values = json!({
        "cmdline": std::env::args_os()
            .map(|argument| argument.to_string_lossy().into_owned())
            .collect::<Vec<_>>(),
        "file_descriptor_limit": fd_limit(),
        "raft.status": {
            "id": format!("{:x}", raft.member),
            "term": raft.term,
            "commit": raft.committed,
            "applied": raft.applied,
            "lead": format!("{:x}", raft.leader),
            "raftState": state,
        },
    });
    format!("{values:#}\n")
}

/// The part behind the question mark. Values are compared with plain words only, so nothing is decoded.
#[derive(Clone, Copy)]
struct Query<'a>(&'a str);

impl<'a> Query<'a> {
    fn pairs(self) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.0
            .split('&')
            .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
    }

    fn values(self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.pairs()
            .filter(move |(key, _)| *key == name)
            .map(|(_, value)| value)
    }

    fn has(self, name: &str) -> bool {
        self.pairs().any(|(key, _)| key == name)
    }
}

fn with_type(kind: &'static str, body: String) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(body));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// As Go's `http.Error` writes: plain text with a newline behind it, whose type browsers must not guess.
/// A page of plain text.
pub(crate) fn plain_text(status: StatusCode, text: &str) -> Response<Bytes> {
    let mut response = with_type("text/plain; charset=utf-8", format!("{text}\n"));
    *response.status_mut() = status;
    let nosniff: (HeaderName, _) = (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response.headers_mut().insert(nosniff.0, nosniff.1);
    response
}

#[cfg(test)]
mod tests;
