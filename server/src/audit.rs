//! What the audit log is told of each call.

use crate::grpc::{Connection, TENANT};
use crate::identity::{How, Identified};
use crate::metrics::Rpc;
use holdfast_audit::{
    AuditorConfig, AuthMethod, Code, End, FileConfig, KeySpan, Keys, NodeKey, Outcome, Plan,
    Record, Rules, RulesError, SinkConfig, Subject, SyncPolicy, SyslogTarget,
};
use holdfast_auth::{Demands, KeyRange};
use holdfast_config::{AuditSink, AuditSync, Config, Host, Profile};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};
use tokio::sync::oneshot;

/// What the log is to say of one call.
pub(crate) struct Entry(Option<Audited>);

struct Audited {
    plan: Plan,
    time: SystemTime,
    id: u64,
    facts: Mutex<Facts>,
    /// A record of the beginning was taken.
    begun: AtomicBool,
}

struct Facts {
    keys: Keys,
    object: Option<String>,
    request_bytes: u64,
    revision: Option<i64>,
}

/// Numbers calls over the life of the process, so that the two records of one call are found together.
static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// Bytes of a name that a record shows.
const OBJECT_BYTES_MAX: usize = 256;

impl Entry {
    fn new(plan: Plan) -> Entry {
        if plan.is_silent() {
            return Entry(None);
        }
        Entry(Some(Audited {
            plan,
            time: SystemTime::now(),
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            facts: Mutex::new(Facts {
                keys: Keys::none(),
                object: None,
                request_bytes: 0,
                revision: None,
            }),
            begun: AtomicBool::new(false),
        }))
    }

    /// How long the request's message is.
    pub(crate) fn request_bytes(&self, length: impl FnOnce() -> usize) {
        if let Some(audited) = &self.0 {
            audited.facts.lock().request_bytes = length() as u64;
        }
    }

    /// The keys that the request asks for.
    pub(crate) fn demands(&self, request: &impl Demands) {
        if let Some(audited) = &self.0
            && audited.plan.wants_keys()
        {
            let mut ranges: Vec<KeyRange> = Vec::new();
            request.demands(&mut |_, keys| {
                if ranges.last() != Some(keys) {
                    ranges.push(keys.clone());
                }
            });
            audited.facts.lock().keys = audited.plan.keys(ranges.iter().map(span));
        }
    }

    /// The user, role or the like that the request names.
    pub(crate) fn object(&self, name: &str) {
        if let Some(audited) = &self.0 {
            let end = name.floor_char_boundary(OBJECT_BYTES_MAX);
            audited.facts.lock().object = (end > 0).then(|| name[..end].to_owned());
        }
    }

    /// The revision at which the request was carried out.
    pub(crate) fn revision(&self, revision: i64) {
        if let Some(audited) = &self.0 {
            audited.facts.lock().revision = Some(revision);
        }
    }

    /// Whether a record must still be taken before the request is carried out.
    pub(crate) fn is_strict(&self) -> bool {
        self.0.as_ref().is_some_and(|audited| {
            !audited.begun.load(Ordering::Relaxed)
                && audited.plan.is_strict(&audited.facts.lock().keys)
        })
    }
}

impl Audited {
    fn record<'a>(&self, facts: &'a Facts) -> Record<'a> {
        Record {
            time: self.time,
            id: self.id,
            keys: &facts.keys,
            object: facts.object.as_deref(),
            request_bytes: facts.request_bytes,
        }
    }
}

fn span(keys: &KeyRange) -> KeySpan<'_> {
    match keys {
        KeyRange::Point(key) => KeySpan::Point(key),
        KeyRange::Span { start, end } => KeySpan::Span(start, end),
        KeyRange::From(start) => KeySpan::From(start),
        KeyRange::All => KeySpan::From(b""),
    }
}

/// Plans that a connection has asked for.
#[derive(Default)]
pub(crate) struct Plans {
    generation: u64,
    who: Option<Arc<Identified>>,
    known: Vec<(Rpc, Plan)>,
}

impl Connection {
    /// Begins what the log is to say of a call. `who` is absent if nobody could be identified.
    pub(crate) fn audit_entry(&self, rpc: Rpc, who: Option<&Arc<Identified>>) -> Entry {
        let who = who.unwrap_or(self.identity.unchecked());
        let auditor = &self.node().auditor;
        let generation = auditor.generation();
        let mut plans = self.plans.lock();
        let same = plans
            .who
            .as_ref()
            .is_some_and(|known| Arc::ptr_eq(known, who));
        if plans.generation != generation || !same {
            *plans = Plans {
                generation,
                who: Some(who.clone()),
                known: Vec::new(),
            };
        }
        if let Some((_, plan)) = plans.known.iter().find(|(known, _)| *known == rpc) {
            return Entry::new(plan.clone());
        }
        let subject = Subject {
            tenant: TENANT,
            principal: who.name.as_deref(),
            auth: match who.how {
                How::Nothing => AuthMethod::None,
                How::Certificate => AuthMethod::Certificate,
                How::Token => AuthMethod::Token,
                How::External => AuthMethod::External,
            },
            source: self.peer,
        };
        let plan = auditor.plan(&subject, &short_name(rpc));
        plans.known.push((rpc, plan.clone()));
        Entry::new(plan)
    }

    /// Records that a request on a stream was refused.
    pub(crate) fn record_refusal(&self, rpc: Rpc, who: &Arc<Identified>, status: &tonic::Status) {
        let entry = self.audit_entry(rpc, Some(who));
        let outcome = Some((status.code(), status.message()));
        self.record(&entry, outcome, Duration::ZERO);
    }

    /// Records how a call ended; `error` is its gRPC code and text.
    pub(crate) fn record(&self, entry: &Entry, error: Option<(tonic::Code, &str)>, took: Duration) {
        let Some(audited) = &entry.0 else { return };
        let facts = audited.facts.lock();
        let outcome = match error {
            None => Outcome::Ok,
            Some((code, reason)) => {
                let denied = is_denial(code, reason);
                let code = Code::from_number(code as i32);
                if denied {
                    Outcome::Denied { code, reason }
                } else {
                    Outcome::Failed { code, reason }
                }
            }
        };
        let end = End {
            outcome,
            revision: facts.revision,
            duration: took,
        };
        self.worker
            .audit
            .end(&audited.plan, &audited.record(&facts), &end);
    }

    /// Records that a call is about to be carried out, and waits until the log has taken the record.
    ///
    /// # Errors
    /// When no sink took it in time: the call must not be carried out.
    pub(crate) async fn record_begin(&self, entry: &Entry) -> Result<(), ()> {
        let Some(audited) = &entry.0 else {
            return Ok(());
        };
        let (taken, answer) = oneshot::channel();
        {
            let facts = audited.facts.lock();
            self.worker.audit.begin(
                &audited.plan,
                &audited.record(&facts),
                Box::new(move |result| {
                    // The client may be gone by now.
                    let _ = taken.send(result);
                }),
            );
        }
        match answer.await {
            Ok(Ok(())) => {
                audited.begun.store(true, Ordering::Relaxed);
                Ok(())
            }
            Ok(Err(reason)) => {
                tracing::warn!(%reason, "refused a request, because the audit log did not take its record");
                Err(())
            }
            Err(_) => Err(()),
        }
    }
}

/// Whether a call was refused for who made it.
fn is_denial(code: tonic::Code, reason: &str) -> bool {
    use tonic::Code;
    matches!(code, Code::PermissionDenied | Code::Unauthenticated)
        || (code == Code::InvalidArgument
            && (reason.ends_with("user name is empty") || reason.contains("authentication failed")))
}

/// `KV/Put` for `/etcdserverpb.KV/Put`.
fn short_name(rpc: Rpc) -> String {
    let service = rpc.service();
    let service = service.rsplit_once('.').map_or(service, |(_, last)| last);
    format!("{service}/{}", rpc.method())
}

/// The audit log's configuration.
///
/// # Errors
/// When the rules file cannot be read or is not one.
pub(crate) fn config(
    config: &Config,
    profile: Profile,
    cluster: u64,
    key: NodeKey,
) -> Result<AuditorConfig, RulesError> {
    let audit = &config.audit;
    let cluster = format!("{cluster:x}");
    let mut made = AuditorConfig::new(&config.name, &cluster, crate::version::HOLDFAST, key);
    made.deadline = audit.deadline;
    if let Some(path) = &audit.rules_file {
        made.rules = Rules::load(path)?;
        let known: Vec<String> = Rpc::ALL.iter().map(|rpc| short_name(*rpc)).collect();
        let known: Vec<&str> = known.iter().map(String::as_str).collect();
        for pattern in made.rules.unknown_rpcs(&known) {
            tracing::warn!(%pattern, "an audit rule is for an RPC that there is not");
        }
    }
    made.sinks = config
        .for_profile(profile)
        .audit_sinks
        .iter()
        .map(|sink| match sink {
            AuditSink::File(path) => {
                let mut file = FileConfig::new(path.clone());
                file.max_bytes = audit.file_max_bytes;
                file.keep = audit.file_max_count;
                file.sync = match audit.sync {
                    AuditSync::None => SyncPolicy::None,
                    AuditSync::Checkpoint => SyncPolicy::Checkpoint,
                    AuditSync::Block => SyncPolicy::Block,
                };
                SinkConfig::File(file)
            }
            AuditSink::Stdout => SinkConfig::Stdout,
            AuditSink::SyslogSocket(path) => SinkConfig::Syslog(SyslogTarget::Socket(path.clone())),
            AuditSink::SyslogAddress { host, port } => SinkConfig::Syslog(SyslogTarget::Udp {
                host: match host {
                    Host::Ip(ip) => ip.to_string(),
                    Host::Name(name) => name.clone(),
                },
                port: *port,
            }),
        })
        .collect();
    Ok(made)
}
