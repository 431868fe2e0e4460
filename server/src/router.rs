//! One connection's requests: gRPC to the services, the rest to HTTP.

use crate::body::{Answer as AnswerBody, Counted, Prepared, Share};
use crate::grpc::Services;
use crate::held::{Held, Inbound, Kind, Unsent};
use crate::http as pages;
use crate::metrics::{Rpc, RpcKind};
use crate::probe::NodeProbe;
use bytes::Bytes;
use holdfast_auth::{HttpPolicy, http_policy};
use holdfast_config::Profile;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use parking_lot::Mutex;
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tonic::body::Body;
use tower_service::Service;

/// What a listener serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Surfaces {
    pub(crate) grpc: bool,
    pub(crate) http: bool,
    /// Whether it is one of the clients', and not one of those for metrics and health alone.
    pub(crate) for_clients: bool,
    /// Whether the listener is plaintext: host names are checked there (CVE-2018-1099).
    pub(crate) plaintext: bool,
}

/// Serves one connection.
#[derive(Clone)]
pub(crate) struct Router {
    pub(crate) services: Services,
    pub(crate) probe: Arc<NodeProbe>,
    pub(crate) surfaces: Surfaces,
}

/// Longest that an answer counts against the memory budget while its client does not read it.
const HOLD_MAX: Duration = Duration::from_secs(30);

type Answer = Pin<Box<dyn Future<Output = Result<http::Response<AnswerBody>, Infallible>> + Send>>;

impl hyper::service::Service<http::Request<Incoming>> for Router {
    type Response = http::Response<AnswerBody>;
    type Error = Infallible;
    type Future = Answer;

    fn call(&self, request: http::Request<Incoming>) -> Answer {
        let is_grpc = request
            .headers()
            .get(http::header::CONTENT_TYPE)
            .is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
        if is_grpc && request.version() != http::Version::HTTP_2 {
            // gRPC is HTTP/2 alone. What comes by HTTP/1.1 may come from a page in a browser, whose Host and Origin nobody checks here.
            self.at_once(empty(http::StatusCode::HTTP_VERSION_NOT_SUPPORTED))
        } else if is_grpc && self.surfaces.grpc {
            self.grpc(request)
        } else if self.surfaces.http && !is_grpc {
            self.http(request)
        } else {
            self.at_once(empty(http::StatusCode::NOT_FOUND))
        }
    }
}

impl Router {
    fn unsent(&self, kind: Kind) -> Unsent {
        Unsent::new(self.services.connection.held.clone(), kind)
    }

    /// An answer of a few bytes.
    fn at_once(&self, response: http::Response<Body>) -> Answer {
        let unsent = self.unsent(Kind::Short);
        let response = response.map(|body| AnswerBody::new(body, unsent, false, None));
        Box::pin(std::future::ready(Ok(response)))
    }

    fn grpc(&self, request: http::Request<Incoming>) -> Answer {
        let Some(rpc) = Rpc::from_path(request.uri().path()) else {
            return self.at_once(unimplemented(request.uri().path()));
        };
        if holdfast_auth::policy(rpc.path()).is_none() {
            return self.at_once(unimplemented(rpc.path()));
        }
        let version = request.headers().get("client-api-version");
        self.services
            .connection
            .node()
            .metrics
            .client_request(rpc, version.map(http::HeaderValue::as_bytes));
        if version.is_some_and(|version| version.to_str().is_err()) {
            let status = tonic::Status::invalid_argument("etcdserver: invalid client api version");
            return self.at_once(status.into_http());
        }
        let streams = rpc.kind() != RpcKind::Unary;
        let held = self.services.connection.held.clone();
        let inbound = Arc::new(Inbound::new(held.clone()));
        let counted = inbound.clone();
        let asks = rpc.kind() == RpcKind::BidiStream;
        let request = request.map(|body| Body::new(Counted::new(body, counted, asks)));
        let connection = self.services.connection.clone();
        let is_unknown = connection.may_be_known_elsewhere(request.headers());
        macro_rules! to {
            ($service:ident) => {{
                let mut service = self.services.$service.clone();
                Box::pin(async move {
                    if !held.has_room(Kind::Short) {
                        held.room(Kind::Short).await;
                    }
                    if is_unknown && let Err(status) = connection.catch_up(rpc).await {
                        return Ok(deliver(status.into_http(), held, streams));
                    }
                    let answer = service.call(request).await?;
                    drop(inbound);
                    Ok(deliver(answer, held, streams))
                })
            }};
        }
        match rpc.service() {
            "etcdserverpb.KV" => to!(kv),
            "etcdserverpb.Watch" => to!(watch),
            "etcdserverpb.Lease" => to!(lease),
            "etcdserverpb.Cluster" => to!(cluster),
            "etcdserverpb.Maintenance" => to!(maintenance),
            "etcdserverpb.Auth" => to!(auth),
            "holdfast.admin.v1.Admin" => to!(admin),
            "grpc.health.v1.Health" => to!(health),
            _ => self.at_once(unimplemented(rpc.path())),
        }
    }

    fn http(&self, request: http::Request<Incoming>) -> Answer {
        let probe = self.probe.clone();
        let (parts, _) = request.into_parts();
        let plaintext = self.surfaces.plaintext;
        let config = self.services.connection.node().config.clone();
        let unsent = self.unsent(Kind::Short);
        let refused = self.refuse_page(&parts);
        Box::pin(async move {
            unsent.held().room(Kind::Short).await;
            let page = match (pages::admit(&parts, plaintext, &config), refused) {
                (Err(refused), _) | (Ok(()), Some(refused)) => refused,
                (Ok(()), None) => pages::respond(&*probe, &parts).await,
            };
            let page = pages::with_cors(page, &parts, &config);
            Ok(page.map(|page| AnswerBody::new(full(page), unsent, false, None)))
        })
    }
}

impl Router {
    /// Refuses pages that are not for everybody. They are open on the listeners that serve nothing else (`--listen-metrics-urls`), and
    /// in profile `etcd`, whose scrapers know no identity.
    fn refuse_page(&self, parts: &http::request::Parts) -> Option<http::Response<Bytes>> {
        let connection = &self.services.connection;
        let open = !self.surfaces.for_clients
            || connection.node().identity.profile == Profile::Etcd
            || parts.method == http::Method::OPTIONS;
        if open || http_policy(parts.uri.path()) != Some(HttpPolicy::Authenticated) {
            return None;
        }
        let denied = connection.identify(&parts.headers).err()?;
        Some(pages::plain_text(
            http::StatusCode::UNAUTHORIZED,
            &format!("{denied}\n"),
        ))
    }
}

fn full(bytes: Bytes) -> Body {
    Body::new(Full::new(bytes).map_err(|never| match never {}))
}

fn empty(status: http::StatusCode) -> http::Response<Body> {
    let mut response = http::Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

/// Characters of an unknown path that its client is told.
const SHOWN_PATH_CHARS: usize = 200;

fn unimplemented(path: &str) -> http::Response<Body> {
    // The client's own text goes back in a header, which takes up to three times its length and no window holds back.
    let path = path
        .char_indices()
        .nth(SHOWN_PATH_CHARS)
        .map_or(path, |(end, _)| &path[..end]);
    // The texts are grpc-go's.
    let known = |service: &str| Rpc::ALL.iter().any(|rpc| rpc.service() == service);
    let text = match path.trim_start_matches('/').split_once('/') {
        Some((service, method)) if known(service) => {
            format!("unknown method {method} for service {service}")
        }
        Some((service, _)) => format!("unknown service {service}"),
        None => format!("malformed method name: {path:?}"),
    };
    tonic::Status::unimplemented(text).into_http()
}

/// Ties the memory that an answer holds to its body.
fn deliver(
    mut response: http::Response<Body>,
    held: Arc<Held>,
    streams: bool,
) -> http::Response<AnswerBody> {
    let share = response.extensions_mut().remove().map(|permit| {
        let share: Share = Arc::new(Mutex::new(Some(permit)));
        let given_back = share.clone();
        // A client that does not read must not keep others from reading.
        tokio::spawn(async move {
            tokio::time::sleep(HOLD_MAX).await;
            given_back.lock().take();
        });
        share
    });
    let kind = if share.is_some() {
        Kind::Long
    } else {
        Kind::Short
    };
    let prepared: Option<Prepared> = response.extensions_mut().remove();
    let response = match prepared {
        Some(prepared) => response.map(|_| prepared.into_body()),
        None => translate(response),
    };
    response.map(|body| AnswerBody::new(body, Unsent::new(held, kind), streams, share))
}

/// Puts tonic's own words for a message that is too large into those that clients know.
fn translate(response: http::Response<Body>) -> http::Response<Body> {
    let headers = response.headers();
    if headers.get("grpc-status").is_none_or(|code| code != "11") {
        return response;
    }
    tonic::Status::from_header_map(headers)
        .and_then(|status| crate::grpc::message_too_large(status.message()))
        .map_or(response, |status| status.into_http())
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message;
    use std::collections::BTreeSet;

    /// What the API has and this server does not: it answers `Unimplemented`, and has no policy row.
    const NOT_SERVED: &[&str] = &["v3electionpb.Election/", "v3lockpb.Lock/"];

    fn described() -> BTreeSet<String> {
        let set = prost_types::FileDescriptorSet::decode(holdfast_proto::FILE_DESCRIPTOR_SET)
            .expect("our own descriptors decode");
        let mut paths = BTreeSet::new();
        for file in &set.file {
            for service in &file.service {
                for method in &service.method {
                    paths.insert(format!(
                        "/{}.{}/{}",
                        file.package(),
                        service.name(),
                        method.name()
                    ));
                }
            }
        }
        paths
    }

    #[test]
    fn every_rpc_has_exactly_one_policy_or_is_not_served() {
        for path in described() {
            let unserved = NOT_SERVED
                .iter()
                .any(|prefix| path.trim_start_matches('/').starts_with(prefix));
            let has_policy = holdfast_auth::policy(&path).is_some();
            assert!(
                has_policy != unserved,
                "{path}: policy {has_policy}, listed as not served {unserved}"
            );
        }
    }

    #[test]
    fn every_policy_row_is_an_rpc_that_is_routed() {
        let described = described();
        for (path, _) in holdfast_auth::POLICIES {
            assert!(described.contains(*path), "{path} is not in the API");
            assert!(Rpc::from_path(path).is_some(), "{path} is not routed");
        }
    }

    #[test]
    fn errors_of_size_are_put_into_the_words_clients_know() {
        let ours = tonic::Status::out_of_range(
            "Error, decoded message length too large: found 2097170 bytes, the limit is: 2097152 bytes",
        );
        let answer = translate(ours.into_http());
        let status = tonic::Status::from_header_map(answer.headers()).expect("a status");
        assert_eq!(status.code(), tonic::Code::ResourceExhausted);
        assert_eq!(
            status.message(),
            "grpc: received message larger than max (2097170 vs. 2097152)"
        );
    }
}
