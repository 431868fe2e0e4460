//! The Maintenance service.

use super::call::Call;
use super::kv::{refuse, unexpected};
use super::{Connection, Session, StreamGuard, off_runtime, raise, snapshot};
use crate::metrics::Rpc;
use crate::probe::cluster_version;
use crate::version;
use holdfast_auth::{Caller, Demands, KeyRange, Standing, Verb};
use holdfast_proto::etcdserverpb as pb;
use holdfast_proto::servers::etcdserverpb::maintenance_server::Maintenance;
use holdfast_tenant::{Alarm, AlarmKind, Answer, Command, Refusal};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;
use tokio_stream::Stream;
use tonic::{Request, Response, Status};

struct Whole;

impl Demands for Whole {
    fn demands(&self, _: &mut dyn FnMut(Verb, &KeyRange)) {}
}

/// Alarms are to be changed.
struct ChangeAlarms;

impl Demands for ChangeAlarms {
    fn standing(&self) -> Standing<'_> {
        Standing::Admin
    }

    fn demands(&self, _: &mut dyn FnMut(Verb, &KeyRange)) {}
}

/// The quota that etcd reports when none is set, bytes.
const QUOTA_SHOWN_WITHOUT_LIMIT: i64 = i64::MAX;

#[tonic::async_trait]
impl Maintenance for Session {
    async fn alarm(
        &self,
        request: Request<pb::AlarmRequest>,
    ) -> Result<Response<pb::AlarmResponse>, Status> {
        let (call, wire) = self.begin(Rpc::Alarm, request);
        call.run(async {
            use pb::alarm_request::AlarmAction;
            call.authorize(Whole).await?;
            let kind = match pb::AlarmType::try_from(wire.alarm) {
                Ok(pb::AlarmType::None) => None,
                Ok(pb::AlarmType::Nospace) => Some(AlarmKind::NoSpace),
                Ok(pb::AlarmType::Corrupt) => Some(AlarmKind::Corrupt),
                Err(_) => return Err(refuse(Refusal::Malformed("unknown alarm type"))),
            };
            let action = AlarmAction::try_from(wire.action)
                .map_err(|_| refuse(Refusal::Malformed("unknown alarm action")))?;
            let alarm = |kind| Alarm {
                member: wire.member_id,
                kind,
            };
            if let Some(kind) = kind {
                call.entry()
                    .object(&format!("{:x}, {kind:?}", wire.member_id));
            }
            let changed = match (action, kind) {
                (AlarmAction::Get, kind) => {
                    self.linearizable().await?;
                    let wanted = |alarm: &Alarm| {
                        kind.is_none_or(|kind| alarm.kind == kind)
                            && (wire.member_id == 0 || alarm.member == wire.member_id)
                    };
                    self.tenant.alarms().into_iter().filter(wanted).collect()
                }
                // Raising nothing is allowed and does nothing (behaviour §3.10).
                (_, None) => {
                    call.authorize(ChangeAlarms).await?;
                    Vec::new()
                }
                (AlarmAction::Activate, Some(kind)) => {
                    self.change_alarm(&call, Command::RaiseAlarm(alarm(kind)))
                        .await?
                }
                (AlarmAction::Deactivate, Some(kind)) => {
                    self.change_alarm(&call, Command::ClearAlarm(alarm(kind)))
                        .await?
                }
            };
            Ok(pb::AlarmResponse {
                header: Some(self.header()),
                alarms: changed.into_iter().map(raise::alarm).collect(),
            })
        })
        .await
        .map(Response::new)
    }

    async fn status(
        &self,
        request: Request<pb::StatusRequest>,
    ) -> Result<Response<pb::StatusResponse>, Status> {
        let (call, _) = self.begin(Rpc::Status, request);
        call.run(async {
            call.authorize(Whole).await?;
            let node = self.node();
            let status = &node.status;
            let mut errors: Vec<String> = self
                .tenant
                .alarms()
                .into_iter()
                .map(|alarm| {
                    let kind = match alarm.kind {
                        AlarmKind::NoSpace => "NOSPACE",
                        AlarmKind::Corrupt => "CORRUPT",
                    };
                    format!("memberID:{} alarm:{kind}", alarm.member)
                })
                .collect();
            if status.leader() == 0 {
                errors.push("etcdserver: no leader".to_owned());
            }
            if status.disk_full() {
                errors.push("etcdserver: no space left on the log's disk".to_owned());
            }
            // Clients divide by it: an empty store is not reported as nothing.
            let size = (self.tenant.size_bytes() as i64).max(1);
            Ok(pb::StatusResponse {
                header: Some(self.header()),
                version: version::COMPATIBLE.to_owned(),
                db_size: size,
                leader: status.leader(),
                raft_index: status.committed(),
                raft_term: status.term(),
                raft_applied_index: status.applied(),
                errors,
                db_size_in_use: size,
                is_learner: node.is_learner(),
                storage_version: version::STORAGE.to_owned(),
                db_size_quota: self
                    .tenant
                    .quota_bytes()
                    .map_or(QUOTA_SHOWN_WITHOUT_LIMIT, |quota| quota as i64),
                downgrade_info: Some(pb::DowngradeInfo::default()),
            })
        })
        .await
        .map(Response::new)
    }

    async fn defragment(
        &self,
        request: Request<pb::DefragmentRequest>,
    ) -> Result<Response<pb::DefragmentResponse>, Status> {
        let (call, _) = self.begin(Rpc::Defragment, request);
        call.run(async {
            call.authorize(Whole).await?;
            let begun = Instant::now();
            // The store gives space back by itself; what compaction has marked and not yet removed is removed now.
            self.node().compaction.requested();
            self.node()
                .compaction
                .wait_until_removed(&self.tenant, self.tenant.compacted())
                .await;
            self.node().metrics.defragmented(begun.elapsed());
            // Defragment answers carry no header (behaviour §1.3).
            Ok(pb::DefragmentResponse { header: None })
        })
        .await
        .map(Response::new)
    }

    async fn hash(
        &self,
        request: Request<pb::HashRequest>,
    ) -> Result<Response<pb::HashResponse>, Status> {
        let (call, _) = self.begin(Rpc::Hash, request);
        call.run(async {
            let caller = call.authorize(Whole).await?.caller().clone();
            let hash = self.hash_of(&caller, 0).await?;
            Ok(pb::HashResponse {
                header: Some(self.header_at(hash.revision)),
                hash: hash.hash,
            })
        })
        .await
        .map(Response::new)
    }

    async fn hash_kv(
        &self,
        request: Request<pb::HashKvRequest>,
    ) -> Result<Response<pb::HashKvResponse>, Status> {
        let (call, wire) = self.begin(Rpc::HashKv, request);
        call.run(async {
            let caller = call.authorize(Whole).await?.caller().clone();
            self.catch_up(Rpc::HashKv).await?;
            let hash = self.hash_of(&caller, wire.revision).await?;
            Ok(pb::HashKvResponse {
                header: Some(self.header_at(hash.revision)),
                hash: hash.hash,
                compact_revision: hash.compact_revision,
                hash_revision: hash.hash_revision,
            })
        })
        .await
        .map(Response::new)
    }

    type SnapshotStream = Pin<Box<dyn Stream<Item = Result<pb::SnapshotResponse, Status>> + Send>>;

    async fn snapshot(
        &self,
        request: Request<pb::SnapshotRequest>,
    ) -> Result<Response<Self::SnapshotStream>, Status> {
        let call = self.begin_stream(Rpc::Snapshot, &request);
        let mut guard = StreamGuard::new(self.0.clone(), Rpc::Snapshot);
        match call.open(call.authorize(Whole)).await {
            Ok(authorized) => {
                let caller = authorized.caller().clone();
                let stream = snapshot::stream(self.0.clone(), caller, guard);
                Ok(Response::new(stream))
            }
            Err(status) => {
                guard.code = status.code();
                Err(status)
            }
        }
    }

    async fn move_leader(
        &self,
        request: Request<pb::MoveLeaderRequest>,
    ) -> Result<Response<pb::MoveLeaderResponse>, Status> {
        let (call, wire) = self.begin(Rpc::MoveLeader, request);
        call.entry().object(&format!("{:x}", wire.target_id));
        call.run(async {
            call.authorize(Whole).await?;
            self.node().move_leader(wire.target_id).await?;
            Ok(pb::MoveLeaderResponse { header: None })
        })
        .await
        .map(Response::new)
    }

    async fn downgrade(
        &self,
        request: Request<pb::DowngradeRequest>,
    ) -> Result<Response<pb::DowngradeResponse>, Status> {
        let (call, wire) = self.begin(Rpc::Downgrade, request);
        call.entry().object(&wire.version);
        call.run(async {
            use pb::downgrade_request::DowngradeAction;
            call.authorize(Whole).await?;
            self.linearizable().await?;
            let action = DowngradeAction::try_from(wire.action)
                .map_err(|_| refuse(Refusal::Malformed("unknown downgrade action")))?;
            let cluster = cluster_version(self.node()).ok_or_else(|| {
                let text = "etcdserver: cluster version not found during downgrade";
                Status::failed_precondition(text)
            })?;
            if action != DowngradeAction::Cancel {
                let target = version::minor(&wire.version).ok_or_else(|| {
                    Status::invalid_argument("etcdserver: wrong downgrade target version format")
                })?;
                if Some(target) != version::below(cluster) {
                    return Err(Status::invalid_argument(
                        "etcdserver: invalid downgrade target version",
                    ));
                }
            }
            if action == DowngradeAction::Enable {
                // There is no older Holdfast that could take over; saying otherwise would be a lie.
                return Err(Status::failed_precondition("etcdserver: not capable"));
            }
            Ok(pb::DowngradeResponse {
                header: Some(self.header()),
                version: version::of_cluster(cluster),
            })
        })
        .await
        .map(Response::new)
    }
}

impl Connection {
    async fn change_alarm(&self, call: &Call<'_>, command: Command) -> Result<Vec<Alarm>, Status> {
        let command = call.authorize(command).await?;
        match self.commit(call, command).await? {
            Answer::Done { alarms, .. } => Ok(alarms),
            _ => Err(unexpected()),
        }
    }

    async fn hash_of(
        self: &Arc<Self>,
        caller: &Caller,
        revision: i64,
    ) -> Result<holdfast_tenant::KvHash, Status> {
        // Nobody closes the semaphore.
        let _turn = self.node().hashes.acquire().await;
        let connection = self.clone();
        let hash = off_runtime(move || {
            let begun = Instant::now();
            let node = connection.node();
            let hash = node.tenants.hash_kv(&connection.tenant, revision);
            node.metrics.hashed(begun.elapsed());
            hash.map_err(refuse)
        })
        .await?;
        snapshot::check(self, caller)?;
        hash
    }
}
