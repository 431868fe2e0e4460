//! Raw gRPC stubs: every field of every message can be set and seen.

use crate::PATIENCE;
use holdfast_proto::etcdserverpb as pb;
use pb::{
    auth_client::AuthClient, cluster_client::ClusterClient, kv_client::KvClient,
    lease_client::LeaseClient, maintenance_client::MaintenanceClient, watch_client::WatchClient,
};
use tonic::{
    Request, Status, Streaming,
    metadata::{AsciiMetadataKey, AsciiMetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Channel, Endpoint},
};

/// A connection whose calls all carry the same metadata.
pub type Carrier = InterceptedService<Channel, Metadata>;

/// What each call of a [`Raw`] carries in its metadata: nothing, unless it was made by [`Raw::with_metadata`].
#[derive(Clone, Default)]
pub struct Metadata(Vec<(AsciiMetadataKey, AsciiMetadataValue)>);

impl Interceptor for Metadata {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        for (key, value) in &self.0 {
            request.metadata_mut().append(key, value.clone());
        }
        Ok(request)
    }
}

/// The stubs of one connection. Messages of any size are received, as Go's clientv3 does; clones share the connection.
#[derive(Clone)]
pub struct Raw {
    /// The connection.
    pub channel: Channel,
    /// The connection with the metadata of each call, for stubs that are not here.
    pub carrier: Carrier,
    /// KV.
    pub kv: KvClient<Carrier>,
    /// Watch.
    pub watch: WatchClient<Carrier>,
    /// Lease.
    pub lease: LeaseClient<Carrier>,
    /// Cluster.
    pub cluster: ClusterClient<Carrier>,
    /// Maintenance.
    pub maintenance: MaintenanceClient<Carrier>,
    /// Auth.
    pub auth: AuthClient<Carrier>,
}

/// A unary call with a deadline, so that a server that does not answer fails the test.
macro_rules! unary {
    ($(#[$doc:meta])* $name:ident, $stub:ident . $method:ident, $request:ty, $response:ty) => {
        $(#[$doc])*
        pub async fn $name(&self, request: $request) -> Result<$response, Status> {
            let mut request = tonic::Request::new(request);
            request.set_timeout($crate::PATIENCE);
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
        Self::carrying(channel, Metadata::default())
    }

    /// The same connection, with each call carrying exactly this metadata.
    pub fn with_metadata(&self, entries: &[(&'static str, &str)]) -> Self {
        let entries = entries.iter().map(|(key, value)| {
            let key = AsciiMetadataKey::from_static(key);
            (key, value.parse().expect("a metadata value"))
        });
        Self::carrying(self.channel.clone(), Metadata(entries.collect()))
    }

    fn carrying(channel: Channel, metadata: Metadata) -> Self {
        let any = usize::MAX;
        let carrier = InterceptedService::new(channel.clone(), metadata);
        Self {
            kv: KvClient::new(carrier.clone()).max_decoding_message_size(any),
            watch: WatchClient::new(carrier.clone()).max_decoding_message_size(any),
            lease: LeaseClient::new(carrier.clone()).max_decoding_message_size(any),
            cluster: ClusterClient::new(carrier.clone()),
            maintenance: MaintenanceClient::new(carrier.clone()).max_decoding_message_size(any),
            auth: AuthClient::new(carrier.clone()),
            carrier,
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

    /// One Lease.LeaseKeepAlive on a stream of its own: the time to live, 0 for a lease that does not exist (any more).
    pub async fn keep_alive(&self, id: i64) -> Result<i64, Status> {
        let requests = tokio_stream::iter([pb::LeaseKeepAliveRequest { id }]);
        let answers = self.lease.clone().lease_keep_alive(requests).await?;
        match answers.into_inner().message().await? {
            Some(answer) => Ok(answer.ttl),
            None => Err(Status::unavailable("the stream ended without an answer")),
        }
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

pub(crate) use unary;
