//! The commands: what is asked of the server, and what is said when it refuses.

mod endpoint;
pub(crate) mod kv;
mod lease;
mod maintenance;
mod snapshot;
mod txn;
mod watch;
mod watch_order;

use holdfast_proto::etcdserverpb::{MemberListRequest, MemberListResponse};

use crate::{
    Exit, Failure,
    cli::{Action, Invocation, Read},
    connect::{Client, Retry},
    go_syntax::quote,
    output::{self, Answer, Format, Style},
};

/// What every command works with.
struct Context<'a> {
    client: Client<'a>,
    style: Style,
    line: &'a Read,
}

impl Context<'_> {
    fn show(&self, answer: Answer<'_>) -> Result<(), Failure> {
        output::show(self.style, answer)
    }
}

/// Runs a command to its end.
pub(crate) async fn run(invocation: &Invocation) -> Result<(), Failure> {
    let Invocation {
        action,
        globals,
        line,
    } = invocation;
    if line.flag("debug") {
        output::write_stderr(line.describe_globals().as_bytes());
    }
    let style = Style {
        format: Format::parse(&globals.write_out)?,
        hex: globals.hex,
        value_only: false,
    };
    // etcdctl finds this out after the request; a put that is reported as failed must not have happened.
    if style.format == Format::Table && !has_table(*action) {
        return Err(Failure::new(
            Exit::BadFeature,
            "table not supported as output format",
        ));
    }
    let context = Context {
        client: Client::new(globals)?,
        style,
        line,
    };
    match action {
        Action::Get => kv::get(&context).await,
        Action::Put => kv::put(&context).await,
        Action::Delete => kv::delete(&context).await,
        Action::Compaction => kv::compaction(&context).await,
        Action::Txn => txn::run(&context).await,
        Action::Watch => watch::run(&context).await,
        Action::LeaseGrant => lease::grant(&context).await,
        Action::LeaseRevoke => lease::revoke(&context).await,
        Action::LeaseTimeToLive => lease::time_to_live(&context).await,
        Action::LeaseList => lease::list(&context).await,
        Action::LeaseKeepAlive => lease::keep_alive(&context).await,
        Action::EndpointHealth => endpoint::health(&context).await,
        Action::EndpointStatus => endpoint::status(&context).await,
        Action::EndpointHashKv => endpoint::hash_kv(&context).await,
        Action::AlarmList => maintenance::alarm_list(&context).await,
        Action::AlarmDisarm => maintenance::alarm_disarm(&context).await,
        Action::Defrag => maintenance::defrag(&context).await,
        Action::SnapshotSave => snapshot::save(&context).await,
        Action::MemberList => context.show(Answer::Members(&members(&context).await?)),
        // Answered before anything is connected.
        Action::Version | Action::Options | Action::Help => Ok(()),
    }
}

/// Whether the command prints rows, or nothing that depends on the format.
fn has_table(action: Action) -> bool {
    match action {
        Action::EndpointHealth
        | Action::EndpointStatus
        | Action::EndpointHashKv
        | Action::MemberList
        | Action::Compaction
        | Action::Defrag
        | Action::SnapshotSave
        | Action::Version
        | Action::Options
        | Action::Help => true,
        Action::Get
        | Action::Put
        | Action::Delete
        | Action::Txn
        | Action::Watch
        | Action::LeaseGrant
        | Action::LeaseRevoke
        | Action::LeaseTimeToLive
        | Action::LeaseList
        | Action::LeaseKeepAlive
        | Action::AlarmList
        | Action::AlarmDisarm => false,
    }
}

async fn members(context: &Context<'_>) -> Result<MemberListResponse, Failure> {
    // `--cluster` also asks for members, without a consistency of its own.
    let linearizable = match context.line.text("consistency") {
        "" => true,
        consistency => !is_serializable(consistency)?,
    };
    context
        .client
        .call(Retry::Safe, |link| async move {
            let request = MemberListRequest { linearizable };
            link.cluster().member_list(request).await
        })
        .await
}

fn is_serializable(consistency: &str) -> Result<bool, Failure> {
    match consistency {
        "l" => Ok(false),
        "s" => Ok(true),
        _ => Err(Failure::new(
            Exit::BadFeature,
            format!("unknown consistency flag {}", quote(consistency.as_bytes())),
        )),
    }
}

fn bad_arguments<T>(text: impl Into<String>) -> Result<T, Failure> {
    Err(Failure::new(Exit::BadArguments, text))
}
