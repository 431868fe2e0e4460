//! A server of a few calls that is as fussy about tokens as a test wants it to be.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    net::TcpListener,
    sync::{Arc, Mutex, PoisonError},
};

use futures::stream::{self, BoxStream, StreamExt};
use holdfast_proto::{
    authpb::Permission,
    etcdserverpb::*,
    mvccpb::{Event, KeyValue},
};
use hyper::{body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tonic::{
    Code, Request, Response, Status, Streaming,
    body::Body,
    codec::Codec,
    server::{Grpc, ServerStreamingService, StreamingService, UnaryService},
};
use tonic_prost::ProstCodec;

/// The password of every user.
pub(super) const PASSWORD: &str = "open sesame";

/// What the server makes of tokens, which it numbers: `token-1`, `token-2`.
#[derive(Debug, Clone, Copy)]
pub(super) enum Rule {
    TakesAll,
    /// The first request fails for this reason.
    RefusesFirst(&'static str),
    RefusesAll(&'static str),
    /// Authentication is off.
    HasNoLogin,
}

/// A running server; it ends with the process.
pub(super) struct Server {
    pub(super) address: String,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Default)]
struct Seen {
    logins: usize,
    /// The tokens of all other requests, empty for none.
    tokens: Vec<String>,
}

impl Server {
    pub(super) fn start(rule: Rule) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound").to_string();
        listener.set_nonblocking(true).expect("a socket");
        let seen = Arc::new(Mutex::new(Seen::default()));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let calls = Calls {
            rule,
            seen: seen.clone(),
        };
        std::thread::spawn(move || runtime.block_on(serve(listener, calls)));
        Server { address, seen }
    }

    pub(super) fn logins(&self) -> usize {
        lock(&self.seen).logins
    }

    pub(super) fn requests(&self) -> Vec<String> {
        lock(&self.seen).tokens.clone()
    }
}

fn lock(seen: &Mutex<Seen>) -> std::sync::MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn serve(listener: TcpListener, calls: Calls) {
    let listener = tokio::net::TcpListener::from_std(listener).expect("a socket");
    while let Ok((socket, _)) = listener.accept().await {
        let calls = calls.clone();
        let service = service_fn(move |request| {
            let calls = calls.clone();
            async move { Ok::<_, Infallible>(calls.answer(request).await) }
        });
        let connection = http2::Builder::new(TokioExecutor::new())
            .serve_connection(TokioIo::new(socket), service);
        tokio::spawn(connection);
    }
}

#[derive(Clone)]
struct Calls {
    rule: Rule,
    seen: Arc<Mutex<Seen>>,
}

impl Calls {
    async fn answer(&self, request: http::Request<Incoming>) -> http::Response<Body> {
        let path = request.uri().path().to_owned();
        if path == "/etcdserverpb.Auth/Authenticate" {
            let login = |request: AuthenticateRequest| self.login(&request);
            return unary(request, login).await;
        }
        let token = request.headers().get("token");
        let token = token.map(|token| token.to_str().expect("a token is text"));
        let taken = self.judge(token.unwrap_or_default());
        match path.as_str() {
            "/etcdserverpb.KV/Range" => {
                unary(request, |_: RangeRequest| {
                    taken.map(|()| RangeResponse {
                        kvs: vec![pair()],
                        ..RangeResponse::default()
                    })
                })
                .await
            }
            "/etcdserverpb.KV/Put" => {
                unary(request, |_: PutRequest| {
                    taken.map(|()| PutResponse::default())
                })
                .await
            }
            "/etcdserverpb.Auth/UserAdd" => {
                unary(request, |request: AuthUserAddRequest| {
                    taken?;
                    match request.password.as_str() {
                        PASSWORD => Ok(AuthUserAddResponse::default()),
                        _ => Err(Status::invalid_argument("another password")),
                    }
                })
                .await
            }
            "/etcdserverpb.Auth/UserGet" => {
                unary(request, |_: AuthUserGetRequest| {
                    taken.map(|()| AuthUserGetResponse {
                        roles: vec!["one".to_owned(), "two".to_owned()],
                        ..AuthUserGetResponse::default()
                    })
                })
                .await
            }
            "/etcdserverpb.Auth/RoleGet" => {
                unary(request, |_: AuthRoleGetRequest| {
                    let permission = Permission {
                        key: "k".into(),
                        ..Permission::default()
                    };
                    taken.map(|()| AuthRoleGetResponse {
                        perm: vec![permission],
                        ..AuthRoleGetResponse::default()
                    })
                })
                .await
            }
            "/etcdserverpb.Lease/LeaseKeepAlive" => {
                let renewed = LeaseKeepAliveResponse {
                    id: 1,
                    ttl: 9,
                    ..LeaseKeepAliveResponse::default()
                };
                // A stream is accepted before it is looked at.
                let answers = vec![taken.map(|()| renewed)];
                both_ways::<LeaseKeepAliveRequest, _>(request, answers).await
            }
            "/etcdserverpb.Watch/Watch" => {
                both_ways::<WatchRequest, _>(request, watch(taken)).await
            }
            "/etcdserverpb.Maintenance/Snapshot" => {
                let blob = SnapshotResponse {
                    blob: "blob".into(),
                    ..SnapshotResponse::default()
                };
                let pieces = Answers(vec![taken.map(|()| blob)]);
                Grpc::new(ProstCodec::<SnapshotResponse, SnapshotRequest>::default())
                    .server_streaming(pieces, request)
                    .await
            }
            other => panic!("no test calls {other}"),
        }
    }

    fn login(&self, request: &AuthenticateRequest) -> Result<AuthenticateResponse, Status> {
        let mut seen = lock(&self.seen);
        seen.logins += 1;
        if matches!(self.rule, Rule::HasNoLogin) {
            let text = "etcdserver: authentication is not enabled";
            return Err(Status::failed_precondition(text));
        }
        if request.name != "alice" || request.password != PASSWORD {
            let text = "etcdserver: authentication failed, invalid user ID or password";
            return Err(Status::invalid_argument(text));
        }
        Ok(AuthenticateResponse {
            token: format!("token-{}", seen.logins),
            ..AuthenticateResponse::default()
        })
    }

    fn judge(&self, token: &str) -> Result<(), Status> {
        let mut seen = lock(&self.seen);
        seen.tokens.push(token.to_owned());
        match self.rule {
            Rule::RefusesAll(reason) => Err(reason),
            Rule::RefusesFirst(reason) if seen.tokens.len() == 1 => Err(reason),
            _ => Ok(()),
        }
        .map_err(|reason| Status::new(Code::Unauthenticated, reason))
    }
}

/// The answers to a watch: a refusal, or an event and an end.
fn watch(taken: Result<(), Status>) -> Vec<Result<WatchResponse, Status>> {
    let created = WatchResponse {
        watch_id: 1,
        created: true,
        ..WatchResponse::default()
    };
    match taken {
        Err(status) => vec![Ok(WatchResponse {
            watch_id: -1,
            canceled: true,
            cancel_reason: format!(
                "rpc error: code = Unauthenticated desc = {}",
                status.message()
            ),
            ..created
        })],
        Ok(()) => {
            let event = Event {
                kv: Some(pair()),
                ..Event::default()
            };
            let events = WatchResponse {
                watch_id: 1,
                events: vec![event],
                ..WatchResponse::default()
            };
            let end = WatchResponse {
                watch_id: 1,
                canceled: true,
                cancel_reason: "enough".to_owned(),
                ..WatchResponse::default()
            };
            vec![Ok(created), Ok(events), Ok(end)]
        }
    }
}

fn pair() -> KeyValue {
    KeyValue {
        key: "k".into(),
        value: "v".into(),
        ..KeyValue::default()
    }
}

async fn unary<Q, A>(
    request: http::Request<Incoming>,
    answer: impl FnOnce(Q) -> Result<A, Status>,
) -> http::Response<Body>
where
    Q: Send + 'static,
    A: Send + 'static,
    ProstCodec<A, Q>: Codec<Encode = A, Decode = Q> + Default,
{
    Grpc::new(<ProstCodec<A, Q>>::default())
        .unary(Once(Some(answer)), request)
        .await
}

async fn both_ways<Q, A>(
    request: http::Request<Incoming>,
    answers: Vec<Result<A, Status>>,
) -> http::Response<Body>
where
    Q: Send + 'static,
    A: Send + 'static,
    ProstCodec<A, Q>: Codec<Encode = A, Decode = Q> + Default,
{
    Grpc::new(<ProstCodec<A, Q>>::default())
        .streaming(Answers(answers), request)
        .await
}

struct Once<F>(Option<F>);

impl<Q, A, F: FnOnce(Q) -> Result<A, Status>> UnaryService<Q> for Once<F> {
    type Response = A;
    type Future = Ready<Result<Response<A>, Status>>;

    fn call(&mut self, request: Request<Q>) -> Self::Future {
        let answer = self.0.take().expect("asked once");
        ready(answer(request.into_inner()).map(Response::new))
    }
}

struct Answers<A>(Vec<Result<A, Status>>);

impl<A: Send + 'static> Answers<A> {
    fn stream(&mut self) -> Response<BoxStream<'static, Result<A, Status>>> {
        Response::new(stream::iter(std::mem::take(&mut self.0)).boxed())
    }
}

impl<Q, A: Send + 'static> StreamingService<Q> for Answers<A> {
    type Response = A;
    type ResponseStream = BoxStream<'static, Result<A, Status>>;
    type Future = Ready<Result<Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, _: Request<Streaming<Q>>) -> Self::Future {
        ready(Ok(self.stream()))
    }
}

impl<Q, A: Send + 'static> ServerStreamingService<Q> for Answers<A> {
    type Response = A;
    type ResponseStream = BoxStream<'static, Result<A, Status>>;
    type Future = Ready<Result<Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, _: Request<Q>) -> Self::Future {
        ready(Ok(self.stream()))
    }
}
