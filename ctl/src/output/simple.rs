//! The format for people and shell scripts: keys and values raw, one per line.

use std::io::{self, Write};

use holdfast_proto::{
    etcdserverpb::{
        AlarmMember, DeleteRangeResponse, LeaseTimeToLiveResponse, PutResponse, RangeResponse,
        TxnResponse, response_op::Response,
    },
    mvccpb::KeyValue,
};

use super::{Answer, Printed, Style, access, alarm_name, audit, event_name, rows, utc};

pub(super) fn print(style: Style, answer: Answer<'_>, printed: &mut Printed) -> io::Result<()> {
    let out = &mut printed.out;
    match answer {
        Answer::Get(response) => get(style, response, out),
        Answer::Put(response) => put(style, response, out),
        Answer::Delete(response) => delete(style, response, out),
        Answer::Txn(response) => txn(style, response, out),
        Answer::Watch(response) => {
            for event in &response.events {
                writeln!(out, "{}", event_name(event.r#type))?;
                if let Some(pair) = &event.prev_kv {
                    key_value(style, pair, out)?;
                }
                key_value(
                    style,
                    event.kv.as_ref().unwrap_or(&KeyValue::default()),
                    out,
                )?;
            }
            Ok(())
        }
        Answer::Grant(response) => writeln!(
            out,
            "lease {:016x} granted with TTL({}s)",
            response.id, response.ttl
        ),
        Answer::Revoke(id, _) => writeln!(out, "lease {id:016x} revoked"),
        Answer::KeepAlive(response) => writeln!(
            out,
            "lease {:016x} keepalived with TTL({})",
            response.id, response.ttl
        ),
        Answer::TimeToLive { response, keys } => time_to_live(response, keys, out),
        Answer::Leases(response) => {
            writeln!(out, "found {} leases", response.leases.len())?;
            response
                .leases
                .iter()
                .try_for_each(|lease| writeln!(out, "{:016x}", lease.id))
        }
        Answer::Alarms(response) => response
            .alarms
            .iter()
            .try_for_each(|member| writeln!(out, "{}", alarm(member))),
        Answer::Health(endpoints) => {
            for health in endpoints {
                let endpoint = &health.endpoint;
                match &health.error {
                    None => writeln!(
                        out,
                        "{endpoint} is healthy: successfully committed proposal: took = {}",
                        health.took
                    )?,
                    Some(error) => writeln!(
                        printed.err,
                        "{endpoint} is unhealthy: failed to commit proposal: {error}"
                    )?,
                }
            }
            Ok(())
        }
        Answer::Changed { said, .. } => out.write_all(said),
        Answer::AuthStatus(response) => {
            writeln!(out, "Authentication Status: {}", response.enabled)?;
            writeln!(out, "AuthRevision: {}", response.auth_revision)
        }
        Answer::User { name, response } => {
            writeln!(out, "User: {name}")?;
            write!(out, "Roles:")?;
            let mut roles = response.roles.iter();
            roles.try_for_each(|role| write!(out, " {role}"))?;
            writeln!(out)
        }
        Answer::Users(response) => lines(&response.users, out),
        Answer::Role { name, response } => access::role(name, response, out),
        Answer::Roles(response) => lines(&response.roles, out),
        Answer::TokenKeyRotated(response) => {
            writeln!(out, "Token key {} made", response.key_id)?;
            match response.previous_retire_at_unix {
                0 => Ok(()),
                at => writeln!(out, "Keys before it retire at {}", utc::text(at)),
            }
        }
        Answer::Verified(logs) => audit::print(logs, out),
        Answer::Members(_) | Answer::Status(_) | Answer::HashKv(_) | Answer::TokenKeys(_) => {
            let (_, rows) = rows::of(answer).unwrap_or_default();
            rows.iter()
                .try_for_each(|row| writeln!(out, "{}", row.join(", ")))
        }
    }
}

fn lines(names: &[String], out: &mut Vec<u8>) -> io::Result<()> {
    names.iter().try_for_each(|name| writeln!(out, "{name}"))
}

fn get(style: Style, response: &RangeResponse, out: &mut Vec<u8>) -> io::Result<()> {
    response
        .kvs
        .iter()
        .try_for_each(|pair| key_value(style, pair, out))
}

fn put(style: Style, response: &PutResponse, out: &mut Vec<u8>) -> io::Result<()> {
    writeln!(out, "OK")?;
    response
        .prev_kv
        .iter()
        .try_for_each(|pair| key_value(style, pair, out))
}

fn delete(style: Style, response: &DeleteRangeResponse, out: &mut Vec<u8>) -> io::Result<()> {
    writeln!(out, "{}", response.deleted)?;
    response
        .prev_kvs
        .iter()
        .try_for_each(|pair| key_value(style, pair, out))
}

fn txn(style: Style, response: &TxnResponse, out: &mut Vec<u8>) -> io::Result<()> {
    writeln!(
        out,
        "{}",
        if response.succeeded {
            "SUCCESS"
        } else {
            "FAILURE"
        }
    )?;
    for operation in &response.responses {
        writeln!(out)?;
        match &operation.response {
            Some(Response::ResponseRange(response)) => get(style, response, out)?,
            Some(Response::ResponsePut(response)) => put(style, response, out)?,
            Some(Response::ResponseDeleteRange(response)) => delete(style, response, out)?,
            // The grammar has no nested transaction, so no server answers with one.
            Some(Response::ResponseTxn(_)) | None => writeln!(out, "unexpected response")?,
        }
    }
    Ok(())
}

fn time_to_live(
    response: &LeaseTimeToLiveResponse,
    keys: bool,
    out: &mut Vec<u8>,
) -> io::Result<()> {
    let LeaseTimeToLiveResponse {
        id,
        ttl,
        granted_ttl,
        ..
    } = response;
    if *granted_ttl == 0 && *ttl == -1 {
        return writeln!(out, "lease {id:016x} already expired");
    }
    write!(
        out,
        "lease {id:016x} granted with TTL({granted_ttl}s), remaining({ttl}s)"
    )?;
    if keys {
        write!(out, ", attached keys([")?;
        out.extend_from_slice(&response.keys.join(&b' '));
        write!(out, "])")?;
    }
    writeln!(out)
}

/// The text form of the message, which leaves out zero fields.
fn alarm(member: &AlarmMember) -> String {
    let mut parts = Vec::new();
    if member.member_id != 0 {
        parts.push(format!("memberID:{}", member.member_id));
    }
    if member.alarm != 0 {
        parts.push(format!("alarm:{}", alarm_name(member.alarm)));
    }
    parts.join(" ")
}

fn key_value(style: Style, pair: &KeyValue, out: &mut Vec<u8>) -> io::Result<()> {
    if !style.value_only {
        bytes_line(style, &pair.key, out)?;
    }
    bytes_line(style, &pair.value, out)
}

fn bytes_line(style: Style, bytes: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
    if style.hex {
        bytes
            .iter()
            .try_for_each(|byte| write!(out, "\\x{byte:02x}"))?;
    } else {
        out.extend_from_slice(bytes);
    }
    writeln!(out)
}
