//! The Cluster service: who the members are, and changes of that.

use super::call::Call;
use super::kv::refuse;
use super::{Connection, Session};
use crate::cluster::bootstrap::member_id;
use crate::cluster::{ChangeError, texts};
use crate::metrics::Rpc;
use holdfast_auth::{Authorized, Demands, KeyRange, Verb};
use holdfast_config::ListenUrl;
use holdfast_proto::etcdserverpb as pb;
use holdfast_proto::servers::etcdserverpb::cluster_server::Cluster;
use holdfast_tenant::{Answer, Command, Member, Membership, Refusal};
use std::sync::Arc;
use std::time::SystemTime;
use tonic::{Code, Request, Response, Status};

struct Look;

impl Demands for Look {
    fn demands(&self, _: &mut dyn FnMut(Verb, &KeyRange)) {}
}

#[tonic::async_trait]
impl Cluster for Session {
    async fn member_list(
        &self,
        request: Request<pb::MemberListRequest>,
    ) -> Result<Response<pb::MemberListResponse>, Status> {
        let (call, wire) = self.begin(Rpc::MemberList, request);
        call.run(async {
            if wire.linearizable {
                self.linearizable().await?;
            }
            call.authorize(Look).await?;
            Ok(pb::MemberListResponse {
                // Cluster answers carry no revision (behaviour §1.3).
                header: Some(self.header_at(0)),
                members: raise_all(&self.node().tenants.members()),
            })
        })
        .await
        .map(Response::new)
    }

    async fn member_add(
        &self,
        request: Request<pb::MemberAddRequest>,
    ) -> Result<Response<pb::MemberAddResponse>, Status> {
        let (call, wire) = self.begin(Rpc::MemberAdd, request);
        let named = wire.peer_ur_ls.join(",");
        call.entry().object(&named);
        call.run(async {
            let urls = self.peer_urls(&wire.peer_ur_ls)?;
            let config = &self.node().config;
            let id = member_id(
                &urls,
                &config.initial_cluster_token,
                Some(SystemTime::now()),
            );
            call.entry().object(&format!("{id:x}, {named}"));
            let command = Command::MemberAdd {
                id,
                peer_urls: texts(&urls),
                is_learner: wire.is_learner,
                max_learners: u32::try_from(config.max_learners).unwrap_or(u32::MAX),
            };
            let members = self.change_members(&call, command).await?;
            Ok(pb::MemberAddResponse {
                header: Some(self.header_at(0)),
                member: members.get(id).map(raise),
                members: raise_all(&members),
            })
        })
        .await
        .map(Response::new)
    }

    async fn member_remove(
        &self,
        request: Request<pb::MemberRemoveRequest>,
    ) -> Result<Response<pb::MemberRemoveResponse>, Status> {
        let (call, wire) = self.begin(Rpc::MemberRemove, request);
        call.entry().object(&format!("{:x}", wire.id));
        call.run(async {
            let command = Command::MemberRemove { id: wire.id };
            let members = self.change_members(&call, command).await?;
            Ok(pb::MemberRemoveResponse {
                header: Some(self.header_at(0)),
                members: raise_all(&members),
            })
        })
        .await
        .map(Response::new)
    }

    async fn member_update(
        &self,
        request: Request<pb::MemberUpdateRequest>,
    ) -> Result<Response<pb::MemberUpdateResponse>, Status> {
        let (call, wire) = self.begin(Rpc::MemberUpdate, request);
        call.entry()
            .object(&format!("{:x}, {}", wire.id, wire.peer_ur_ls.join(",")));
        call.run(async {
            let urls = self.peer_urls(&wire.peer_ur_ls)?;
            let command = Command::MemberUpdate {
                id: wire.id,
                peer_urls: texts(&urls),
            };
            let command = call.authorize(command).await?;
            // It changes no votes: an entry like any other.
            let Answer::Members(members) = self.commit(&call, command).await? else {
                return Err(super::kv::unexpected());
            };
            Ok(pb::MemberUpdateResponse {
                header: Some(self.header_at(0)),
                members: raise_all(&members),
            })
        })
        .await
        .map(Response::new)
    }

    async fn member_promote(
        &self,
        request: Request<pb::MemberPromoteRequest>,
    ) -> Result<Response<pb::MemberPromoteResponse>, Status> {
        let (call, wire) = self.begin(Rpc::MemberPromote, request);
        call.entry().object(&format!("{:x}", wire.id));
        call.run(async {
            let command = Command::MemberPromote { id: wire.id };
            let promoted = self.change_members(&call, command).await;
            let failure = promoted.as_ref().err().map(promotion_failure);
            self.node().metrics.promoted(failure);
            let members = promoted?;
            Ok(pb::MemberPromoteResponse {
                header: Some(self.header_at(0)),
                members: raise_all(&members),
            })
        })
        .await
        .map(Response::new)
    }
}

impl Connection {
    /// Reads peer URLs as the flags' are read.
    fn peer_urls(&self, texts: &[String]) -> Result<Vec<ListenUrl>, Status> {
        let invalid = || refuse(Refusal::MemberUrlsInvalid);
        let urls: Vec<ListenUrl> = texts
            .iter()
            .map(|text| ListenUrl::parse_peer(text).map_err(|_| invalid()))
            .collect::<Result<_, _>>()?;
        let node = self.node();
        let permitted = node
            .config
            .check_peer_security(node.identity.profile, &urls)
            .is_ok();
        let nowhere = urls.iter().any(|url| url.port() == Some(0));
        if urls.is_empty() || nowhere || !permitted {
            return Err(invalid());
        }
        Ok(urls)
    }

    async fn change_members(
        &self,
        call: &Call<'_>,
        command: Command,
    ) -> Result<Arc<Membership>, Status> {
        let authorized: Authorized<Command> = call.authorize(command).await?;
        self.node()
            .change_members(authorized.caller(), authorized.request())
            .await
            .map_err(|error| match error {
                ChangeError::Answered(status) => status,
                ChangeError::Propose(error) => self.unanswered(error),
            })
    }
}

/// Why a learner was not promoted, as a label: a fixed set of words.
fn promotion_failure(status: &Status) -> &'static str {
    match status.code() {
        Code::NotFound => "member not found",
        Code::FailedPrecondition if status.message() == Refusal::LearnerNotReady.to_string() => {
            "not in sync with leader"
        }
        Code::FailedPrecondition => "not possible",
        Code::PermissionDenied | Code::Unauthenticated | Code::InvalidArgument => "denied",
        _ => "no answer",
    }
}

fn raise_all(members: &Membership) -> Vec<pb::Member> {
    members.iter().map(raise).collect()
}

fn raise(member: &Member) -> pb::Member {
    pb::Member {
        id: member.id,
        // A member that has never started has no name (behaviour §1.7).
        name: if member.has_published() {
            member.name.clone()
        } else {
            String::new()
        },
        peer_ur_ls: member.peer_urls.clone(),
        client_ur_ls: member.client_urls.clone(),
        is_learner: member.is_learner,
    }
}
