//! The Cluster service: the member list. Changes of membership are not served.

use super::Session;
use crate::metrics::Rpc;
use holdfast_auth::{Demands, KeyRange, Verb};
use holdfast_proto::etcdserverpb as pb;
use holdfast_proto::servers::etcdserverpb::cluster_server::Cluster;
use tonic::{Request, Response, Status};

struct Members;

impl Demands for Members {
    fn demands(&self, _: &mut dyn FnMut(Verb, &KeyRange)) {}
}

fn not_served() -> Status {
    Status::unimplemented("etcdserver: membership cannot be changed on a node that stands alone")
}

#[tonic::async_trait]
impl Cluster for Session {
    async fn member_list(
        &self,
        request: Request<pb::MemberListRequest>,
    ) -> Result<Response<pb::MemberListResponse>, Status> {
        let (call, wire) = self.begin(Rpc::MemberList, request);
        call.run(async {
            call.authorize(Members).await?;
            if wire.linearizable {
                self.linearizable()?;
            }
            let node = self.node();
            let texts = |urls: &[holdfast_config::ListenUrl]| {
                urls.iter().map(ToString::to_string).collect()
            };
            Ok(pb::MemberListResponse {
                // Cluster answers carry no revision (behaviour §1.3).
                header: Some(self.header_at(0)),
                members: vec![pb::Member {
                    id: node.identity.member,
                    name: node.config.name.clone(),
                    peer_ur_ls: texts(&node.config.initial_advertise_peer_urls),
                    client_ur_ls: texts(&node.config.advertise_client_urls),
                    is_learner: false,
                }],
            })
        })
        .await
        .map(Response::new)
    }

    async fn member_add(
        &self,
        _: Request<pb::MemberAddRequest>,
    ) -> Result<Response<pb::MemberAddResponse>, Status> {
        Err(not_served())
    }

    async fn member_remove(
        &self,
        _: Request<pb::MemberRemoveRequest>,
    ) -> Result<Response<pb::MemberRemoveResponse>, Status> {
        Err(not_served())
    }

    async fn member_update(
        &self,
        _: Request<pb::MemberUpdateRequest>,
    ) -> Result<Response<pb::MemberUpdateResponse>, Status> {
        Err(not_served())
    }

    async fn member_promote(
        &self,
        _: Request<pb::MemberPromoteRequest>,
    ) -> Result<Response<pb::MemberPromoteResponse>, Status> {
        Err(not_served())
    }
}
