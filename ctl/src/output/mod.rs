//! What commands print, in each of the formats.

mod access;
mod audit;
mod fields;
mod go_json;
mod json;
mod rows;
mod simple;
mod table;
mod utc;

use std::io::{self, Write};

use holdfast_proto::{
    admin::{ListTokenKeysResponse, RotateTokenKeyResponse},
    etcdserverpb::{
        AlarmResponse, AlarmType, AuthRoleGetResponse, AuthRoleListResponse, AuthStatusResponse,
        AuthUserGetResponse, AuthUserListResponse, DeleteRangeResponse, HashKvResponse,
        LeaseGrantResponse, LeaseKeepAliveResponse, LeaseLeasesResponse, LeaseRevokeResponse,
        LeaseTimeToLiveResponse, MemberListResponse, PutResponse, RangeResponse, ResponseHeader,
        StatusResponse, TxnResponse, WatchResponse,
    },
};

pub use audit::Verified;

use crate::{Exit, Failure};

/// An answer to print.
#[derive(Debug, Clone, Copy)]
pub enum Answer<'a> {
    /// Of `get`.
    Get(&'a RangeResponse),
    /// Of `put`.
    Put(&'a PutResponse),
    /// Of `del`.
    Delete(&'a DeleteRangeResponse),
    /// Of `txn`.
    Txn(&'a TxnResponse),
    /// One message of `watch`.
    Watch(&'a WatchResponse),
    /// Of `lease grant`.
    Grant(&'a LeaseGrantResponse),
    /// Of `lease revoke`, with the id asked for.
    Revoke(i64, &'a LeaseRevokeResponse),
    /// One message of `lease keep-alive`.
    KeepAlive(&'a LeaseKeepAliveResponse),
    /// Of `lease timetolive`.
    TimeToLive {
        /// What the server said.
        response: &'a LeaseTimeToLiveResponse,
        /// Whether the keys were asked for.
        keys: bool,
    },
    /// Of `lease list`.
    Leases(&'a LeaseLeasesResponse),
    /// Of `member list`.
    Members(&'a MemberListResponse),
    /// Of `alarm list` and `alarm disarm`.
    Alarms(&'a AlarmResponse),
    /// Of `endpoint health`.
    Health(&'a [EndpointHealth]),
    /// Of `endpoint status`.
    Status(&'a [EndpointAnswer<StatusResponse>]),
    /// Of `endpoint hashkv`.
    HashKv(&'a [EndpointAnswer<HashKvResponse>]),
    /// Of a change of users or roles, whose answers hold nothing but a header.
    Changed {
        /// The header.
        header: Option<&'a ResponseHeader>,
        /// What `simple` says: lines, as bytes because they may name keys.
        said: &'a [u8],
    },
    /// Of `auth status`.
    AuthStatus(&'a AuthStatusResponse),
    /// Of `user get`.
    User {
        /// The name asked for.
        name: &'a str,
        /// What the server said.
        response: &'a AuthUserGetResponse,
    },
    /// Of `user list`.
    Users(&'a AuthUserListResponse),
    /// Of `role get`.
    Role {
        /// The name asked for.
        name: &'a str,
        /// What the server said.
        response: &'a AuthRoleGetResponse,
    },
    /// Of `role list`.
    Roles(&'a AuthRoleListResponse),
    /// Of `token-key list`.
    TokenKeys(&'a ListTokenKeysResponse),
    /// Of `token-key rotate`.
    TokenKeyRotated(&'a RotateTokenKeyResponse),
    /// Of `audit verify`.
    Verified(&'a [Verified]),
}

/// Whether one endpoint is well.
#[derive(Debug, Clone)]
pub struct EndpointHealth {
    /// The endpoint as the user wrote it.
    pub endpoint: String,
    /// How long the check took, in Go's form; empty if there was no connection.
    pub took: String,
    /// Why it is not well; none if it is.
    pub error: Option<String>,
}

/// What one endpoint answered.
#[derive(Debug, Clone)]
pub struct EndpointAnswer<T> {
    /// The endpoint as the user wrote it.
    pub endpoint: String,
    /// The answer.
    pub response: T,
}

/// The formats of `--write-out`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Text for people and shell scripts.
    Simple,
    /// One JSON document per line.
    Json,
    /// `"Name" : value` lines.
    Fields,
    /// Boxes, for lists of endpoints, members and token keys only.
    Table,
}

impl Format {
    /// The format of that name.
    ///
    /// # Errors
    ///
    /// Any other name, `protobuf` included: what it prints cannot be told apart by its reader.
    pub fn parse(name: &str) -> Result<Format, Failure> {
        match name {
            "simple" => Ok(Format::Simple),
            "json" => Ok(Format::Json),
            "fields" => Ok(Format::Fields),
            "table" => Ok(Format::Table),
            _ => Err(Failure::new(Exit::BadFeature, "unsupported output format")),
        }
    }
}

/// How to print.
#[derive(Debug, Clone, Copy)]
pub struct Style {
    /// The format.
    pub format: Format,
    /// Keys, values and ids in hexadecimal, where the format knows it.
    pub hex: bool,
    /// Leave out keys; `simple` only.
    pub value_only: bool,
}

/// Bytes for the two streams.
#[derive(Debug, Default)]
pub struct Printed {
    /// For standard output.
    pub out: Vec<u8>,
    /// For standard error.
    pub err: Vec<u8>,
}

/// Prints an answer into memory.
///
/// # Errors
///
/// A format that has no form for this answer (exit code 4).
pub fn render(style: Style, answer: Answer<'_>) -> Result<Printed, Failure> {
    let mut printed = Printed::default();
    match style.format {
        Format::Simple => simple::print(style, answer, &mut printed)?,
        Format::Json => {
            json::print(style.hex, answer, &mut printed.out);
            printed.out.push(b'\n');
        }
        Format::Fields => {
            if matches!(
                answer,
                Answer::AuthStatus(_)
                    | Answer::User { .. }
                    | Answer::Users(_)
                    | Answer::Verified(_)
            ) {
                return Err(unsupported(style.format));
            }
            fields::print(style.hex, answer, &mut printed.out)?;
        }
        Format::Table => {
            let Some((header, rows)) = rows::of(answer) else {
                return Err(unsupported(style.format));
            };
            table::print(header, &rows, &mut printed.out)?;
        }
    }
    Ok(printed)
}

/// What is said of a format that a command has no form in.
pub(crate) fn unsupported(format: Format) -> Failure {
    let name = match format {
        Format::Simple => "simple",
        Format::Json => "json",
        Format::Fields => "fields",
        Format::Table => "table",
    };
    Failure::new(
        Exit::BadFeature,
        format!("{name} not supported as output format"),
    )
}

/// Prints an answer on the standard streams.
pub(crate) fn show(style: Style, answer: Answer<'_>) -> Result<(), Failure> {
    let printed = render(style, answer)?;
    write_stderr(&printed.err);
    write_stdout(&printed.out)
}

/// Writes to standard output and flushes it, so that the reader of a watch sees each event at once.
pub(crate) fn write_stdout(bytes: &[u8]) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(bytes)?;
    out.flush()?;
    Ok(())
}

/// Writes to standard error. If that is closed, nobody wants to know.
pub(crate) fn write_stderr(bytes: &[u8]) {
    let _ = io::stderr().lock().write_all(bytes);
}

/// The name of an alarm as etcd prints it; an unknown one by its number.
pub(crate) fn alarm_name(alarm: i32) -> String {
    match AlarmType::try_from(alarm) {
        Ok(known) => known.as_str_name().to_owned(),
        Err(_) => alarm.to_string(),
    }
}

/// The name of an event type.
fn event_name(event: i32) -> String {
    match holdfast_proto::mvccpb::event::EventType::try_from(event) {
        Ok(known) => known.as_str_name().to_owned(),
        Err(_) => event.to_string(),
    }
}
