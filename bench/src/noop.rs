//! The do-nothing server: tonic's services with etcd's messages and an answer that costs nothing to find. What it reaches is the
//! ceiling for any server of this protocol on this machine.
//!
//! It has the shape of a fast server: one current-thread runtime per core, connections dealt to them in turn.

use bytes::Bytes;
use futures::future::BoxFuture;
use holdfast_certs::{ServerTls, ServerTlsSettings, TlsError, TlsVersion};
use holdfast_proto::{
    etcdserverpb as pb, mvccpb,
    servers::etcdserverpb::{
        kv_server::{Kv, KvServer},
        lease_server::{Lease, LeaseServer},
    },
};
use holdfast_transport::Coalesce;
use hyper::{body::Incoming, server::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use std::{
    convert::Infallible,
    io,
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    thread,
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::mpsc,
};
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status, Streaming};
use tower_service::Service;

/// Connections that wait for a thread to take them.
const QUEUE: usize = 1_024;

/// Key-values in the answer to a range, unless its limit is lower.
const RANGE_KEYS: usize = 500;

/// Streams per connection, as many as any load opens.
const STREAMS: u32 = 10_000;

/// A handshake must end within this.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// How the do-nothing server listens.
pub(crate) struct NoopSettings {
    pub(crate) listen: SocketAddr,
    pub(crate) threads: usize,
    pub(crate) value_bytes: usize,
    pub(crate) tls: Option<ServerFiles>,
}

/// Files of a server that requires client certificates.
pub(crate) struct ServerFiles {
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
    pub(crate) client_ca: PathBuf,
}

/// Why it could not serve.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoopError {
    #[error("listen on {address}: {source}")]
    Listen {
        address: SocketAddr,
        source: io::Error,
    },
    #[error("TLS of the server: {0}")]
    Tls(#[from] TlsError),
    #[error("start a runtime: {0}")]
    Runtime(io::Error),
    #[error("accept: {0}")]
    Accept(io::Error),
    #[error("the threads that serve have ended")]
    Ended,
}

/// Serves until the process ends. `ready` gets the address bound.
pub(crate) fn serve(
    settings: &NoopSettings,
    ready: impl FnOnce(SocketAddr),
) -> Result<Infallible, NoopError> {
    let failed = |source| NoopError::Listen {
        address: settings.listen,
        source,
    };
    let listener = TcpListener::bind(settings.listen).map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    let tls = settings.tls.as_ref().map(load).transpose()?.map(Arc::new);
    let services = Services::new(settings.value_bytes);
    let mut threads = Vec::new();
    for number in 0..settings.threads.max(1) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let services = services.clone();
        let tls = tls.clone();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(NoopError::Runtime)?;
        thread::Builder::new()
            .name(format!("serve-{number}"))
            .spawn(move || runtime.block_on(serve_connections(receiver, services, tls)))
            .map_err(NoopError::Runtime)?;
        threads.push(sender);
    }
    ready(bound);
    for thread in threads.iter().cycle() {
        let (stream, _) = listener.accept().map_err(NoopError::Accept)?;
        thread.blocking_send(stream).map_err(|_| NoopError::Ended)?;
    }
    Err(NoopError::Ended)
}

fn load(files: &ServerFiles) -> Result<ServerTls, TlsError> {
    ServerTls::load(ServerTlsSettings {
        // etcd's default range of versions; clients choose 1.3.
        min_version: TlsVersion::Tls12,
        ..ServerTlsSettings::new(&files.cert, &files.key).with_client_ca(&files.client_ca)
    })
}

async fn serve_connections(
    mut connections: mpsc::Receiver<std::net::TcpStream>,
    services: Services,
    tls: Option<Arc<ServerTls>>,
) {
    while let Some(stream) = connections.recv().await {
        let services = services.clone();
        let tls = tls.clone();
        drop(tokio::spawn(async move {
            // A connection that fails is its client's affair: it sees the error itself.
            let _ = serve_connection(stream, services, tls).await;
        }));
    }
}

async fn serve_connection(
    stream: std::net::TcpStream,
    services: Services,
    tls: Option<Arc<ServerTls>>,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_nonblocking(true)?;
    let stream = TcpStream::from_std(stream)?;
    let Some(tls) = tls else {
        return serve_http(stream, services).await;
    };
    let (stream, _) = tokio::time::timeout(HANDSHAKE, holdfast_certs::accept(&tls, stream))
        .await?
        .map_err(io::Error::other)?;
    serve_http(stream, services).await
}

async fn serve_http<T>(stream: T, services: Services) -> io::Result<()>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .serve_connection(TokioIo::new(Coalesce::new(stream)), services)
        .await
        .map_err(io::Error::other)
}

/// The services by path, without a router: it would be the dearest part.
#[derive(Clone)]
struct Services {
    kv: KvServer<Answers>,
    lease: LeaseServer<Answers>,
}

impl Services {
    fn new(value_bytes: usize) -> Self {
        let answers = Arc::new(Answers::new(value_bytes));
        Self {
            kv: KvServer::from_arc(Arc::clone(&answers)),
            lease: LeaseServer::from_arc(answers),
        }
    }
}

impl hyper::service::Service<http::Request<Incoming>> for Services {
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn call(&self, request: http::Request<Incoming>) -> Self::Future {
        if request.uri().path().starts_with("/etcdserverpb.Lease/") {
            self.lease.clone().call(request)
        } else {
            // The KV service answers `Unimplemented` to what it does not know.
            self.kv.clone().call(request)
        }
    }
}

/// The fixed answers.
struct Answers {
    kvs: Vec<mvccpb::KeyValue>,
    lease: AtomicI64,
}

impl Answers {
    fn new(value_bytes: usize) -> Self {
        let kvs = (0..RANGE_KEYS)
            .map(|number| mvccpb::KeyValue {
                key: Bytes::from(format!("/bench/k/{number:010}")),
                create_revision: 100_000,
                mod_revision: 200_000,
                version: 3,
                value: Bytes::from(vec![b'v'; value_bytes]),
                lease: 0,
            })
            .collect();
        Self {
            kvs,
            lease: AtomicI64::new(1),
        }
    }
}

fn header() -> Option<pb::ResponseHeader> {
    Some(pb::ResponseHeader {
        cluster_id: 0xcdf8_181e_3277_6aa2,
        member_id: 0x8e9e_05c5_2164_694d,
        revision: 1_000_000,
        raft_term: 2,
    })
}

type Answered<T> = Result<Response<T>, Status>;
type Flow<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

fn unserved<T>() -> Answered<T> {
    Err(Status::unimplemented("the do-nothing server has no answer"))
}

#[tonic::async_trait]
impl Kv for Answers {
    type RangeStreamStream = Flow<pb::RangeStreamResponse>;

    async fn range(&self, request: Request<pb::RangeRequest>) -> Answered<pb::RangeResponse> {
        let request = request.into_inner();
        let keys = if request.count_only {
            0
        } else if request.range_end.is_empty() {
            1
        } else {
            match usize::try_from(request.limit) {
                Ok(limit) if limit > 0 => limit.min(RANGE_KEYS),
                _ => RANGE_KEYS,
            }
        };
        Ok(Response::new(pb::RangeResponse {
            header: header(),
            kvs: self.kvs.iter().take(keys).cloned().collect(),
            more: keys == RANGE_KEYS,
            count: 1_000,
        }))
    }

    async fn range_stream(
        &self,
        _: Request<pb::RangeRequest>,
    ) -> Answered<Self::RangeStreamStream> {
        unserved()
    }

    async fn put(&self, _: Request<pb::PutRequest>) -> Answered<pb::PutResponse> {
        Ok(Response::new(pb::PutResponse {
            header: header(),
            prev_kv: None,
        }))
    }

    async fn delete_range(
        &self,
        _: Request<pb::DeleteRangeRequest>,
    ) -> Answered<pb::DeleteRangeResponse> {
        unserved()
    }

    async fn txn(&self, request: Request<pb::TxnRequest>) -> Answered<pb::TxnResponse> {
        let responses = request
            .into_inner()
            .success
            .iter()
            .map(|_| pb::ResponseOp {
                response: Some(pb::response_op::Response::ResponsePut(pb::PutResponse {
                    header: header(),
                    prev_kv: None,
                })),
            })
            .collect();
        Ok(Response::new(pb::TxnResponse {
            header: header(),
            succeeded: true,
            responses,
        }))
    }

    async fn compact(&self, _: Request<pb::CompactionRequest>) -> Answered<pb::CompactionResponse> {
        unserved()
    }
}

#[tonic::async_trait]
impl Lease for Answers {
    type LeaseKeepAliveStream = Flow<pb::LeaseKeepAliveResponse>;

    async fn lease_grant(
        &self,
        request: Request<pb::LeaseGrantRequest>,
    ) -> Answered<pb::LeaseGrantResponse> {
        Ok(Response::new(pb::LeaseGrantResponse {
            header: header(),
            id: self.lease.fetch_add(1, Ordering::Relaxed),
            ttl: request.into_inner().ttl,
            error: String::new(),
        }))
    }

    async fn lease_revoke(
        &self,
        _: Request<pb::LeaseRevokeRequest>,
    ) -> Answered<pb::LeaseRevokeResponse> {
        unserved()
    }

    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<pb::LeaseKeepAliveRequest>>,
    ) -> Answered<Self::LeaseKeepAliveStream> {
        let answers = request.into_inner().map(|request| {
            Ok(pb::LeaseKeepAliveResponse {
                header: header(),
                id: request?.id,
                ttl: 3_600,
            })
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn lease_time_to_live(
        &self,
        _: Request<pb::LeaseTimeToLiveRequest>,
    ) -> Answered<pb::LeaseTimeToLiveResponse> {
        unserved()
    }

    async fn lease_leases(
        &self,
        _: Request<pb::LeaseLeasesRequest>,
    ) -> Answered<pb::LeaseLeasesResponse> {
        unserved()
    }
}
