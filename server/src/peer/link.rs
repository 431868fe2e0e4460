//! Our stream of messages to one other member: dialled, watched, and dialled again for as long as it is a member.

use super::bounds::{BACK_OFF_MAX, BACK_OFF_MIN, HELLO_BYTES_MAX, HELLO_DEADLINE, LOOK, URLS_MAX};
use super::dial::{CallError, Connection, Requests};
use super::frames::{Frames, frame};
use super::handler::PeerHandler;
use super::hello::{Hello, Refusal};
use super::net::Shared;
use super::outbox::{Batches, Outbox};
use super::security::Holder;
use crate::metrics::PeerSeries;
use holdfast_proto::peer as pb;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use parking_lot::Mutex;
use prost::Message;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// A stream that has lived as long was a good one: what ends it is new, and the next is dialled without a long pause.
const GOOD: Duration = Duration::from_secs(5);

/// Another member.
pub(super) struct Link {
    pub(super) id: u64,
    pub(super) outbox: Arc<Outbox>,
    /// Whether a snapshot is being sent to it.
    pub(super) snapshotting: AtomicBool,
    urls: Mutex<Vec<String>>,
    series: PeerSeries,
    /// While the stream is up, where calls begin.
    up: watch::Sender<Option<Requests>>,
    /// Its task; ended when the member is removed.
    pub(super) task: Mutex<Option<tokio::task::AbortHandle>>,
}

/// Why a stream ended, or never was.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("{0}")]
    Call(#[from] CallError),
    /// This member refuses the other one.
    #[error("this member refuses it: {0}{1}")]
    WeRefuse(Refusal, String),
    #[error("it closed the stream: {0}")]
    Closed(tonic::Status),
    #[error("it has taken no messages for {0:?}")]
    Stalled(Duration),
    #[error("its certificate is no longer good: {0}")]
    Certificate(String),
}

impl Link {
    pub(super) fn new(id: u64, urls: Vec<String>, series: PeerSeries) -> Link {
        Link {
            id,
            outbox: Arc::new(Outbox::new(series.clone())),
            snapshotting: AtomicBool::new(false),
            urls: Mutex::new(urls),
            series,
            up: watch::Sender::new(None),
            task: Mutex::default(),
        }
    }

    /// Where the member is, from the next dialling on.
    pub(super) fn set_urls(&self, urls: Vec<String>) {
        *self.urls.lock() = urls;
    }

    pub(super) fn urls(&self) -> Vec<String> {
        self.urls.lock().clone()
    }

    pub(super) fn is_up(&self) -> bool {
        self.up.borrow().is_some()
    }

    /// Waits until calls can be made.
    pub(super) async fn requests(&self) -> Result<Requests, CallError> {
        let mut up = self.up.subscribe();
        let requests = up.wait_for(Option::is_some).await;
        match requests.as_deref() {
            Ok(Some(requests)) => Ok(requests.clone()),
            _ => Err(CallError::Unreachable("it is no member".to_owned())),
        }
    }

    /// Ends the stream and does not dial again.
    pub(super) fn remove(&self) {
        if let Some(task) = self.task.lock().take() {
            task.abort();
        }
        self.outbox.close();
        self.up.send_replace(None);
    }

    /// Keeps a stream to the member. Never ends by itself.
    pub(super) async fn run(self: Arc<Link>, shared: Arc<Shared>, handler: Arc<dyn PeerHandler>) {
        let mut dialling = Dialling {
            link: &self,
            shared: &shared,
            handler: &*handler,
            session: 0,
            told: HashMap::new(),
            complained: false,
            was_up: false,
            closed: 0,
        };
        let mut back_off = BACK_OFF_MIN;
        loop {
            let mut was_good = false;
            let urls = self.urls();
            dialling.closed = 0;
            for url in &urls {
                was_good |= dialling.stream(url).await;
            }
            dialling.conclude(urls.len());
            if was_good {
                // At once, to learn whether the member's process is gone.
                back_off = BACK_OFF_MIN;
                continue;
            }
            // Jitter, so that members that lost each other at one moment do not dial at one moment for ever.
            tokio::time::sleep(back_off.mul_f64(0.75 + rand::random::<f64>() / 2.0)).await;
            back_off = (back_off * 2).min(BACK_OFF_MAX);
        }
    }
}

/// The task of a link.
struct Dialling<'a> {
    link: &'a Link,
    shared: &'a Arc<Shared>,
    handler: &'a dyn PeerHandler,
    session: u64,
    /// What was said of each URL, and whether the member said it; nothing since the stream was up.
    told: HashMap<String, (Refusal, bool)>,
    /// Whether the log says already that the member cannot be reached.
    complained: bool,
    /// Whether the stream was up, and nobody knows yet what became of the member.
    was_up: bool,
    /// At how many URLs nobody listens, in this round.
    closed: usize,
}

impl Dialling<'_> {
    /// A member whose stream broke, and at none of whose URLs anybody listens, has ended.
    fn conclude(&mut self, urls: usize) {
        if urls > 0 && self.closed == urls && std::mem::take(&mut self.was_up) {
            self.handler.gone(self.link.id);
        }
    }

    /// One stream from its beginning to its end; whether it was a good one.
    async fn stream(&mut self, url: &str) -> bool {
        let begun = match self.begin(url).await {
            Ok(begun) => begun,
            Err(ended) => {
                self.failed(url, &ended);
                return false;
            }
        };
        let link = self.link;
        let since = Instant::now();
        self.told.clear();
        self.complained = false;
        self.was_up = true;
        link.series.active.set(1);
        link.up
            .send_replace(Some(begun.connection.requests.clone()));
        link.outbox.open();
        tracing::info!("remote-peer-id" = %format_args!("{:x}", link.id), url, "established a stream to a member");
        // Whatever ends this task, too, nobody is told of a stream that is not there.
        let down = Down(link);
        self.handler.connected(link.id);
        let ended = self.watch(begun).await;
        drop(down);
        link.series.failures.inc();
        link.series.disconnected.inc();
        tracing::warn!("remote-peer-id" = %format_args!("{:x}", link.id), error = %ended, "lost the stream to a member");
        self.handler.lost(link.id);
        since.elapsed() >= GOOD
    }

    /// Dials, introduces this member, and checks who answers.
    async fn begin(&mut self, url: &str) -> Result<Begun, Ended> {
        let shared = self.shared;
        let link = self.link;
        let mut connection = Connection::open(&shared.security, url, shared.keep_alive).await?;
        self.session += 1;
        let hello = frame(&pb::MessageBatch {
            hello: Some(shared.me.hello(link.id)),
            ..pb::MessageBatch::default()
        });
        let body = Batches::new(link.outbox.clone(), self.session, hello);
        let holder = connection.holder.clone();
        let welcoming = async {
            let body = body.boxed_unsync();
            let requests = &mut connection.requests;
            let mut acks = requests.begin("Messages", body, HELLO_BYTES_MAX).await?;
            let Some(bytes) = acks.next().await.map_err(CallError::from)? else {
                return Err(Ended::Call(CallError::of(acks.status())));
            };
            let ack = pb::Ack::decode(bytes);
            let ack = ack.map_err(|error| CallError::Malformed(error.to_string()))?;
            Ok((acks, ack))
        };
        let welcomed = tokio::time::timeout(HELLO_DEADLINE, Box::pin(welcoming)).await;
        let (acks, ack) = welcomed.map_err(|_| CallError::Deadline)??;
        self.check(ack.welcome, &holder)
            .map_err(|(refusal, detail)| Ended::WeRefuse(refusal, detail))?;
        Ok(Begun { connection, acks })
    }

    /// The one who answers must be the member that was dialled.
    fn check(
        &self,
        welcome: Option<pb::Hello>,
        holder: &Holder,
    ) -> Result<Hello, (Refusal, String)> {
        let hello = self.shared.me.read(welcome)?;
        if hello.from != self.link.id {
            return Err((Refusal::OtherMember, format!(" ({:x})", hello.from)));
        }
        let known = self
            .handler
            .check(&hello)
            .map_err(|refusal| (refusal, String::new()))?;
        holder
            .may_speak_for(&hello.name, &known)
            .map_err(|why| (Refusal::Certificate, format!(": {why}")))?;
        Ok(hello)
    }

    /// Waits for the end of a stream that is up.
    async fn watch(&self, mut begun: Begun) -> Ended {
        let link = self.link;
        let ended = begun.connection.holder.clone().ended();
        tokio::pin!(ended);
        let reading = async {
            loop {
                match begun.acks.next().await {
                    Ok(Some(bytes)) => match pb::Ack::decode(bytes) {
                        Ok(ack) if ack.welcome.is_none() => {
                            if let Some(took) = link.outbox.probe_returned(ack.probe) {
                                link.series.round_trip.observe(took.as_secs_f64());
                            }
                        }
                        Ok(_) => {
                            let error = "a second introduction".to_owned();
                            return Ended::Call(CallError::Malformed(error));
                        }
                        Err(error) => {
                            return Ended::Call(CallError::Malformed(error.to_string()));
                        }
                    },
                    Ok(None) => return Ended::Closed(begun.acks.status()),
                    Err(error) => return Ended::Call(error.into()),
                }
            }
        };
        let most = self.shared.write_timeout;
        let stalling = async {
            loop {
                tokio::time::sleep(LOOK).await;
                let waited = link.outbox.waiting();
                if waited > most {
                    return Ended::Stalled(waited);
                }
            }
        };
        tokio::select! {
            ended = reading => ended,
            ended = stalling => ended,
            reason = &mut ended => Ended::Certificate(reason),
        }
    }

    /// Says why there is no stream, once until that changes.
    fn failed(&mut self, url: &str, ended: &Ended) {
        let id = self.link.id;
        self.link.series.failures.inc();
        if let Ended::Call(CallError::NobodyListens(_)) = ended {
            self.closed += 1;
        }
        let refusal = match ended {
            Ended::Call(CallError::Refused(refusal)) => Some((*refusal, true)),
            Ended::WeRefuse(refusal, _) => Some((*refusal, false)),
            _ => None,
        };
        let Some((refusal, by_them)) = refusal else {
            if !std::mem::replace(&mut self.complained, true) {
                tracing::warn!("remote-peer-id" = %format_args!("{id:x}"), url, error = %ended, "cannot reach a member; trying on");
            }
            return;
        };
        self.shared.metrics.refused(refusal.label());
        if self.told.len() > URLS_MAX {
            // URLs of before.
            self.told.clear();
        }
        let news = (refusal, by_them);
        if self.told.insert(url.to_owned(), news) == Some(news) {
            return;
        }
        tracing::warn!("remote-peer-id" = %format_args!("{id:x}"), url, error = %ended, "no stream to a member; trying on");
        if by_them {
            self.handler.refused(id, refusal);
        }
    }
}

/// A stream that was welcomed.
struct Begun {
    connection: Connection,
    acks: Frames<Incoming>,
}

/// A stream that is up, until this is dropped.
struct Down<'a>(&'a Link);

impl Drop for Down<'_> {
    fn drop(&mut self) {
        self.0.up.send_replace(None);
        self.0.outbox.close();
        self.0.series.active.set(0);
    }
}
