//! The commands on users.

use std::{
    fs::File,
    io::{self, Read},
};

use holdfast_proto::{
    authpb::UserAddOptions,
    etcdserverpb::{
        AuthUserAddRequest, AuthUserChangePasswordRequest, AuthUserDeleteRequest,
        AuthUserGetRequest, AuthUserGrantRoleRequest, AuthUserListRequest,
        AuthUserRevokeRoleRequest,
    },
};

use super::{Context, bad_arguments, changed, no_arguments, role, text};
use crate::{
    Failure,
    cli::Read as Line,
    connect::Retry,
    output::{self, Answer},
    terminal,
};

/// The longest hash there is a use for: argon2id's with a salt and a sum of 64 bytes each has less than 300.
const MAX_HASH_BYTES: usize = 1024;

pub(super) async fn add(context: &Context<'_>) -> Result<(), Failure> {
    let request = add_request(context.line)?;
    let response = context
        .client
        .call(Retry::Unsafe, |link| {
            let request = request.clone();
            async move { link.auth().user_add(request).await }
        })
        .await?;
    let said = format!("User {} created\n", request.name);
    changed(context, response.header, said)
}

fn add_request(line: &Line) -> Result<AuthUserAddRequest, Failure> {
    let [name] = line.positional() else {
        return bad_arguments("user add command requires user name as its argument");
    };
    let name = text(name, "user name")?;
    let mut request = AuthUserAddRequest {
        options: Some(UserAddOptions { no_password: false }),
        ..AuthUserAddRequest::default()
    };
    let (given, hash_file) = (
        line.text("new-user-password"),
        line.text("password-hash-file"),
    );
    if !hash_file.is_empty() {
        if line.flag("no-password") || !given.is_empty() {
            return bad_arguments("a password and a hash of one are mutually exclusive");
        }
        request.name = name;
        request.hashed_password = hash_of(hash_file)?;
    } else if line.flag("no-password") {
        request.name = name;
        request.options = Some(UserAddOptions { no_password: true });
    } else if !given.is_empty() {
        request.name = name;
        request.password = given.to_owned();
    } else if let Some((name, password)) = name.split_once(':') {
        if name.is_empty() {
            return bad_arguments("empty user name is not allowed");
        }
        request.name = name.to_owned();
        request.password = password.to_owned();
    } else {
        request.password = new_password(line, &name)?;
        request.name = name;
    }
    Ok(request)
}

/// Reads a hash made elsewhere. The server judges it; what is caught here is the wrong file.
fn hash_of(path: &str) -> Result<String, Failure> {
    let mut hash = String::new();
    let read = File::open(path).and_then(|file| {
        // The bound also ends a file that has no end.
        file.take(MAX_HASH_BYTES as u64 + 1)
            .read_to_string(&mut hash)
    });
    if let Err(error) = read {
        return bad_arguments(format!("cannot read the hash in {path}: {error}"));
    }
    let trimmed = hash.trim_end_matches(['\n', '\r']);
    let known = ["$2a$", "$2b$", "$2y$", "$argon2id$"];
    let printable = trimmed.bytes().all(|byte| byte.is_ascii_graphic());
    if hash.len() > MAX_HASH_BYTES
        || !printable
        || !known.iter().any(|prefix| trimmed.starts_with(prefix))
    {
        return bad_arguments(format!(
            "{path} holds no hash of bcrypt ($2a$, $2b$, $2y$) or argon2id ($argon2id$)"
        ));
    }
    Ok(trimmed.to_owned())
}

/// Asks for the new password of a user, twice, or reads it from a line of standard input.
fn new_password(line: &Line, user: &str) -> Result<String, Failure> {
    let nothing = || bad_arguments("empty password");
    if !line.flag("interactive") {
        return match terminal::line(&mut io::stdin().lock())? {
            // etcdctl takes no input for an empty password; a pipe that failed should not make one.
            None => nothing(),
            Some(password) => Ok(password),
        };
    }
    // The name goes to the terminal as it is; one with control characters is no server's to accept.
    let shown: String = user.chars().filter(|c| !c.is_control()).collect();
    let first = match terminal::ask_input(&format!("Password of {shown}: "))? {
        Some(password) if !password.is_empty() => password,
        _ => return nothing(),
    };
    let again = format!("Type password of {shown} again for confirmation: ");
    match terminal::ask_input(&again)? {
        Some(second) if second == first => Ok(first),
        _ => bad_arguments("given passwords are different"),
    }
}

pub(super) async fn passwd(context: &Context<'_>) -> Result<(), Failure> {
    let [name] = context.line.positional() else {
        return bad_arguments("user passwd command requires user name as its argument");
    };
    let name = text(name, "user name")?;
    let request = AuthUserChangePasswordRequest {
        password: new_password(context.line, &name)?,
        name,
        ..AuthUserChangePasswordRequest::default()
    };
    let response = context
        .client
        .call(Retry::Unsafe, |link| {
            let request = request.clone();
            async move { link.auth().user_change_password(request).await }
        })
        .await?;
    changed(context, response.header, "Password updated\n")
}

pub(super) async fn delete(context: &Context<'_>) -> Result<(), Failure> {
    let [name] = context.line.positional() else {
        return bad_arguments("user delete command requires user name as its argument");
    };
    let name = text(name, "user name")?;
    let response = context
        .client
        .call(Retry::Unsafe, |link| {
            let request = AuthUserDeleteRequest { name: name.clone() };
            async move { link.auth().user_delete(request).await }
        })
        .await?;
    changed(context, response.header, format!("User {name} deleted\n"))
}

pub(super) async fn get(context: &Context<'_>) -> Result<(), Failure> {
    let [name] = context.line.positional() else {
        return bad_arguments("user get command requires user name as its argument");
    };
    let name = text(name, "user name")?;
    let response = context
        .client
        .call(Retry::Safe, |link| {
            let request = AuthUserGetRequest { name: name.clone() };
            async move { link.auth().user_get(request).await }
        })
        .await?;
    if !context.line.flag("detail") {
        return context.show(Answer::User {
            name: &name,
            response: &response,
        });
    }
    output::write_stdout(format!("User: {name}\n").as_bytes())?;
    for granted in &response.roles {
        output::write_stdout(b"\n")?;
        role::show(context, granted).await?;
    }
    Ok(())
}

pub(super) async fn list(context: &Context<'_>) -> Result<(), Failure> {
    no_arguments(context, "user list command requires no arguments")?;
    let response = context
        .client
        .call(Retry::Safe, |link| async move {
            link.auth().user_list(AuthUserListRequest {}).await
        })
        .await?;
    context.show(Answer::Users(&response))
}

pub(super) async fn grant_role(context: &Context<'_>) -> Result<(), Failure> {
    let [user, role] = context.line.positional() else {
        return bad_arguments(
            "user grant command requires user name and role name as its argument",
        );
    };
    let (user, role) = (text(user, "user name")?, text(role, "role name")?);
    let response = context
        .client
        .call(Retry::Unsafe, |link| {
            let (user, role) = (user.clone(), role.clone());
            let request = AuthUserGrantRoleRequest { user, role };
            async move { link.auth().user_grant_role(request).await }
        })
        .await?;
    let said = format!("Role {role} is granted to user {user}\n");
    changed(context, response.header, said)
}

pub(super) async fn revoke_role(context: &Context<'_>) -> Result<(), Failure> {
    let [user, role] = context.line.positional() else {
        return bad_arguments("user revoke-role requires user name and role name as its argument");
    };
    let (user, role) = (text(user, "user name")?, text(role, "role name")?);
    let response = context
        .client
        .call(Retry::Unsafe, |link| {
            let (name, role) = (user.clone(), role.clone());
            let request = AuthUserRevokeRoleRequest { name, role };
            async move { link.auth().user_revoke_role(request).await }
        })
        .await?;
    let said = format!("Role {role} is revoked from user {user}\n");
    changed(context, response.header, said)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::cli::line_of;

    fn request(arguments: &[&str]) -> Result<AuthUserAddRequest, String> {
        let line = line_of(&[&["user", "add"], arguments].concat());
        add_request(&line).map_err(|failure| failure.to_string())
    }

    #[test]
    fn forms_of_user_add() {
        for (arguments, name, password, no_password) in [
            (&["a:pw"][..], "a", "pw", false),
            (&["a:p:w"], "a", "p:w", false),
            (&["a:"], "a", "", false),
            (&["a", "--new-user-password", "p w"], "a", "p w", false),
            (&["a:b", "--new-user-password=pw"], "a:b", "pw", false),
            (&["a:b", "--no-password"], "a:b", "", true),
            (
                &["a", "--no-password", "--new-user-password", "pw"],
                "a",
                "",
                true,
            ),
        ] {
            let request = request(arguments).unwrap();
            assert_eq!(request.name, name, "{arguments:?}");
            assert_eq!(request.password, password, "{arguments:?}");
            assert_eq!(request.options, Some(UserAddOptions { no_password }));
            assert_eq!(request.hashed_password, "");
        }
        for (arguments, text) in [
            (
                &[][..],
                "user add command requires user name as its argument",
            ),
            (
                &["a", "b"],
                "user add command requires user name as its argument",
            ),
            (&[":pw"], "empty user name is not allowed"),
        ] {
            assert_eq!(request(arguments).unwrap_err(), text, "{arguments:?}");
        }
    }

    #[test]
    fn hashes_are_read_from_a_file() {
        let bcrypt = "$2a$10$0123456789012345678901uDDDDDDDDDDDDDDDDDDDDDDDDDDDDDD";
        let mut file = tempfile::NamedTempFile::new().unwrap();
        writeln!(file, "{bcrypt}").unwrap();
        let path = file.path().to_str().unwrap();
        let sent = request(&["a:b", "--password-hash-file", path]).unwrap();
        assert_eq!(sent.name, "a:b");
        assert_eq!(sent.password, "");
        assert_eq!(sent.hashed_password, bcrypt);

        let error = request(&["a", "--no-password", "--password-hash-file", path]).unwrap_err();
        assert_eq!(error, "a password and a hash of one are mutually exclusive");
        let error = request(&["a", "--password-hash-file", "/dev/zero"]).unwrap_err();
        assert!(error.starts_with("/dev/zero holds no hash"), "{error}");
        for wrong in ["", "secret", "$1$abc", "$2a$10$x y", "$2a$10$x\ny"] {
            let mut file = tempfile::NamedTempFile::new().unwrap();
            write!(file, "{wrong}").unwrap();
            let path = file.path().to_str().unwrap();
            let error = request(&["a", "--password-hash-file", path]).unwrap_err();
            assert!(error.starts_with(path), "{error}");
            // A password in the wrong file stays there.
            assert!(!error.contains("secret"));
        }
    }
}
