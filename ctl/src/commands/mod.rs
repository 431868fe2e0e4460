//! The commands: what is asked of the server, and what is said when it refuses.

mod audit;
mod auth;
mod endpoint;
pub(crate) mod kv;
mod lease;
mod maintenance;
mod role;
mod snapshot;
mod token_key;
mod txn;
mod user;
mod watch;
mod watch_order;

use holdfast_proto::etcdserverpb::{MemberListRequest, MemberListResponse, ResponseHeader};

use crate::{
    Exit, Failure,
    cli::{Action, Invocation, Read},
    connect::{Client, Retry},
    dev_cluster,
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
    let lacking = match style.format {
        Format::Table => !has_table(*action),
        Format::Fields => !has_fields(*action, line),
        Format::Simple | Format::Json => false,
    };
    if lacking {
        return Err(output::unsupported(style.format));
    }
    // What works on files, or on a cluster of its own, reads no TLS files and asks nobody for a password.
    match action {
        Action::AuditVerify => return audit::verify(line, style),
        Action::AuditTail => return audit::tail(line),
        Action::AuditGrep => return audit::grep(line),
        Action::DevCluster => return dev_cluster::run(line).await,
        _ => {}
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
        Action::AuthEnable => auth::enable(&context).await,
        Action::AuthDisable => auth::disable(&context).await,
        Action::AuthStatus => auth::status(&context).await,
        Action::UserAdd => user::add(&context).await,
        Action::UserDelete => user::delete(&context).await,
        Action::UserGet => user::get(&context).await,
        Action::UserList => user::list(&context).await,
        Action::UserPasswd => user::passwd(&context).await,
        Action::UserGrantRole => user::grant_role(&context).await,
        Action::UserRevokeRole => user::revoke_role(&context).await,
        Action::RoleAdd => role::add(&context).await,
        Action::RoleDelete => role::delete(&context).await,
        Action::RoleGet => role::get(&context).await,
        Action::RoleList => role::list(&context).await,
        Action::RoleGrantPermission => role::grant_permission(&context).await,
        Action::RoleRevokePermission => role::revoke_permission(&context).await,
        Action::TokenKeyRotate => token_key::rotate(&context).await,
        Action::TokenKeyList => token_key::list(&context).await,
        // Answered before anything is connected.
        Action::AuditVerify
        | Action::AuditTail
        | Action::AuditGrep
        | Action::DevCluster
        | Action::Completion
        | Action::Version
        | Action::Options
        | Action::Help => Ok(()),
    }
}

/// Whether the command has a form in fields; as in etcdctl, three have none.
fn has_fields(action: Action, line: &Read) -> bool {
    match action {
        Action::AuthStatus | Action::UserList => false,
        Action::AuditVerify | Action::AuditTail | Action::AuditGrep | Action::DevCluster => false,
        Action::UserGet => line.flag("detail"),
        _ => true,
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
        | Action::AuthEnable
        | Action::AuthDisable
        | Action::TokenKeyList
        | Action::Completion
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
        | Action::AlarmDisarm
        | Action::AuthStatus
        | Action::UserAdd
        | Action::UserDelete
        | Action::UserGet
        | Action::UserList
        | Action::UserPasswd
        | Action::UserGrantRole
        | Action::UserRevokeRole
        | Action::RoleAdd
        | Action::RoleDelete
        | Action::RoleGet
        | Action::RoleList
        | Action::RoleGrantPermission
        | Action::RoleRevokePermission
        | Action::TokenKeyRotate
        | Action::AuditVerify
        | Action::AuditTail
        | Action::AuditGrep
        | Action::DevCluster => false,
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

/// Prints the answer of a change: `said`, or its header in the formats for programs.
fn changed(
    context: &Context<'_>,
    header: Option<ResponseHeader>,
    said: impl AsRef<[u8]>,
) -> Result<(), Failure> {
    context.show(Answer::Changed {
        header: header.as_ref(),
        said: said.as_ref(),
    })
}

fn no_arguments(context: &Context<'_>, usage: &str) -> Result<(), Failure> {
    if context.line.positional().is_empty() {
        Ok(())
    } else {
        bad_arguments(usage)
    }
}

/// An argument that is a string on the wire, where a key is bytes.
fn text(argument: &[u8], what: &str) -> Result<String, Failure> {
    match std::str::from_utf8(argument) {
        Ok(text) => Ok(text.to_owned()),
        Err(_) => bad_arguments(format!("the {what} {} is not valid UTF-8", quote(argument))),
    }
}

fn bad_arguments<T>(text: impl Into<String>) -> Result<T, Failure> {
    Err(Failure::new(Exit::BadArguments, text))
}
