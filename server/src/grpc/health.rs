//! The gRPC health protocol. Only the whole server, the empty name, is known.

use super::{Session, errors};
use holdfast_proto::health::health_check_response::ServingStatus;
use holdfast_proto::health::{HealthCheckRequest, HealthCheckResponse};
use holdfast_proto::servers::health::health_server::Health;
use std::pin::Pin;
use std::time::Duration;
use tokio_stream::Stream;
use tonic::{Request, Response, Status};

/// How often a watched health is looked at.
const LOOK: Duration = Duration::from_secs(1);

fn answer(serving: bool) -> HealthCheckResponse {
    let status = if serving {
        ServingStatus::Serving
    } else {
        ServingStatus::NotServing
    };
    HealthCheckResponse {
        status: status as i32,
    }
}

impl Session {
    /// Not while it stops, nor when others could serve and it cannot: its log's disk is full.
    fn is_serving(&self) -> bool {
        let node = self.node();
        let is_out = node.status.disk_full() && node.tenants.members().len() > 1;
        !*node.shutdown.borrow() && !is_out
    }

    /// A learner serves nothing that clients could be sent to.
    fn check_member(&self) -> Result<(), Status> {
        if self.node().is_learner() {
            return Err(errors::not_for_learners());
        }
        Ok(())
    }
}

#[tonic::async_trait]
impl Health for Session {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        self.check_member()?;
        if !request.get_ref().service.is_empty() {
            return Err(Status::not_found("unknown service"));
        }
        Ok(Response::new(answer(self.is_serving())))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        self.check_member()?;
        if !request.get_ref().service.is_empty() {
            let unknown = HealthCheckResponse {
                status: ServingStatus::ServiceUnknown as i32,
            };
            let stream = futures::stream::unfold(Some(unknown), |first| async move {
                match first {
                    Some(first) => Some((Ok(first), None)),
                    // The protocol keeps the stream open: the service might come. Here it never does.
                    None => futures::future::pending().await,
                }
            });
            return Ok(Response::new(Box::pin(stream)));
        }
        let session = self.clone();
        let shutdown = self.node().shutdown.subscribe();
        let stream = futures::stream::unfold((shutdown, None), move |(mut shutdown, told)| {
            let session = session.clone();
            async move {
                loop {
                    let serving = session.is_serving();
                    if told != Some(serving) {
                        return Some((Ok(answer(serving)), (shutdown, Some(serving))));
                    }
                    tokio::select! {
                        stopping = shutdown.changed() => stopping.ok()?,
                        () = tokio::time::sleep(LOOK) => {}
                    }
                }
            }
        });
        Ok(Response::new(Box::pin(stream)))
    }
}
