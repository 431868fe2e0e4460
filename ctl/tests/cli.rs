//! The binary itself: exit codes, help, and what goes to which stream.

#![expect(
    clippy::expect_used,
    reason = "a helper that cannot do its part fails the test"
)]

use std::{
    io::Write,
    net::TcpListener,
    process::{Command, Output, Stdio},
};

fn holdfastctl(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_holdfastctl"));
    command.args(arguments).env_clear();
    command
}

fn run(arguments: &[&str]) -> Output {
    holdfastctl(arguments)
        .stdin(Stdio::null())
        .output()
        .expect("the binary runs")
}

fn run_with_input(arguments: &[&str], input: &str) -> Output {
    let mut child = holdfastctl(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    let mut stdin = child.stdin.take().expect("stdin is piped");
    // The program may be gone before it has read everything.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    child.wait_with_output().expect("the binary ends")
}

/// An address where nobody listens.
fn dead_endpoint() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("bound").to_string()
}

#[track_caller]
fn check(output: &Output, code: i32, stderr: &str) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(said.lines().next().unwrap_or_default(), stderr);
    assert_eq!(output.status.code(), Some(code), "{said}");
    assert!(output.stdout.is_empty());
}

#[test]
fn help_and_version_succeed() {
    for (arguments, expected) in [
        (&[][..], "holdfastctl [command]"),
        (&["--help"], "ETCDCTL_ENDPOINTS"),
        (&["-h"], "A flag wins over its variable"),
        (&["help", "lease", "grant"], "holdfastctl lease grant <ttl>"),
        (&["get", "--help"], "--print-value-only"),
        (&["get", "a", "-h"], "holdfastctl get <key> [range_end]"),
        (&["lease"], "keep-alive"),
        (&["options"], "--keepalive-timeout duration"),
        (&["version"], "API version: 3.7"),
        (&["--version"], "holdfastctl version: "),
        (&["user", "add", "--help"], "--password-hash-file string"),
        (&["user", "passwd", "-h"], "(default true)"),
        (&["role"], "grant-permission"),
        (
            &["help", "token-key", "rotate"],
            "holdfastctl token-key rotate [flags]",
        ),
        (&["audit", "verify", "-h"], "--public-key"),
        (
            &["completion", "bash"],
            "complete -o default -F _holdfastctl holdfastctl",
        ),
    ] {
        let output = run(arguments);
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{arguments:?}");
        assert!(said.contains(expected), "{arguments:?}: {said}");
        assert!(output.stderr.is_empty(), "{arguments:?}");
    }
}

#[test]
fn every_command_of_the_help_has_its_own() {
    let listed = |arguments: &[&str]| -> Vec<String> {
        let output = run(arguments);
        assert!(output.status.success(), "{arguments:?}");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let commands = text.lines().skip_while(|line| *line != "Commands:").skip(1);
        commands
            .take_while(|line| !line.is_empty())
            .filter_map(|line| line.split_whitespace().next().map(str::to_owned))
            .collect()
    };
    let commands = listed(&["--help"]);
    assert!(commands.len() >= 15, "{commands:?}");
    for command in commands {
        for child in listed(&[&command, "--help"]) {
            let text = run(&[&command, &child, "--help"]).stdout;
            let usage = format!("holdfastctl {command} {child}");
            assert!(String::from_utf8_lossy(&text).contains(&usage), "{usage}");
        }
    }
}

#[test]
fn bad_command_lines() {
    for (arguments, code, stderr) in [
        (
            &["bogus"][..],
            1,
            "Error: unknown command \"bogus\" for \"holdfastctl\"",
        ),
        (&["get", "--bogus"], 1, "Error: unknown flag: --bogus"),
        (
            &["get"],
            128,
            "Error: get command needs one argument as key and an optional argument as range_end",
        ),
        (
            &["get", "a", "b", "--prefix"],
            128,
            "Error: too many arguments, only accept one argument when `--prefix` or `--from-key` is set",
        ),
        (
            &["get", "a", "--order", "up"],
            4,
            "Error: bad sort order up",
        ),
        (
            &["get", "a", "--consistency", "z"],
            4,
            "Error: unknown consistency flag \"z\"",
        ),
        (
            &["get", "a", "-w", "xml"],
            4,
            "Error: unsupported output format",
        ),
        (
            &["put", "a", "b", "-w", "table"],
            4,
            "Error: table not supported as output format",
        ),
        (
            &["get", "a", "--count-only"],
            128,
            "Error: --count-only is only for `--write-out=fields`",
        ),
        (
            &["put", "a"],
            128,
            "Error: put command needs 1 argument and input from stdin or 2 arguments",
        ),
        (
            &["put", "a", "b", "--lease", "zz"],
            128,
            "Error: bad lease ID (strconv.ParseInt: parsing \"zz\": invalid syntax), expecting ID in Hex",
        ),
        (
            &["del"],
            128,
            "Error: del command needs one argument as key and an optional argument as range_end",
        ),
        (
            &["compaction", "x"],
            1,
            "Error: strconv.ParseInt: parsing \"x\": invalid syntax",
        ),
        (
            &["lease", "grant", "x"],
            128,
            "Error: bad TTL (strconv.ParseInt: parsing \"x\": invalid syntax)",
        ),
        (&["watch"], 128, "Error: bad number of arguments"),
        (
            &["watch", "a", "--"],
            128,
            "Error: bad number of arguments (found separator --, but no commands)",
        ),
        (
            &["txn", "x"],
            128,
            "Error: txn command does not accept argument",
        ),
        (
            &["alarm", "list", "x"],
            128,
            "Error: alarm list command accepts no arguments",
        ),
        (
            &["snapshot", "save"],
            128,
            "Error: snapshot save expects one argument <filename>",
        ),
        (
            &["auth", "enable", "x"],
            128,
            "Error: auth enable command does not accept any arguments",
        ),
        (
            &["auth", "status", "-w", "fields"],
            4,
            "Error: fields not supported as output format",
        ),
        (
            &["user", "add", "x", "-w", "table"],
            4,
            "Error: table not supported as output format",
        ),
        // Standard input is at its end.
        (&["user", "add", "x"], 128, "Error: empty password"),
        (
            &["user", "passwd", "x", "--interactive=false"],
            128,
            "Error: empty password",
        ),
        (
            &["user", "grant-role", "u"],
            128,
            "Error: user grant command requires user name and role name as its argument",
        ),
        (
            &["user", "revoke-role", "u"],
            128,
            "Error: user revoke-role requires user name and role name as its argument",
        ),
        (
            &["user", "add", "x", "--password-hash-file", "/nonexistent"],
            128,
            "Error: cannot read the hash in /nonexistent: No such file or directory (os error 2)",
        ),
        (
            &["role", "list", "x"],
            128,
            "Error: role list command requires no arguments",
        ),
        (
            &["role", "grant-permission", "r", "all", "k"],
            128,
            "Error: invalid permission type: all",
        ),
        (
            &["role", "revoke-permission", "r"],
            128,
            "Error: role revoke-permission command requires role name and key [endkey] as its argument",
        ),
        (
            &["token-key", "rotate", "--overlap", "1500ms"],
            128,
            "Error: --overlap takes whole seconds",
        ),
        (
            &["completion", "tcsh"],
            1,
            "Error: no completion for \"tcsh\": bash, zsh or fish",
        ),
        (
            &["get", "a", "--endpoints", "ftp://x"],
            128,
            "Error: endpoint \"ftp://x\": the scheme must be http, https, unix or unixs",
        ),
        (
            &["get", "a", "-d", "example.org"],
            4,
            "Error: --discovery-srv is not supported; name the endpoints with --endpoints",
        ),
    ] {
        check(&run(arguments), code, stderr);
    }
}

#[test]
fn a_transaction_that_does_not_parse_is_never_sent() {
    for (input, code, stderr) in [
        ("", 3, "Error: EOF"),
        ("mod(\"k\") > \"0\"", 3, "Error: EOF"),
        (
            "mod(k) = \"1\"\n",
            3,
            "Error: malformed comparison: mod(k) = \"1\"; got mod(\"\")  \"\"",
        ),
        ("\nput\n", 3, "Error: invalid txn compare request: put"),
        ("\nfoo k\n", 3, "Error: invalid txn request: foo k"),
        ("\nget k --order up\n", 4, "Error: bad sort order up"),
    ] {
        check(&run_with_input(&["txn"], input), code, stderr);
    }
}

#[test]
fn new_passwords_are_compared_before_anything_is_sent() {
    for (input, code, stderr) in [
        ("\n", 128, "Error: empty password"),
        ("one\n", 128, "Error: given passwords are different"),
        ("one\ntwo\n", 128, "Error: given passwords are different"),
    ] {
        for command in ["add", "passwd"] {
            check(
                &run_with_input(&["user", command, "x"], input),
                code,
                stderr,
            );
        }
    }
}

#[test]
fn an_unreachable_server_is_named() {
    let endpoint = dead_endpoint();
    let flags = ["--dial-timeout", "50ms", "--endpoints", &endpoint];
    let output = run(&[&flags[..], &["get", "a"]].concat());
    let reason = format!("Error: cannot connect to {endpoint}: Connection refused (os error 111)");
    check(&output, 2, &reason);

    let output = run(&[&flags[..], &["endpoint", "health", "-w", "json"]].concat());
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1));
    assert!(said.starts_with(&format!(
        "[{{\"endpoint\":\"{endpoint}\",\"health\":false,\"took\":"
    )));
    assert_eq!(output.stderr, b"Error: unhealthy cluster\n");
}

#[test]
fn a_failed_snapshot_leaves_no_file() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("snapshot");
    let endpoint = dead_endpoint();
    let path = path.to_str().expect("UTF-8");
    let output = run(&[
        "--dial-timeout",
        "50ms",
        "--endpoints",
        &endpoint,
        "snapshot",
        "save",
        path,
    ]);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(directory.path().read_dir().expect("readable").count(), 0);
}

#[test]
fn variables_stand_in_for_flags() {
    let endpoint = dead_endpoint();
    let output = holdfastctl(&["get", "a"])
        .env("ETCDCTL_ENDPOINTS", &endpoint)
        .env("ETCDCTL_DIAL_TIMEOUT", "50ms")
        .output()
        .expect("the binary runs");
    assert!(String::from_utf8_lossy(&output.stderr).contains(&endpoint));

    let output = holdfastctl(&["get", "a"])
        .env("ETCDCTL_DIAL_TIMEOUT", "soon")
        .output()
        .expect("the binary runs");
    check(
        &output,
        128,
        "Error: invalid value \"soon\" for ETCDCTL_DIAL_TIMEOUT: time: invalid duration \"soon\"",
    );
}

#[test]
fn a_closed_pipe_ends_the_program_quietly() {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let output = holdfastctl(&["--help"])
        .stdout(writer)
        .output()
        .expect("the binary runs");
    assert_eq!(output.status.code(), Some(141));
    assert!(output.stderr.is_empty());
}
