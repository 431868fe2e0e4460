//! watch: one stream with one or, in interactive mode, many watches, opened again where it broke.

use std::{
    collections::{BTreeMap, VecDeque},
    ffi::OsStr,
    io::{self, BufRead},
    os::unix::{ffi::OsStrExt, process::ExitStatusExt},
    process::{Command, ExitStatus},
    time::Duration,
};

use holdfast_proto::{
    etcdserverpb::{
        ResponseHeader, WatchProgressRequest, WatchRequest, WatchResponse,
        watch_request::RequestUnion,
    },
    mvccpb::{Event, event::EventType},
};
use tokio::{sync::mpsc, time::sleep};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Code, Request, Status, Streaming, metadata::MetadataValue};

use super::{
    Context,
    watch_order::{Preset, WatchOrder},
};
use crate::{
    Exit, Failure,
    cli::{WATCH, read},
    connect::Link,
    failure::status_text,
    go_syntax::{quote, split_arguments},
    login::{is_stale, is_stale_reason},
    output::{self, Answer},
};

/// Pause before a broken stream is opened again.
const RECONNECT_PAUSE: Duration = Duration::from_millis(500);
/// The watch id of answers that concern the whole stream.
const ALL_WATCHES: i64 = -1;

pub(super) async fn run(context: &Context<'_>) -> Result<(), Failure> {
    let preset = Preset::from_environment()?;
    let interactive = context.line.flag("interactive");
    let mut session = Session {
        context,
        preset,
        watches: BTreeMap::new(),
        last_id: 0,
        unconfirmed: VecDeque::new(),
        answered: false,
        renewed: false,
        refused: false,
        requests: None,
    };
    if !interactive {
        let order = WatchOrder::from_line(context.line, &session.preset)?;
        session.add(order);
    }
    // A password may have to be asked for, before the lines of standard input are watches.
    let mut link = context.client.any_link().await?;
    let mut lines = interactive.then(standard_input);
    loop {
        // Servers say nothing before the first watch is asked for.
        while session.watches.is_empty() {
            match &mut lines {
                Some(lines) => session.line(lines.recv().await)?,
                None => {
                    return Err(Failure::new(
                        Exit::Interrupted,
                        "watch is canceled by the server",
                    ));
                }
            }
        }
        let ended = match session.open(&link).await {
            Ok(stream) => session.follow(stream, &mut lines).await?,
            Err(status) => Some(status),
        };
        let refused = ended.as_ref().is_some_and(is_stale) && session.may_renew();
        if refused || std::mem::take(&mut session.refused) {
            match context.client.renewed(&link).await {
                Ok(again) => {
                    link = again;
                    session.renewed = true;
                    // A server that takes no token for long should not be asked for them without a break.
                    sleep(RECONNECT_PAUSE).await;
                    continue;
                }
                Err(status) if status.code() == Code::Unavailable => {}
                Err(status) => return Err(Failure::rpc(Exit::BadConnection, &status)),
            }
        }
        if let Some(status) = ended.filter(|status| session.is_final(status)) {
            let text = format!("watch was canceled ({})\n", status_text(&status));
            output::write_stderr(text.as_bytes());
            return Err(Failure::new(
                Exit::Interrupted,
                "watch is canceled by the server",
            ));
        }
        if session.watches.is_empty() {
            continue;
        }
        loop {
            sleep(RECONNECT_PAUSE).await;
            match context.client.any_link().await {
                Ok(again) => {
                    link = again;
                    break;
                }
                Err(failure) if failure.exit() == Exit::BadConnection => {}
                Err(failure) => return Err(failure),
            }
        }
    }
}

/// The lines of standard input, read by a thread because reading them cannot be cancelled. Ends with the input.
fn standard_input() -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel(16);
    std::thread::spawn(move || {
        let mut input = io::stdin().lock();
        loop {
            let mut line = Vec::new();
            match input.read_until(b'\n', &mut line) {
                Ok(_) if line.pop() == Some(b'\n') => {}
                _ => return,
            }
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

struct Session<'a> {
    context: &'a Context<'a>,
    preset: Preset,
    /// By watch id. The ids are ours, so that an answer is known before its watch is confirmed.
    watches: BTreeMap<i64, WatchOrder>,
    last_id: i64,
    /// The watches asked for on this stream and not answered yet, in order: a refusal names none.
    unconfirmed: VecDeque<i64>,
    /// The server has answered at least once.
    answered: bool,
    /// The token is a new one, and nothing has shown yet that it is taken.
    renewed: bool,
    /// The server cancelled a watch for its token; all are to be asked for again with a new one.
    refused: bool,
    requests: Option<mpsc::UnboundedSender<WatchRequest>>,
}

impl Session<'_> {
    /// Whether a new stream would end in the same way. A connection that never worked (a refused client certificate shows
    /// only here) is not expected to begin to.
    fn is_final(&self, status: &Status) -> bool {
        match status.code() {
            Code::Unavailable => false,
            Code::Internal | Code::Unknown | Code::Cancelled => !self.answered,
            _ => true,
        }
    }

    /// Whether a new token may be tried: not if the last one was new and not taken, either.
    fn may_renew(&self) -> bool {
        !self.renewed && self.context.client.can_renew()
    }

    fn add(&mut self, mut order: WatchOrder) {
        self.last_id += 1;
        order.create.watch_id = self.last_id;
        if self.requests.is_some() {
            self.unconfirmed.push_back(self.last_id);
        }
        self.send(RequestUnion::CreateRequest(order.create.clone()));
        self.watches.insert(self.last_id, order);
    }

    /// Sends on the stream; without one the request waits in the order, and progress is no one's to report.
    fn send(&self, request: RequestUnion) {
        if let Some(requests) = &self.requests {
            // A broken stream is noticed where it is read.
            let _ = requests.send(WatchRequest {
                request_union: Some(request),
            });
        }
    }

    /// Opens a stream and asks for every watch from where it had come to.
    async fn open(&mut self, link: &Link) -> Result<Streaming<WatchResponse>, Status> {
        // Unbounded, but what goes in are the lines that a user types.
        let (sender, receiver) = mpsc::unbounded_channel();
        self.requests = Some(sender);
        self.unconfirmed = self.watches.keys().copied().collect();
        for order in self.watches.values() {
            self.send(RequestUnion::CreateRequest(order.create.clone()));
        }
        let mut request = Request::new(UnboundedReceiverStream::new(receiver));
        // A member that lost its leader must say so instead of being silent.
        request
            .metadata_mut()
            .insert("hasleader", MetadataValue::from_static("true"));
        link.watch()
            .watch(request)
            .await
            .map(tonic::Response::into_inner)
    }

    /// Prints what the stream brings until it breaks (and gives the reason, if there is one) or no watch is left.
    async fn follow(
        &mut self,
        mut stream: Streaming<WatchResponse>,
        lines: &mut Option<mpsc::Receiver<Vec<u8>>>,
    ) -> Result<Option<Status>, Failure> {
        while !self.watches.is_empty() {
            let message = match lines {
                None => stream.message().await,
                Some(lines) => tokio::select! {
                    message = stream.message() => message,
                    line = lines.recv() => {
                        self.line(line)?;
                        continue;
                    }
                },
            };
            match message {
                Ok(Some(response)) => {
                    self.respond(response).await?;
                    if self.refused {
                        return Ok(None);
                    }
                }
                Ok(None) => return Ok(None),
                Err(status) => return Ok(Some(status)),
            }
        }
        Ok(None)
    }

    async fn respond(&mut self, response: WatchResponse) -> Result<(), Failure> {
        self.answered = true;
        let mut id = response.watch_id;
        let revision = response.header.unwrap_or_default().revision;
        if response.created {
            let first = self.unconfirmed.pop_front();
            if id == ALL_WATCHES {
                id = first.unwrap_or(id);
            }
        }
        if response.canceled {
            if is_stale_reason(&response.cancel_reason) && self.may_renew() {
                self.refused = true;
                return Ok(());
            }
            self.watches.remove(&id);
            return self.show_cancelled(response);
        }
        self.renewed = false;
        if response.created {
            // From now on a new stream must not miss what happened in between.
            if let Some(order) = self.watches.get_mut(&id)
                && order.create.start_revision == 0
            {
                order.create.start_revision = revision + 1;
            }
            return Ok(());
        }
        if response.events.is_empty() && revision != 0 {
            for order in self.watches.values_mut() {
                if id == order.create.watch_id || id == ALL_WATCHES {
                    output::write_stdout(format!("progress notify: {revision}\n").as_bytes())?;
                    output::show(self.context.style, Answer::Watch(&response))?;
                    let start = &mut order.create.start_revision;
                    *start = (*start).max(revision + 1);
                }
            }
            return Ok(());
        }
        let Some(order) = self.watches.get_mut(&id) else {
            return Ok(());
        };
        if let Some(kv) = response.events.last().and_then(|event| event.kv.as_ref()) {
            order.create.start_revision = kv.mod_revision + 1;
        }
        self.context.show(Answer::Watch(&response))?;
        if !order.exec.is_empty() {
            for event in &response.events {
                execute(&order.exec, event, revision).await?;
            }
        }
        Ok(())
    }

    fn show_cancelled(&self, mut response: WatchResponse) -> Result<(), Failure> {
        let reason = if response.compact_revision != 0 {
            "etcdserver: mvcc: required revision has been compacted"
        } else if response.cancel_reason.is_empty() {
            "etcdserver: mvcc: required revision is a future revision"
        } else {
            &response.cancel_reason
        };
        output::write_stderr(format!("watch was canceled ({reason})\n").as_bytes());
        // As in etcd's client, only a compaction is told with its header and everything in it.
        if response.compact_revision == 0 {
            response = WatchResponse {
                header: Some(ResponseHeader::default()),
                canceled: true,
                ..WatchResponse::default()
            };
        }
        response.created = false;
        self.context.show(Answer::Watch(&response))
    }

    /// Obeys a line of standard input; none is its end.
    fn line(&mut self, line: Option<Vec<u8>>) -> Result<(), Failure> {
        let Some(line) = line else {
            return Err(Failure::new(
                Exit::InvalidInput,
                "error reading watch request line: EOF",
            ));
        };
        let shown = String::from_utf8_lossy(&line);
        let complain = |text: String| output::write_stderr(text.as_bytes());
        let arguments = split_arguments(&line).map_err(|argument| {
            let argument = String::from_utf8_lossy(&argument).into_owned();
            Failure::new(Exit::InvalidInput, format!("bad quoting: {argument}"))
        })?;
        match arguments.split_first() {
            None => complain(format!(
                "Invalid command: {shown} (watch and progress supported)\n"
            )),
            Some((name, rest)) if name == b"watch" => {
                if rest.is_empty() && self.preset.key.is_empty() {
                    complain(format!(
                        "Invalid command {shown} (command type or key is not provided)\n"
                    ));
                    return Ok(());
                }
                let line = read(&WATCH, &[], rest).map_err(|failure| {
                    let text = failure.text().unwrap_or_default();
                    Failure::new(Exit::BadArguments, text.lines().next().unwrap_or_default())
                })?;
                let order = WatchOrder::from_line(&line, &self.preset)?;
                self.add(order);
            }
            Some((name, _)) if name == b"progress" => {
                self.send(RequestUnion::ProgressRequest(WatchProgressRequest {}));
            }
            Some(_) => complain(format!("Invalid command {shown} (only support watch)\n")),
        }
        Ok(())
    }
}

/// Runs the user's command for one event and waits for it.
async fn execute(command: &[Vec<u8>], event: &Event, revision: i64) -> Result<(), Failure> {
    let shown: Vec<String> = command.iter().map(|argument| quote(argument)).collect();
    let failed = |reason: String| {
        let text = format!("command [{}] error ({reason})\n", shown.join(" "));
        output::write_stderr(text.as_bytes());
        Failure::reported(Exit::Error)
    };
    let mut arguments = command.iter().map(|argument| OsStr::from_bytes(argument));
    let Some(program) = arguments.next() else {
        return Ok(());
    };
    let kind = EventType::try_from(event.r#type).unwrap_or_default();
    let kv = event.kv.clone().unwrap_or_default();
    let mut process = Command::new(program);
    process
        .args(arguments)
        .env("ETCD_WATCH_REVISION", revision.to_string())
        .env(
            "ETCD_WATCH_EVENT_TYPE",
            quote(kind.as_str_name().as_bytes()),
        )
        .env("ETCD_WATCH_KEY", quote(&kv.key))
        .env("ETCD_WATCH_VALUE", quote(&kv.value));
    // On a thread of its own, so that the connection's pings are answered meanwhile.
    let status = tokio::task::spawn_blocking(move || process.status())
        .await
        .map_err(|error| failed(error.to_string()))?;
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(failed(exit_text(status))),
        Err(error) => Err(failed(error.to_string())),
    }
}

fn exit_text(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("signal: {signal}"),
        (None, None) => status.to_string(),
    }
}
