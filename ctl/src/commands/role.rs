//! The commands on roles.

use bytes::Bytes;
use holdfast_proto::{
    authpb::{Permission, permission::Type},
    etcdserverpb::{
        AuthRoleAddRequest, AuthRoleDeleteRequest, AuthRoleGetRequest,
        AuthRoleGrantPermissionRequest, AuthRoleListRequest, AuthRoleRevokePermissionRequest,
    },
};

use super::{
    Context, bad_arguments, changed,
    kv::{FIRST_KEY, OPEN_END, prefix_range},
    no_arguments, text,
};
use crate::{Failure, cli::Read, connect::Retry, output::Answer};

pub(super) async fn add(context: &Context<'_>) -> Result<(), Failure> {
    let [name] = context.line.positional() else {
        return bad_arguments("role add command requires role name as its argument");
    };
    let name = text(name, "role name")?;
    let response = context
        .client
        .call(Retry::Unsafe, |link| {
            let request = AuthRoleAddRequest { name: name.clone() };
            async move { link.auth().role_add(request).await }
        })
        .await?;
    changed(context, response.header, format!("Role {name} created\n"))
}

pub(super) async fn delete(context: &Context<'_>) -> Result<(), Failure> {
    let [name] = context.line.positional() else {
        return bad_arguments("role delete command requires role name as its argument");
    };
    let name = text(name, "role name")?;
    let response = context
        .client
        .call(Retry::Unsafe, |link| {
            let request = AuthRoleDeleteRequest { role: name.clone() };
            async move { link.auth().role_delete(request).await }
        })
        .await?;
    changed(context, response.header, format!("Role {name} deleted\n"))
}

pub(super) async fn get(context: &Context<'_>) -> Result<(), Failure> {
    let [name] = context.line.positional() else {
        return bad_arguments("role get command requires role name as its argument");
    };
    show(context, &text(name, "role name")?).await
}

/// Fetches and prints a role.
pub(super) async fn show(context: &Context<'_>, name: &str) -> Result<(), Failure> {
    let response = context
        .client
        .call(Retry::Safe, |link| {
            let request = AuthRoleGetRequest {
                role: name.to_owned(),
            };
            async move { link.auth().role_get(request).await }
        })
        .await?;
    context.show(Answer::Role {
        name,
        response: &response,
    })
}

pub(super) async fn list(context: &Context<'_>) -> Result<(), Failure> {
    no_arguments(context, "role list command requires no arguments")?;
    let response = context
        .client
        .call(Retry::Safe, |link| async move {
            link.auth().role_list(AuthRoleListRequest {}).await
        })
        .await?;
    context.show(Answer::Roles(&response))
}

pub(super) async fn grant_permission(context: &Context<'_>) -> Result<(), Failure> {
    let request = grant_request(context.line)?;
    let response = context
        .client
        .call(Retry::Unsafe, |link| {
            let request = request.clone();
            async move { link.auth().role_grant_permission(request).await }
        })
        .await?;
    let said = format!("Role {} updated\n", request.name);
    changed(context, response.header, said)
}

fn grant_request(line: &Read) -> Result<AuthRoleGrantPermissionRequest, Failure> {
    let [role, kind, keys @ ..] = line.positional() else {
        return bad_arguments(GRANT_USAGE);
    };
    let Some(keys) = Keys::from_arguments(keys) else {
        return bad_arguments(GRANT_USAGE);
    };
    let kind = match kind.to_ascii_lowercase().as_slice() {
        b"read" => Type::Read,
        b"write" => Type::Write,
        b"readwrite" => Type::Readwrite,
        _ => {
            let kind = String::from_utf8_lossy(kind);
            return bad_arguments(format!("invalid permission type: {kind}"));
        }
    };
    let (key, range_end) = keys.range(line)?;
    Ok(AuthRoleGrantPermissionRequest {
        name: text(role, "role name")?,
        perm: Some(Permission {
            perm_type: kind.into(),
            key,
            range_end,
        }),
    })
}

const GRANT_USAGE: &str =
    "role grant command requires role name, permission type, and key [endkey] as its argument";

pub(super) async fn revoke_permission(context: &Context<'_>) -> Result<(), Failure> {
    let request = revoke_request(context.line)?;
    let response = context
        .client
        .call(Retry::Unsafe, |link| {
            let request = request.clone();
            async move { link.auth().role_revoke_permission(request).await }
        })
        .await?;
    // The key as it was given, which for the first one may be nothing.
    let key = context.line.positional().get(1).map_or(&[][..], |key| key);
    changed(
        context,
        response.header,
        revoked(&request.role, key, &request.range_end),
    )
}

fn revoke_request(line: &Read) -> Result<AuthRoleRevokePermissionRequest, Failure> {
    const USAGE: &str =
        "role revoke-permission command requires role name and key [endkey] as its argument";
    let [role, keys @ ..] = line.positional() else {
        return bad_arguments(USAGE);
    };
    let Some(keys) = Keys::from_arguments(keys) else {
        return bad_arguments(USAGE);
    };
    let (key, range_end) = keys.range(line)?;
    Ok(AuthRoleRevokePermissionRequest {
        role: text(role, "role name")?,
        key,
        range_end,
    })
}

fn revoked(role: &str, key: &[u8], end: &[u8]) -> Vec<u8> {
    let from_role = format!(" is revoked from role {role}\n");
    let parts: &[&[u8]] = match end {
        b"" => &[b"Permission of key ", key],
        b"\0" => &[b"Permission of range [", key, b", <open ended>"],
        _ => &[b"Permission of range [", key, b", ", end, b")"],
    };
    [&parts.concat(), from_role.as_bytes()].concat()
}

/// `key [endkey]`.
struct Keys<'a> {
    key: &'a [u8],
    end: Option<&'a [u8]>,
}

impl Keys<'_> {
    /// None for no key, and for more than two: etcdctl passes over the rest, but what is granted should be what was meant.
    fn from_arguments(arguments: &[Vec<u8>]) -> Option<Keys<'_>> {
        match arguments {
            [key] => Some(Keys { key, end: None }),
            [key, end] => Some(Keys {
                key,
                end: Some(end),
            }),
            _ => None,
        }
    }

    fn range(&self, line: &Read) -> Result<(Bytes, Bytes), Failure> {
        let (prefix, from_key) = (line.flag("prefix"), line.flag("from-key"));
        if prefix && from_key {
            return bad_arguments("--from-key and --prefix flags are mutually exclusive");
        }
        if let (Some(_), true) = (self.end, prefix || from_key) {
            let flag = if prefix { "prefix" } else { "from-key" };
            return bad_arguments(format!("unexpected endkey argument with --{flag} flag"));
        }
        if prefix {
            return Ok(prefix_range(self.key));
        }
        // There is no empty key; the first one is meant.
        let key = if self.key.is_empty() {
            FIRST_KEY
        } else {
            Bytes::copy_from_slice(self.key)
        };
        let end = if from_key {
            OPEN_END
        } else {
            Bytes::copy_from_slice(self.end.unwrap_or_default())
        };
        Ok((key, end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::line_of;

    #[test]
    fn permissions() {
        for (arguments, kind, key, end) in [
            (&["r", "read", "k"][..], Type::Read, "k", ""),
            (&["r", "WRITE", "k", ""], Type::Write, "k", ""),
            (&["r", "ReadWrite", "a", "b"], Type::Readwrite, "a", "b"),
            (&["--prefix", "r", "read", "a/"], Type::Read, "a/", "a0"),
            (&["r", "read", "--prefix", ""], Type::Read, "\0", "\0"),
            (&["r", "read", "k", "--from-key"], Type::Read, "k", "\0"),
            (&["r", "read", "", "--from-key"], Type::Read, "\0", "\0"),
            (&["r", "read", ""], Type::Read, "\0", ""),
            (&["r", "read", "", "b"], Type::Read, "\0", "b"),
        ] {
            let line = line_of(&[&["role", "grant-permission"], arguments].concat());
            let request = grant_request(&line).unwrap();
            let permission = request.perm.unwrap();
            assert_eq!(request.name, "r");
            assert_eq!(permission.perm_type(), kind, "{arguments:?}");
            assert_eq!(permission.key, key, "{arguments:?}");
            assert_eq!(permission.range_end, end, "{arguments:?}");
        }
        for (arguments, error) in [
            (&["r", "read"][..], GRANT_USAGE),
            (&["r", "read", "a", "b", "c"], GRANT_USAGE),
            (&["r", "exec", "a"], "invalid permission type: exec"),
            (
                &["r", "exec", "a", "b", "--prefix"],
                "invalid permission type: exec",
            ),
            (
                &["r", "read", "a", "b", "--prefix"],
                "unexpected endkey argument with --prefix flag",
            ),
            (
                &["r", "read", "a", "b", "--from-key"],
                "unexpected endkey argument with --from-key flag",
            ),
            (
                &["r", "read", "a", "--from-key", "--prefix"],
                "--from-key and --prefix flags are mutually exclusive",
            ),
        ] {
            let line = line_of(&[&["role", "grant-permission"], arguments].concat());
            let failure = grant_request(&line).unwrap_err();
            assert_eq!(failure.text(), Some(error), "{arguments:?}");
        }
    }

    #[test]
    fn what_was_revoked_is_said_as_it_was_asked_for() {
        for (key, end, said) in [
            (&b"k"[..], &b""[..], &b"key k"[..]),
            (b"", b"", b"key "),
            (b"a", b"b", b"range [a, b)"),
            (b"f", b"\0", b"range [f, <open ended>"),
            (b"\xff\xfe", b"\xff\xff", b"range [\xff\xfe, \xff\xff)"),
        ] {
            let expected = [b"Permission of ", said, b" is revoked from role r\n"].concat();
            assert_eq!(revoked("r", key, end), expected);
        }
    }
}
