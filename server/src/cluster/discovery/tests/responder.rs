//! A DNS server on loopback, over UDP and TCP, which answers as a test says.

use super::Dns;
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::op::{Message, OpCode, ResponseCode};
use hickory_resolver::proto::rr::rdata::{A, CNAME, SRV};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinHandle;

/// What may be sent over UDP to one that has not said that it takes more (RFC 1035 §4.2.1).
const UDP_MAX: usize = 512;

pub(super) enum Answer {
    Data(Vec<RData>),
    /// A CNAME; `whole` if what it leads to comes with it, as it does from a recursive server.
    Alias {
        of: Name,
        whole: bool,
    },
    Code(ResponseCode),
    /// The query is taken, and never answered.
    Silence,
    /// These bytes behind a header that has the query's id and this number of answers, and the question.
    Bytes(u16, Vec<u8>),
}

#[derive(Default)]
pub(super) struct Zone(HashMap<(String, RecordType), Answer>);

impl Zone {
    pub(super) fn with(mut self, name: &str, kind: RecordType, answer: Answer) -> Self {
        self.0.insert((format!("{name}."), kind), answer);
        self
    }

    /// SRV records of targets and ports.
    pub(super) fn srv(self, name: &str, targets: &[(&str, u16)]) -> Self {
        let targets = targets.iter().map(|(target, port)| {
            srv(
                Name::from_ascii(format!("{target}.")).expect("a name"),
                *port,
            )
        });
        let answer = Answer::Data(targets.collect());
        self.with(name, RecordType::SRV, answer)
    }

    pub(super) fn address(self, name: &str, address: [u8; 4]) -> Self {
        let address = RData::A(A(Ipv4Addr::from(address)));
        self.with(name, RecordType::A, Answer::Data(vec![address]))
    }

    pub(super) fn alias(self, name: &str, of: &str, whole: bool) -> Self {
        let of = Name::from_ascii(format!("{of}.")).expect("a name");
        let alias = || Answer::Alias {
            of: of.clone(),
            whole,
        };
        self.with(name, RecordType::SRV, alias())
            .with(name, RecordType::CNAME, alias())
    }

    fn answer(&self, query: &[u8]) -> Option<Vec<u8>> {
        let query = Message::from_vec(query).expect("a query");
        let asked = query.queries.first().expect("a question").clone();
        let mut message = Message::response(query.metadata.id, OpCode::Query);
        message.add_query(asked.clone());
        let key = (asked.name().to_lowercase().to_ascii(), asked.query_type());
        match self.0.get(&key) {
            None => message.metadata.response_code = ResponseCode::NXDomain,
            Some(Answer::Code(code)) => message.metadata.response_code = *code,
            Some(Answer::Silence) => return None,
            Some(Answer::Data(data)) => {
                let name = asked.name();
                let records = data
                    .iter()
                    .map(|data| Record::from_rdata(name.clone(), 60, data.clone()));
                message.add_answers(records);
            }
            Some(Answer::Alias { of, whole }) => {
                let alias = RData::CNAME(CNAME(of.clone()));
                message.add_answer(Record::from_rdata(asked.name().clone(), 60, alias));
                let target = self.0.get(&(of.to_ascii(), asked.query_type()));
                if let Some(Answer::Data(data)) = target
                    && *whole
                {
                    let records = data
                        .iter()
                        .map(|data| Record::from_rdata(of.clone(), 60, data.clone()));
                    message.add_answers(records);
                }
            }
            Some(Answer::Bytes(count, bytes)) => {
                let mut text = message.to_vec().expect("encodes");
                text[6..8].copy_from_slice(&count.to_be_bytes());
                text.extend(bytes);
                return Some(text);
            }
        }
        Some(message.to_vec().expect("encodes"))
    }
}

pub(super) fn srv(target: Name, port: u16) -> RData {
    RData::SRV(SRV::new(0, 0, port, target))
}

/// Serves a zone until it is dropped.
pub(super) struct Responder {
    pub(super) port: u16,
    /// Queries that came over TCP.
    pub(super) over_tcp: Arc<AtomicUsize>,
    asked: Arc<Mutex<Vec<String>>>,
    tasks: [JoinHandle<()>; 2],
}

impl Responder {
    pub(super) async fn start(zone: Zone) -> Self {
        let zone = Arc::new(zone);
        let over_tcp = Arc::new(AtomicUsize::new(0));
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (tcp, udp) = loop {
            let tcp = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let address = tcp.local_addr().expect("an address");
            // Somebody else may have that port for UDP.
            if let Ok(udp) = UdpSocket::bind(address).await {
                break (tcp, udp);
            }
        };
        let port = udp.local_addr().expect("an address").port();
        let by_udp = {
            let (zone, asked) = (zone.clone(), asked.clone());
            tokio::spawn(serve_udp(udp, zone, asked))
        };
        let by_tcp = tokio::spawn(serve_tcp(tcp, zone, over_tcp.clone()));
        Self {
            port,
            over_tcp,
            asked,
            tasks: [by_udp, by_tcp],
        }
    }

    /// A resolver that asks this server alone. As with the system's resolver, nothing says that long answers may come over UDP.
    pub(super) fn dns(&self, answer_max: Duration) -> Dns {
        let connections =
            [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
                connection.port = self.port;
                connection
            });
        let server = NameServerConfig::new(Ipv4Addr::LOCALHOST.into(), true, connections.into());
        let config = ResolverConfig::from_parts(None, vec![], vec![server]);
        let mut builder =
            TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        builder.options_mut().edns0 = false;
        Dns {
            resolver: builder.build().expect("a resolver"),
            answer_max,
        }
    }

    pub(super) fn queries_over_tcp(&self) -> usize {
        self.over_tcp.load(Ordering::Relaxed)
    }

    /// The names that were asked for, with repetitions.
    pub(super) fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("not poisoned").clone()
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

async fn serve_udp(socket: UdpSocket, zone: Arc<Zone>, asked: Arc<Mutex<Vec<String>>>) {
    let mut query = [0; UDP_MAX];
    loop {
        let (length, from) = socket.recv_from(&mut query).await.expect("a query");
        let query = &query[..length];
        let question = Message::from_vec(query).expect("a query").queries[0].clone();
        asked
            .lock()
            .expect("not poisoned")
            .push(question.name().to_ascii());
        let Some(mut answer) = zone.answer(query) else {
            continue;
        };
        if answer.len() > UDP_MAX {
            let mut truncated = Message::response(
                Message::from_vec(query).expect("a query").metadata.id,
                OpCode::Query,
            );
            truncated.metadata.truncation = true;
            truncated.add_query(question);
            answer = truncated.to_vec().expect("encodes");
        }
        socket.send_to(&answer, from).await.expect("sent");
    }
}

async fn serve_tcp(listener: TcpListener, zone: Arc<Zone>, queries: Arc<AtomicUsize>) {
    loop {
        let (stream, _) = listener.accept().await.expect("a connection");
        tokio::spawn(serve_stream(stream, zone.clone(), queries.clone()));
    }
}

async fn serve_stream(mut stream: TcpStream, zone: Arc<Zone>, queries: Arc<AtomicUsize>) {
    while let Ok(length) = stream.read_u16().await {
        let mut query = vec![0; usize::from(length)];
        if stream.read_exact(&mut query).await.is_err() {
            return;
        }
        queries.fetch_add(1, Ordering::Relaxed);
        let Some(mut answer) = zone.answer(&query) else {
            continue;
        };
        // The length that a message can have at most.
        answer.truncate(usize::from(u16::MAX));
        let length = u16::try_from(answer.len()).expect("was cut");
        if stream.write_u16(length).await.is_err() || stream.write_all(&answer).await.is_err() {
            return;
        }
    }
}
