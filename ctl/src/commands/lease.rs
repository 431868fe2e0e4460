//! lease grant, revoke, timetolive, list and keep-alive.

use std::time::Duration;

use holdfast_proto::etcdserverpb::{
    LeaseGrantRequest, LeaseKeepAliveRequest, LeaseKeepAliveResponse, LeaseLeasesRequest,
    LeaseRevokeRequest, LeaseTimeToLiveRequest,
};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, timeout_at},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

use super::{Context, bad_arguments};
use crate::{
    Exit, Failure,
    connect::{Link, Retry},
    failure::DEADLINE,
    go_syntax::parse_int,
    login::is_stale,
    output::{self, Answer, Format},
};

/// Pause before a broken keep-alive stream is opened again, as in etcd's client.
const RECONNECT_PAUSE: Duration = Duration::from_millis(500);
const NOT_FOUND: &str = "etcdserver: requested lease not found";

pub(super) async fn grant(context: &Context<'_>) -> Result<(), Failure> {
    let [ttl] = context.line.positional() else {
        return bad_arguments("lease grant command needs TTL argument");
    };
    let ttl = match parse_int(&String::from_utf8_lossy(ttl), 10) {
        Ok(ttl) => ttl,
        Err(reason) => return bad_arguments(format!("bad TTL ({reason})")),
    };
    let response = context
        .client
        .call(Retry::Unsafe, |link| async move {
            let request = LeaseGrantRequest { ttl, id: 0 };
            link.lease().lease_grant(request).await
        })
        .await
        .map_err(|failure| failure.wrapped(|text| format!("failed to grant lease ({text})")))?;
    context.show(Answer::Grant(&response))
}

pub(super) async fn revoke(context: &Context<'_>) -> Result<(), Failure> {
    let [id] = context.line.positional() else {
        return bad_arguments("lease revoke command needs 1 argument");
    };
    let id = lease_id(id)?;
    let response = context
        .client
        .call(Retry::Unsafe, |link| async move {
            link.lease().lease_revoke(LeaseRevokeRequest { id }).await
        })
        .await
        .map_err(|failure| failure.wrapped(|text| format!("failed to revoke lease ({text})")))?;
    context.show(Answer::Revoke(id, &response))
}

pub(super) async fn time_to_live(context: &Context<'_>) -> Result<(), Failure> {
    let [id] = context.line.positional() else {
        return bad_arguments("lease timetolive command needs lease ID as argument");
    };
    let id = lease_id(id)?;
    let keys = context.line.flag("keys");
    let response = context
        .client
        .call(Retry::Safe, |link| async move {
            let request = LeaseTimeToLiveRequest { id, keys };
            link.lease().lease_time_to_live(request).await
        })
        .await
        .map_err(|failure| failure.with_exit(Exit::BadConnection))?;
    context.show(Answer::TimeToLive {
        response: &response,
        keys,
    })
}

pub(super) async fn list(context: &Context<'_>) -> Result<(), Failure> {
    let response = context
        .client
        .call(Retry::Safe, |link| async move {
            link.lease().lease_leases(LeaseLeasesRequest {}).await
        })
        .await
        .map_err(|failure| failure.with_exit(Exit::BadConnection))?;
    context.show(Answer::Leases(&response))
}

pub(super) async fn keep_alive(context: &Context<'_>) -> Result<(), Failure> {
    let [id] = context.line.positional() else {
        return bad_arguments("lease keep-alive command needs lease ID as argument");
    };
    let id = lease_id(id)?;
    let bad = |status: &Status| Failure::rpc(Exit::BadConnection, status);
    // A stream is open when its first answer has come: whether the token is taken shows no earlier.
    let open = |link: Link| async move {
        let mut renewals = Renewals::open(&link, id).await?;
        let response = renewals.next().await?;
        Ok((renewals, response))
    };
    let client = &context.client;
    let mut link = client.any_link().await?;
    if context.line.flag("once") {
        let renewed = client.with_token(link, |link| client.limited(open(link)));
        let (_, response) = renewed.await.map_err(|status| bad(&status))?;
        if response.ttl <= 0 {
            return Err(Failure::new(Exit::BadConnection, NOT_FOUND));
        }
        return context.show(Answer::KeepAlive(&response));
    }

    // Until the first answer nothing is known of the lease; what goes wrong by then is not its expiry.
    let mut expiry = Instant::now() + client.globals().command_timeout;
    let mut answered = false;
    'connection: loop {
        let mut next = match timeout_at(expiry, client.with_token(link.clone(), open)).await {
            Ok(Ok(opened)) => Some(opened),
            Ok(Err(status)) if !answered || is_final(&status) => return Err(bad(&status)),
            Ok(Err(_)) => None,
            Err(_) => break,
        };
        while let Some((mut renewals, response)) = next.take() {
            if response.ttl <= 0 {
                break 'connection;
            }
            context.show(Answer::KeepAlive(&response))?;
            answered = true;
            let ttl = Duration::from_secs(response.ttl.unsigned_abs());
            expiry = Instant::now() + ttl;
            sleep(ttl / 3).await;
            match timeout_at(expiry, renewals.next()).await {
                Ok(Ok(response)) => next = Some((renewals, response)),
                // A new stream gets a new token, if there can be one.
                Ok(Err(status)) if is_final(&status) && !is_stale(&status) => {
                    return Err(bad(&status));
                }
                Ok(Err(_)) => {}
                Err(_) => break 'connection,
            }
        }
        if Instant::now() + RECONNECT_PAUSE >= expiry {
            break;
        }
        sleep(RECONNECT_PAUSE).await;
        link = match timeout_at(expiry, client.any_link()).await {
            Ok(Ok(link)) => link,
            // The next round fails as well, until the lease must have expired.
            Ok(Err(_)) => continue,
            Err(_) => break,
        };
    }
    if !answered && Instant::now() >= expiry {
        return Err(Failure::new(Exit::BadConnection, DEADLINE));
    }
    if context.style.format == Format::Simple {
        output::write_stdout(format!("lease {id:016x} expired or revoked.\n").as_bytes())?;
    }
    Ok(())
}

/// Whether a new stream would end in the same way.
fn is_final(status: &Status) -> bool {
    !matches!(
        status.code(),
        Code::Unavailable | Code::Internal | Code::Unknown | Code::Cancelled
    )
}

/// A keep-alive stream that carries one request at a time.
struct Renewals {
    id: i64,
    requests: mpsc::Sender<LeaseKeepAliveRequest>,
    responses: Streaming<LeaseKeepAliveResponse>,
    /// A request was sent whose answer has not been read.
    pending: bool,
}

impl Renewals {
    /// Opens a stream with its first request under way: servers say nothing before they are asked.
    async fn open(link: &Link, id: i64) -> Result<Renewals, Status> {
        let (requests, receiver) = mpsc::channel(1);
        let pending = requests.try_send(LeaseKeepAliveRequest { id }).is_ok();
        let responses = link
            .lease()
            .lease_keep_alive(ReceiverStream::new(receiver))
            .await?
            .into_inner();
        Ok(Renewals {
            id,
            requests,
            responses,
            pending,
        })
    }

    async fn next(&mut self) -> Result<LeaseKeepAliveResponse, Status> {
        let ended = || Status::unavailable("the server ended the stream");
        if !self.pending {
            let request = LeaseKeepAliveRequest { id: self.id };
            self.requests.send(request).await.map_err(|_| ended())?;
            self.pending = true;
        }
        let response = self.responses.message().await?.ok_or_else(ended)?;
        self.pending = false;
        Ok(response)
    }
}

fn lease_id(text: &[u8]) -> Result<i64, Failure> {
    parse_int(&String::from_utf8_lossy(text), 16).map_err(|reason| {
        Failure::new(
            Exit::BadArguments,
            format!("bad lease ID arg ({reason}), expecting ID in Hex"),
        )
    })
}
