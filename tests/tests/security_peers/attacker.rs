//! Somebody at the peer port, with any certificate and any bytes.

use crate::security::{Dial, sample};
use bytes::{Bytes, BytesMut};
use h2::{
    RecvStream, SendStream,
    client::{ResponseFuture, SendRequest},
};
use holdfast_certs::{ClientTls, ClientTlsSettings, Issued, LeafRequest};
use holdfast_proto::peer as pb;
use holdfast_tests::{
    PATIENCE, Raw,
    cluster::{Cluster, ClusterOptions},
    eventually, soon,
    wire::{get, put},
};
use http::{HeaderMap, Request};
use prost::Message;
use std::{
    path::PathBuf,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

/// Three members of profile `strict` that show each other certificates, and what an attacker needs to know of them.
pub(crate) struct Target {
    pub(crate) cluster: Cluster,
    pub(crate) cluster_id: u64,
    /// By index.
    pub(crate) ids: Vec<u64>,
    pub(crate) instances: Vec<u64>,
    folder: tempfile::TempDir,
    written: AtomicUsize,
}

/// How a call ended.
#[derive(Debug)]
pub(crate) struct Answer {
    /// gRPC's.
    pub(crate) code: u32,
    #[expect(dead_code, reason = "part of the report of a failure")]
    pub(crate) text: String,
    /// The reason of a refusal, as one word.
    pub(crate) refusal: Option<String>,
    pub(crate) body: Bytes,
}

impl Answer {
    /// The only message.
    pub(crate) fn message<T: Message + Default>(&self) -> T {
        assert_eq!(self.code, 0, "{self:?}");
        T::decode(self.body.slice(5..)).unwrap()
    }
}

/// A message in gRPC's frame.
pub(crate) fn frame(message: &impl Message) -> Vec<u8> {
    framed(&message.encode_to_vec())
}

/// Bytes in gRPC's frame.
pub(crate) fn framed(bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).unwrap();
    [&[0], &length.to_be_bytes()[..], bytes].concat()
}

/// A connection to a peer port.
pub(crate) struct Line {
    send: SendRequest<Bytes>,
}

/// A call that goes on.
pub(crate) struct Talk {
    send: SendStream<Bytes>,
    answer: Option<ResponseFuture>,
    received: Option<RecvStream>,
    head: HeaderMap,
}

impl Line {
    pub(crate) async fn open(dial: &Dial) -> Result<Line, String> {
        let io = dial.open().await?;
        let mut builder = h2::client::Builder::new();
        builder.initial_window_size(16 << 20);
        let (send, connection) = builder
            .handshake(io)
            .await
            .map_err(|error| error.to_string())?;
        tokio::spawn(async move {
            // What ends it is seen by the calls on it.
            let _ = connection.await;
        });
        Ok(Line { send })
    }

    /// Begins a call.
    pub(crate) async fn begin(&mut self, method: &str) -> Result<Talk, String> {
        let request = Request::post(format!("https://peer/holdfast.peer.v1.Peer/{method}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())
            .unwrap();
        let text = |error: h2::Error| error.to_string();
        let mut ready = self.send.clone().ready().await.map_err(text)?;
        let (answer, send) = ready.send_request(request, false).map_err(text)?;
        Ok(Talk {
            send,
            answer: Some(answer),
            received: None,
            head: HeaderMap::new(),
        })
    }

    /// A whole call: sends these bytes and waits for its end.
    pub(crate) async fn call(&mut self, method: &str, body: Vec<u8>) -> Result<Answer, String> {
        let mut talk = self.begin(method).await?;
        // It may be refused before all is sent.
        let _ = talk.say(body).await;
        let _ = talk.send.send_data(Bytes::new(), true);
        soon("the end of a call", talk.end()).await
    }

    /// A whole call with one message.
    pub(crate) async fn ask(&mut self, method: &str, message: &impl Message) -> Answer {
        self.call(method, frame(message)).await.unwrap()
    }
}

impl Talk {
    /// Sends bytes, as fast as they are taken.
    pub(crate) async fn say(&mut self, bytes: impl Into<Bytes>) -> Result<(), String> {
        let mut bytes = bytes.into();
        while !bytes.is_empty() {
            self.send.reserve_capacity(bytes.len());
            let room = std::future::poll_fn(|context| self.send.poll_capacity(context));
            let room = match tokio::time::timeout(PATIENCE, room).await {
                Ok(Some(Ok(room))) => room,
                Ok(Some(Err(error))) => return Err(error.to_string()),
                Ok(None) => return Err("the stream has ended".to_owned()),
                Err(_) => return Err("nothing is taken".to_owned()),
            };
            let piece = bytes.split_to(room.min(bytes.len()));
            let sent = self.send.send_data(piece, false);
            sent.map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    /// Sends a message.
    pub(crate) async fn tell(&mut self, message: &impl Message) -> Result<(), String> {
        self.say(frame(message)).await
    }

    /// The next bytes of the answer; `None` at its end.
    pub(crate) async fn hear(&mut self) -> Result<Option<Bytes>, String> {
        if let Some(answer) = self.answer.take() {
            let response = answer.await.map_err(|error| error.to_string())?;
            let (parts, body) = response.into_parts();
            self.head = parts.headers;
            self.received = Some(body);
        }
        let Some(body) = &mut self.received else {
            return Ok(None);
        };
        match body.data().await {
            Some(Ok(bytes)) => {
                let _ = body.flow_control().release_capacity(bytes.len());
                Ok(Some(bytes))
            }
            Some(Err(error)) => Err(error.to_string()),
            None => Ok(None),
        }
    }

    /// Waits for the end of the call.
    pub(crate) async fn end(&mut self) -> Result<Answer, String> {
        let mut body = BytesMut::new();
        while let Some(bytes) = self.hear().await? {
            body.extend_from_slice(&bytes);
        }
        let trailers = match &mut self.received {
            Some(received) => received
                .trailers()
                .await
                .map_err(|error| error.to_string())?,
            None => None,
        };
        let headers = trailers.as_ref().unwrap_or(&self.head);
        let field = |name: &str| Some(headers.get(name)?.to_str().ok()?.to_owned());
        Ok(Answer {
            code: field("grpc-status")
                .and_then(|code| code.parse().ok())
                .ok_or("no status")?,
            text: field("grpc-message").unwrap_or_default(),
            refusal: field("holdfast-refusal"),
            body: body.freeze(),
        })
    }
}

impl Target {
    pub(crate) async fn start() -> Target {
        Self::with(ClusterOptions::new()).await
    }

    pub(crate) async fn with(options: ClusterOptions) -> Target {
        let cluster = Cluster::start(3, options.tls().flag("--profile=strict"));
        cluster.wait_healthy().await;
        let mut target = Target {
            cluster,
            cluster_id: 0,
            ids: Vec::new(),
            instances: Vec::new(),
            folder: tempfile::tempdir().unwrap(),
            written: AtomicUsize::new(0),
        };
        for index in 0..3 {
            let own = target.member_certificate(index);
            let described = eventually(PATIENCE, "all are published", async || {
                let mut line = target.line(index, &own).await.ok()?;
                let request = pb::DescribeRequest { protocol: 1 };
                let described: pb::DescribeResponse =
                    line.ask("Describe", &request).await.message();
                let mut members = described.members.iter();
                members
                    .all(|member| member.instance != 0)
                    .then_some(described)
            });
            let described = described.await;
            target.cluster_id = described.cluster_id;
            target.ids.push(described.member_id);
            target.instances.push(described.instance);
        }
        target
    }

    /// A certificate of the peers' CA that names a member: what a thief of its key has.
    pub(crate) fn member_certificate(&self, index: usize) -> Issued {
        self.cluster.certificates().peer(&format!("m{index}"))
    }

    /// A certificate of the peers' CA.
    pub(crate) fn certificate(&self, request: &LeafRequest) -> Issued {
        self.cluster.certificates().peers().issue(request).unwrap()
    }

    fn tls(&self, ca: PathBuf, shown: Option<&Issued>, alpn: &str) -> ClientTls {
        let mut settings = ClientTlsSettings {
            ca_file: Some(ca),
            alpn: vec![alpn.to_owned()],
            ..ClientTlsSettings::default()
        };
        if let Some(shown) = shown {
            let name = format!("shown-{}", self.written.fetch_add(1, Ordering::Relaxed));
            shown.write(self.folder.path(), &name).unwrap();
            settings.cert_file = Some(self.folder.path().join(format!("{name}.crt")));
            settings.key_file = Some(self.folder.path().join(format!("{name}.key")));
        }
        ClientTls::load(&settings).unwrap()
    }

    /// How to reach a member's peer port.
    pub(crate) fn dial(&self, index: usize, shown: Option<&Issued>) -> Dial {
        let ca = self.cluster.certificates().peers().files().ca_cert;
        let port = self.cluster.member(index).peer_port();
        Dial::tls(port, self.tls(ca, shown, "h2"))
    }

    /// A connection to a member's peer port.
    pub(crate) async fn line(&self, index: usize, shown: &Issued) -> Result<Line, String> {
        Line::open(&self.dial(index, Some(shown))).await
    }

    /// A right Hello, of one member to another.
    pub(crate) fn hello(&self, from: usize, to: usize) -> pb::Hello {
        pb::Hello {
            protocol: 1,
            cluster_id: self.cluster_id,
            from_member: self.ids[from],
            from_name: format!("m{from}"),
            from_instance: self.instances[from],
            to_member: self.ids[to],
            version: None,
        }
    }

    /// A stream of messages to a member that has welcomed us as the member whose key was stolen.
    pub(crate) async fn welcomed(&self, from: usize, to: usize) -> Talk {
        let certificate = self.member_certificate(from);
        let mut line = self.line(to, &certificate).await.unwrap();
        let mut talk = line.begin("Messages").await.unwrap();
        let first = pb::MessageBatch {
            hello: Some(self.hello(from, to)),
            ..pb::MessageBatch::default()
        };
        talk.tell(&first).await.unwrap();
        let ack = soon("a welcome", talk.hear()).await.unwrap().unwrap();
        let ack = pb::Ack::decode(ack.slice(5..)).unwrap();
        assert_eq!(ack.welcome.unwrap().from_member, self.ids[to]);
        talk
    }

    /// A series of a member's metrics page; 0 if it is not there.
    pub(crate) async fn sample(&self, index: usize, series: &str) -> f64 {
        let clients = self.cluster.certificates().clients();
        let ca = clients.files().ca_cert;
        let root = clients.issue_client("root").unwrap();
        let tls = self.tls(ca, Some(&root), "http/1.1");
        let dial = Dial::tls(self.cluster.member(index).port(), tls);
        let page = crate::security::get(&dial, "/metrics").await.unwrap();
        sample(&page.text, series).unwrap_or(0.0)
    }

    /// How often a member has refused somebody for this reason.
    pub(crate) async fn refused(&self, index: usize, reason: &str) -> f64 {
        let series = format!("holdfast_peer_refused_total{{reason=\"{reason}\"}}");
        self.sample(index, &series).await
    }

    /// How many messages of members a member has not taken.
    pub(crate) async fn refused_messages(&self, index: usize) -> f64 {
        self.sample(index, "holdfast_raft_messages_refused_total")
            .await
    }

    pub(crate) fn raw(&self, index: usize) -> Raw {
        self.cluster.raw(index)
    }

    /// No process has ended, and what one of those that run writes, each reads.
    pub(crate) async fn serves(&mut self, after: &str) {
        let running = self.cluster.running();
        for index in &running {
            let ended = self.cluster.wait_exit(*index, Duration::ZERO);
            assert!(!ended, "m{index} has ended after {after}");
        }
        let key = format!("after/{after}");
        for index in &running {
            let (key, value) = (key.clone(), index.to_string());
            let raw = self.raw(*index);
            let written = async || raw.put(put(&key, &value)).await.ok();
            let what = format!("m{index} writes after {after}");
            eventually(PATIENCE, &what, written).await;
        }
        for index in &running {
            let raw = self.raw(*index);
            let found = async || raw.range(get(&key)).await.ok();
            let what = format!("m{index} reads after {after}");
            let found = eventually(PATIENCE, &what, found).await;
            let last = running[running.len() - 1].to_string();
            assert_eq!(found.kvs[0].value, last.as_bytes(), "after {after}");
        }
        for index in &running {
            let ended = self.cluster.wait_exit(*index, Duration::ZERO);
            assert!(!ended, "m{index} has ended after {after}");
        }
        let panicked = running
            .iter()
            .any(|index| self.cluster.member(*index).log().contains("panicked at"));
        assert!(!panicked, "a panic after {after}");
    }
}
