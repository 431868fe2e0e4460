//! Tokens: how many are asked for, what happens to one that is not taken, and that no secret is ever printed.

use std::{
    io::Write,
    process::{Command, Output, Stdio},
};

use crate::server::{PASSWORD, Rule, Server};

fn holdfastctl(server: &Server, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_holdfastctl"));
    command
        .args(["--endpoints", &server.address, "--debug"])
        .args(arguments)
        .env_clear();
    command
}

/// Runs the program, and checks on the way that it keeps what nobody else may know.
fn run(server: &Server, arguments: &[&str]) -> Output {
    let output = holdfastctl(server, arguments)
        .stdin(Stdio::null())
        .output()
        .expect("the binary runs");
    let said = [&output.stdout[..], &output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(!said.contains(PASSWORD), "{said}");
    assert!(!said.contains("token-"), "{said}");
    output
}

#[track_caller]
fn check(output: &Output, code: i32, stdout: &str, error: &str) {
    let said = String::from_utf8_lossy(&output.stderr);
    let said: Vec<&str> = said
        .lines()
        .filter(|line| !line.starts_with("ETCDCTL_"))
        .collect();
    assert_eq!(said.join("\n"), error);
    assert_eq!(String::from_utf8_lossy(&output.stdout), stdout);
    assert_eq!(output.status.code(), Some(code));
}

const USER: &str = "--user=alice:open sesame";

#[test]
fn one_login_serves_all_requests_of_a_command() {
    let server = Server::start(Rule::TakesAll);
    let output = run(&server, &[USER, "user", "get", "alice", "--detail"]);
    let role = |name: &str| format!("\nRole {name}\nKV Read:\n\tk\nKV Write:\n");
    let expected = format!("User: alice\n{}{}", role("one"), role("two"));
    check(&output, 0, &expected, "");
    assert_eq!(server.logins(), 1);
    assert_eq!(server.requests(), ["token-1", "token-1", "token-1"]);
}

#[test]
fn a_token_that_is_not_taken_is_replaced_once() {
    for reason in [
        "etcdserver: invalid auth token",
        "etcdserver: revision of auth store is old",
        "etcdserver: user name is empty",
    ] {
        for (arguments, stdout) in [
            (&["get", "k"][..], "k\nv\n"),
            (&["put", "k", "v"], "OK\n"),
            (
                &["lease", "keep-alive", "1", "--once"],
                "lease 0000000000000001 keepalived with TTL(9)\n",
            ),
        ] {
            let server = Server::start(Rule::RefusesFirst(reason));
            let output = run(&server, &[&[USER], arguments].concat());
            check(&output, 0, stdout, "");
            assert_eq!(server.logins(), 2, "{arguments:?}");
            assert_eq!(server.requests(), ["token-1", "token-2"], "{arguments:?}");
        }
        let server = Server::start(Rule::RefusesAll(reason));
        let output = run(&server, &[USER, "put", "k", "v"]);
        check(&output, 1, "", &format!("Error: {reason}"));
        assert_eq!(server.requests(), ["token-1", "token-2"]);
    }
    // Anything else is an answer.
    let server = Server::start(Rule::RefusesFirst("etcdserver: permission denied"));
    let output = run(&server, &[USER, "put", "k", "v"]);
    check(&output, 1, "", "Error: etcdserver: permission denied");
    assert_eq!(server.requests(), ["token-1"]);
}

#[test]
fn a_watch_goes_on_with_a_new_token() {
    let server = Server::start(Rule::RefusesFirst("etcdserver: invalid auth token"));
    let output = run(&server, &[USER, "watch", "k"]);
    let ended = "watch was canceled (enough)\nError: watch is canceled by the server";
    check(&output, 5, "PUT\nk\nv\n", ended);
    assert_eq!(server.requests(), ["token-1", "token-2"]);

    let server = Server::start(Rule::RefusesAll("etcdserver: invalid auth token"));
    let output = run(&server, &[USER, "watch", "k"]);
    let reason = "rpc error: code = Unauthenticated desc = etcdserver: invalid auth token";
    let ended = format!("watch was canceled ({reason})\nError: watch is canceled by the server");
    check(&output, 5, "", &ended);
    assert_eq!(server.requests(), ["token-1", "token-2"]);
}

#[test]
fn a_snapshot_starts_again_with_a_new_token() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("snapshot");
    let path = path.to_str().expect("UTF-8");
    let server = Server::start(Rule::RefusesFirst("etcdserver: invalid auth token"));
    let output = run(&server, &[USER, "snapshot", "save", path]);
    check(&output, 0, &format!("Snapshot saved at {path}\n"), "");
    assert_eq!(std::fs::read(path).expect("the file"), b"blob");
    assert_eq!(server.requests(), ["token-1", "token-2"]);
}

#[test]
fn a_token_of_the_users_own_is_sent_as_it_is() {
    let server = Server::start(Rule::RefusesAll("etcdserver: invalid auth token"));
    let output = run(&server, &["--auth-jwt-token=token-x", "get", "k"]);
    check(&output, 1, "", "Error: etcdserver: invalid auth token");
    assert_eq!(server.logins(), 0);
    assert_eq!(server.requests(), ["token-x"]);

    let output = run(&server, &["--auth-jwt-token=token-x\n", "get", "k"]);
    check(&output, 128, "", "Error: the token is not a header value");
}

#[test]
fn a_wrong_password_is_tried_once() {
    let server = Server::start(Rule::TakesAll);
    let endpoints = [&*server.address, &*server.address].join(",");
    let output = run(
        &server,
        &["--user=alice:wrong", "--endpoints", &endpoints, "get", "k"],
    );
    let error = "Error: etcdserver: authentication failed, invalid user ID or password";
    check(&output, 2, "", error);
    assert_eq!(server.logins(), 1);
    assert_eq!(server.requests(), [""; 0]);
}

#[test]
fn without_authentication_requests_go_on_as_nobody() {
    let server = Server::start(Rule::HasNoLogin);
    let output = run(&server, &[USER, "get", "k"]);
    check(&output, 0, "k\nv\n", "");
    assert_eq!(server.requests(), [""]);
}

#[test]
fn credentials_come_from_variables_and_standard_input() {
    for (variables, input) in [
        (&[("ETCDCTL_USER", "alice:open sesame")][..], ""),
        (
            &[("ETCDCTL_USER", "alice"), ("ETCDCTL_PASSWORD", PASSWORD)],
            "",
        ),
        (&[("ETCDCTL_USER", "alice")], "open sesame\n"),
    ] {
        let server = Server::start(Rule::TakesAll);
        let mut child = holdfastctl(&server, &["get", "k"])
            .envs(variables.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary runs");
        let mut stdin = child.stdin.take().expect("stdin is piped");
        // The program may be gone without having read.
        let _ = stdin.write_all(input.as_bytes());
        drop(stdin);
        let output = child.wait_with_output().expect("the binary ends");
        check(&output, 0, "k\nv\n", "");
        assert_eq!(server.requests(), ["token-1"], "{variables:?}");
        assert!(!String::from_utf8_lossy(&output.stderr).contains(PASSWORD));
    }
}
