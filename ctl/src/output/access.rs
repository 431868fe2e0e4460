//! The permissions of a role, for people.

use std::io::{self, Write};

use holdfast_proto::{
    authpb::{Permission, permission::Type},
    etcdserverpb::AuthRoleGetResponse,
};

use crate::commands::kv::prefix_range;

pub(super) fn role(
    name: &str,
    response: &AuthRoleGetResponse,
    out: &mut Vec<u8>,
) -> io::Result<()> {
    writeln!(out, "Role {name}")?;
    for (title, kind) in [("KV Read:", Type::Read), ("KV Write:", Type::Write)] {
        writeln!(out, "{title}")?;
        let holds = |permission: &&Permission| {
            let own = Type::try_from(permission.perm_type);
            own == Ok(kind) || own == Ok(Type::Readwrite)
        };
        for permission in response.perm.iter().filter(holds) {
            keys(&permission.key, &permission.range_end, out);
        }
    }
    Ok(())
}

fn keys(key: &[u8], end: &[u8], out: &mut Vec<u8>) {
    let mut line = |parts: &[&[u8]]| {
        out.push(b'\t');
        out.extend_from_slice(&parts.concat());
        out.push(b'\n');
    };
    match end {
        b"" => line(&[key]),
        b"\0" => line(&[b"[", key, b", <open ended>"]),
        _ if prefix_range(key).1 == end => {
            line(&[b"[", key, b", ", end, b") (prefix ", key, b")"]);
        }
        _ => line(&[b"[", key, b", ", end, b")"]),
    }
}

/// The name of a kind of permission as etcd prints it; an unknown one by its number.
pub(super) fn kind_name(kind: i32) -> String {
    match Type::try_from(kind) {
        Ok(known) => known.as_str_name().to_owned(),
        Err(_) => kind.to_string(),
    }
}
