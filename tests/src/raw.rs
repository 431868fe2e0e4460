//! Raw gRPC stubs: every field of every message can be set and seen.

use crate::PATIENCE;
use holdfast_proto::etcdserverpb as pb;
use pb::{
    cluster_client::ClusterClient, kv_client::KvClient, lease_client::LeaseClient,
    maintenance_client::MaintenanceClient, watch_client::WatchClient,
};
use tonic::{
    Status, Streaming,
    transport::{Channel, Endpoint},
};

/// The stubs of one connection. Messages of any size are received, as Go's clientv3 does; clones share the connection.
#[derive(Clone)]
pub struct Raw {
    /// The connection.
    pub channel: Channel,
    /// KV.
    pub kv: KvClient<Channel>,
    /// Watch.
    pub watch: WatchClient<Channel>,
    /// Lease.
    pub lease: LeaseClient<Channel>,
    /// Cluster.
    pub cluster: ClusterClient<Channel>,
    /// Maintenance.
    pub maintenance: MaintenanceClient<Channel>,
}

macro_rules! unary {
    ($(#[$doc:meta])* $name:ident, $stub:ident . $method:ident, $request:ty, $response:ty) => {
        $(#[$doc])*
        pub async fn $name(&self, request: $request) -> Result<$response, Status> {
            let mut request = tonic::Request::new(request);
            request.set_timeout(PATIENCE);
            Ok(self.$stub.clone().$method(request).await?.into_inner())
        }
    };
}

impl Raw {
    /// Connects to `endpoint` (`http://address:port`).
    pub async fn connect(endpoint: &str) -> Self {
        Self::try_connect(endpoint)
            .await
            .expect("a raw client connects")
    }

    /// Connects, or tells why not.
    pub async fn try_connect(endpoint: &str) -> Result<Self, tonic::transport::Error> {
        let endpoint = Endpoint::from_shared(endpoint.to_owned())?.connect_timeout(PATIENCE);
        Ok(Self::over(endpoint.connect().await?))
    }

    /// Stubs over a connection that exists.
    pub fn over(channel: Channel) -> Self {
        let any = usize::MAX;
        Self {
            kv: KvClient::new(channel.clone()).max_decoding_message_size(any),
            watch: WatchClient::new(channel.clone()).max_decoding_message_size(any),
            lease: LeaseClient::new(channel.clone()).max_decoding_message_size(any),
            cluster: ClusterClient::new(channel.clone()),
            maintenance: MaintenanceClient::new(channel.clone()).max_decoding_message_size(any),
            channel,
        }
    }

    unary!(
        /// KV.Range.
        range, kv.range, pb::RangeRequest, pb::RangeResponse
    );
    unary!(
        /// KV.Put.
        put, kv.put, pb::PutRequest, pb::PutResponse
    );
    unary!(
        /// KV.DeleteRange.
        delete, kv.delete_range, pb::DeleteRangeRequest, pb::DeleteRangeResponse
    );
    unary!(
        /// KV.Txn.
        txn, kv.txn, pb::TxnRequest, pb::TxnResponse
    );
    unary!(
        /// KV.Compact with every option.
        compaction, kv.compact, pb::CompactionRequest, pb::CompactionResponse
    );
    unary!(
        /// Lease.LeaseGrant.
        grant, lease.lease_grant, pb::LeaseGrantRequest, pb::LeaseGrantResponse
    );
    unary!(
        /// Lease.LeaseTimeToLive.
        time_to_live, lease.lease_time_to_live, pb::LeaseTimeToLiveRequest, pb::LeaseTimeToLiveResponse
    );
    unary!(
        /// Maintenance.Alarm.
        alarm, maintenance.alarm, pb::AlarmRequest, pb::AlarmResponse
    );

    /// KV.RangeStream, opened.
    pub async fn range_stream(
        &self,
        request: pb::RangeRequest,
    ) -> Result<Streaming<pb::RangeStreamResponse>, Status> {
        Ok(self.kv.clone().range_stream(request).await?.into_inner())
    }

    /// KV.RangeStream, read to its end.
    pub async fn range_chunks(
        &self,
        request: pb::RangeRequest,
    ) -> Result<Vec<pb::RangeResponse>, Status> {
        let mut stream = self.range_stream(request).await?;
        let mut chunks = Vec::new();
        while let Some(chunk) = stream.message().await? {
            chunks.push(chunk.range_response.expect("a chunk"));
        }
        Ok(chunks)
    }

    /// Logical compaction at `revision`.
    pub async fn compact(&self, revision: i64) -> Result<pb::CompactionResponse, Status> {
        self.compaction(pb::CompactionRequest {
            revision,
            physical: false,
        })
        .await
    }

    /// Lease.LeaseRevoke.
    pub async fn revoke(&self, id: i64) -> Result<pb::LeaseRevokeResponse, Status> {
        let request = pb::LeaseRevokeRequest { id };
        Ok(self.lease.clone().lease_revoke(request).await?.into_inner())
    }

    /// Lease.LeaseLeases: the ids.
    pub async fn leases(&self) -> Result<Vec<i64>, Status> {
        let request = pb::LeaseLeasesRequest {};
        let answer = self.lease.clone().lease_leases(request).await?.into_inner();
        Ok(answer.leases.iter().map(|lease| lease.id).collect())
    }

    /// Maintenance.Status.
    pub async fn status(&self) -> Result<pb::StatusResponse, Status> {
        let request = pb::StatusRequest {};
        Ok(self.maintenance.clone().status(request).await?.into_inner())
    }

    /// Maintenance.HashKV.
    pub async fn hash_kv(&self, revision: i64) -> Result<pb::HashKvResponse, Status> {
        let request = pb::HashKvRequest { revision };
        Ok(self
            .maintenance
            .clone()
            .hash_kv(request)
            .await?
            .into_inner())
    }

    /// The current revision.
    pub async fn revision(&self) -> i64 {
        let answer = self.range(crate::wire::get("a")).await.expect("a range");
        crate::wire::revision(&answer.header)
    }
}
