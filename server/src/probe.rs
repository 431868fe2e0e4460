//! What the HTTP pages ask the node.

use crate::grpc::unanswered;
use crate::http::{Probe, RaftState, Versions};
use crate::metrics::{Gauges, Metrics, SecurityGauges};
use crate::node::Node;
use crate::version;
use futures::future::BoxFuture;
use holdfast_auth::KeyRange;
use holdfast_config::Profile;
use holdfast_tenant::AlarmKind;
use holdfast_tenant::request::{Order, Range, RevisionFilter};
use std::sync::Arc;

pub(crate) struct NodeProbe {
    node: Arc<Node>,
}

impl NodeProbe {
    pub(crate) fn new(node: Arc<Node>) -> NodeProbe {
        NodeProbe { node }
    }

    /// Reads the key `health`, as etcd does.
    fn read(&self) -> Result<(), String> {
        let range = Range {
            keys: KeyRange::Point("health".into()),
            limit: 0,
            revision: 0,
            order: Order::Natural,
            keys_only: true,
            count_only: false,
            filter: RevisionFilter::default(),
        };
        self.node
            .tenants
            .range(&self.node.default_tenant, &range)
            .map(drop)
            .map_err(|refusal| refusal.to_string())
    }
}

/// The lowest version of the members, major and minor. `None` before any has told its own.
pub(crate) fn cluster_version(node: &Node) -> Option<(u64, u64)> {
    version::minor(&node.tenants.members().version()?.text)
}

impl Probe for NodeProbe {
    fn alarms(&self) -> Vec<AlarmKind> {
        let alarms = self.node.default_tenant.alarms();
        alarms.into_iter().map(|alarm| alarm.kind).collect()
    }

    fn has_leader(&self) -> bool {
        self.node.status.leader() != 0
    }

    fn is_learner(&self) -> bool {
        self.node.is_learner()
    }

    fn linearizable_read(&self) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async {
            match self.node.linearizable().await {
                Ok(()) => self.read(),
                Err(error) => Err(unanswered(&self.node, error).message().to_owned()),
            }
        })
    }

    fn serializable_read(&self) -> Result<(), String> {
        self.read()
    }

    fn versions(&self) -> Versions {
        Versions {
            server: version::COMPATIBLE.to_owned(),
            cluster: cluster_version(&self.node).map(version::of_cluster),
            storage: Some(version::STORAGE.to_owned()),
            holdfast: version::HOLDFAST.to_owned(),
            profile: match self.node.identity.profile {
                Profile::Strict => "strict",
                Profile::Etcd => "etcd",
            },
        }
    }

    fn metrics_text(&self) -> String {
        let node = &self.node;
        let tenant = &node.default_tenant;
        let watches = node.tenants.inbox().load();
        self.node.metrics.render(&Gauges {
            server_version: version::COMPATIBLE.to_owned(),
            cluster_version: cluster_version(&self.node)
                .map(|(major, minor)| format!("{major}.{minor}")),
            member_id: node.identity.member,
            has_leader: node.status.leader() != 0,
            is_leader: node.status.leader() == node.identity.member,
            is_learner: node.is_learner(),
            leader_changes: node.status.leader_changes(),
            proposals_committed: node.status.committed(),
            proposals_applied: node.status.applied(),
            proposals_pending: node.group.pending() as u64,
            quota_bytes: tenant.quota_bytes(),
            db_size_bytes: tenant.size_bytes(),
            db_size_in_use_bytes: tenant.size_bytes(),
            keys: tenant.keys() as u64,
            current_revision: tenant.revision(),
            compact_revision: tenant.compacted(),
            watch_streams: tenant.watch_stream_count() as u64,
            watchers: watches.watches as u64,
            slow_watchers: watches.behind as u64,
            pending_events: watches.transactions as u64,
            alarms: tenant
                .alarms()
                .into_iter()
                .map(|alarm| {
                    let kind = match alarm.kind {
                        AlarmKind::NoSpace => "NOSPACE",
                        AlarmKind::Corrupt => "CORRUPT",
                    };
                    (alarm.member, kind)
                })
                .collect(),
            defragmenting: false,
            staged_bytes: node.tenants.store().staged_bytes() as u64,
            messages_refused: node.status.refused_messages(),
            read_rounds: node.status.read_rounds(),
            snapshots_installed: node.status.installed(),
            security: SecurityGauges {
                auth_revision: tenant.auth().revision(),
                auth_enabled: tenant.auth().is_enabled(),
                logins: node.logins.stats(),
                audit: node.auditor.stats(),
            },
        })
    }

    fn metrics(&self) -> &Metrics {
        &self.node.metrics
    }

    fn raft(&self) -> RaftState {
        RaftState {
            member: self.node.identity.member,
            term: self.node.status.term(),
            leader: self.node.status.leader(),
            committed: self.node.status.committed(),
            applied: self.node.status.applied(),
        }
    }
}
