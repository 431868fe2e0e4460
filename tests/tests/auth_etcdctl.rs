//! Users and roles through an unmodified etcdctl: the one on `PATH`, and that of `ETCDCTL37_BIN` where it is set.

#![expect(
    clippy::unwrap_used,
    reason = "test code: a panic is the report of a failure"
)]

use holdfast_tests::{Guarded, Server, ServerOptions, skip_without};
use std::{
    env,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// The programs to test with; none is a reason to skip.
fn programs() -> Vec<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&path).map(|folder| folder.join("etcdctl"));
    let mut programs: Vec<_> = found.filter(|path| path.is_file()).take(1).collect();
    programs.extend(env::var_os("ETCDCTL37_BIN").map(PathBuf::from));
    if programs.is_empty() {
        skip_without("etcdctl on PATH, or at ETCDCTL37_BIN");
    }
    programs
}

/// An etcdctl that talks to one server.
struct Ctl<'a> {
    program: &'a Path,
    server: &'a Server,
}

impl Ctl<'_> {
    /// Without a scheme, as in most manuals. With `http://` etcdctl 3.4 sends the whole URL as `:authority` of some calls, which
    /// is none, and which servers may refuse.
    fn endpoint(&self) -> String {
        format!("127.0.0.1:{}", self.server.port())
    }

    /// Runs one line; gives whether it succeeded and all it said.
    fn run(&self, line: &str, input: &str) -> (bool, String) {
        let mut child = Command::new(self.program)
            .env_clear()
            .env("PATH", env::var_os("PATH").unwrap_or_default())
            .env("ETCDCTL_API", "3")
            .arg(format!("--endpoints={}", self.endpoint()))
            .args(line.split_whitespace())
            .current_dir(self.server.folder())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // It may have ended without reading.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        let output = child.wait_with_output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        eprintln!("etcdctl {line}\n{said}");
        (output.status.success(), said)
    }

    /// The line succeeds and says all of `texts`.
    #[track_caller]
    fn ok(&self, line: &str, texts: &[&str]) {
        self.ok_given(line, "", texts);
    }

    /// As [`Ctl::ok`], with something to read.
    #[track_caller]
    fn ok_given(&self, line: &str, input: &str, texts: &[&str]) {
        let (succeeded, said) = self.run(line, input);
        assert!(succeeded, "{}: {line}: {said}", self.program.display());
        for text in texts {
            assert!(said.contains(text), "{line}: {text:?} is not in {said:?}");
        }
    }

    /// The line fails and says `text`.
    #[track_caller]
    fn fails(&self, line: &str, text: &str) {
        let (succeeded, said) = self.run(line, "");
        assert!(!succeeded, "{}: {line}: {said}", self.program.display());
        assert!(said.contains(text), "{line}: {text:?} is not in {said:?}");
    }
}

#[test]
fn five_lines_add_a_user_a_role_and_a_range() {
    for program in programs() {
        let server = Server::start_with(Guarded::options(ServerOptions::new()));
        let ctl = Ctl {
            program: &program,
            server: &server,
        };
        ctl.ok("user add root:roots-long-password", &["User root created"]);
        // It makes the role and grants it by itself when it is told what is missing.
        ctl.ok("auth enable", &["Authentication Enabled"]);
        let root = "--user root:roots-long-password";

        ctl.ok(&format!("{root} role add app"), &["Role app created"]);
        ctl.ok(
            &format!("{root} role grant-permission app readwrite /app/ --prefix"),
            &["Role app updated"],
        );
        ctl.ok(
            &format!("{root} user add alice:alices-long-password"),
            &["User alice created"],
        );
        ctl.ok(
            &format!("{root} user grant-role alice app"),
            &["Role app is granted to user alice"],
        );
        let alice = "--user alice:alices-long-password";
        ctl.ok(&format!("{alice} put /app/color blue"), &["OK"]);

        ctl.ok(
            &format!("{alice} get --prefix /app/"),
            &["/app/color", "blue"],
        );
        ctl.ok(
            "--user alice --password alices-long-password get /app/color",
            &["blue"],
        );
        ctl.fails(&format!("{alice} put /other 1"), "permission denied");
        ctl.fails(
            &format!("{alice} get --from-key /app/"),
            "permission denied",
        );
        ctl.fails(&format!("{alice} get --prefix /"), "permission denied");
        ctl.fails("get /app/color", "user name is empty");
        ctl.fails("--user alice:wrong get /app/color", "authentication failed");
        ctl.fails(
            "--user nobody:wrong get /app/color",
            "authentication failed",
        );
    }
}

#[test]
fn the_rest_of_user_and_role_commands() {
    for program in programs() {
        let server = Server::start_with(Guarded::options(ServerOptions::new()));
        let ctl = Ctl {
            program: &program,
            server: &server,
        };
        ctl.ok("user add root:roots-long-password", &[]);
        ctl.ok("auth enable", &[]);
        let root = |line: &str| format!("--user root:roots-long-password {line}");
        ctl.ok(
            &root("role get root"),
            &["Role root", "KV Read", "KV Write"],
        );
        ctl.ok(&root("role add r"), &[]);
        ctl.ok(&root("role grant-permission r read a c"), &[]);
        ctl.ok(&root("role grant-permission r write k"), &[]);
        ctl.ok(&root("role grant-permission r readwrite x --from-key"), &[]);
        ctl.ok(&root("role get r"), &["[a, c)", "k", "[x, <open ended>"]);
        ctl.ok(&root("role revoke-permission r a c"), &["revoked"]);
        ctl.fails(
            &root("role revoke-permission r a c"),
            "permission is not granted to the role",
        );
        ctl.ok(&root("role list"), &["r", "root"]);
        ctl.ok(&root("user add w --no-password"), &["User w created"]);
        ctl.ok(&root("user grant-role w r"), &[]);
        ctl.ok(&root("user get w --detail"), &["User: w", "Role r", "k"]);
        ctl.ok(&root("user list"), &["root", "w"]);
        ctl.ok(
            &root("user revoke-role w r"),
            &["Role r is revoked from user w"],
        );
        ctl.ok_given(
            &root("user add v --interactive=false"),
            "vs-long-password\n",
            &["User v created"],
        );
        ctl.ok_given(
            &root("user passwd v --interactive=false"),
            "another-long-password\n",
            &["Password updated"],
        );
        ctl.fails("--user v:vs-long-password get a", "authentication failed");
        let user = |line: &str| format!("--user v:another-long-password {line}");
        ctl.fails(&user("get a"), "permission denied");
        ctl.fails(&user("user list"), "permission denied");
        ctl.ok(&user("user get v"), &["User: v"]);
        ctl.ok(&root("user delete w"), &["User w deleted"]);
        ctl.ok(&root("role delete r"), &["Role r deleted"]);
        ctl.fails(&root("user delete root"), "invalid auth management");
        ctl.ok(&root("auth disable"), &["Authentication Disabled"]);
        ctl.ok("put a 1", &["OK"]);
    }
}

#[test]
fn the_other_commands_of_a_user() {
    for program in programs() {
        let server = Server::start_with(Guarded::options(ServerOptions::new()));
        let ctl = Ctl {
            program: &program,
            server: &server,
        };
        ctl.ok("user add root:roots-long-password", &[]);
        ctl.ok("auth enable", &[]);
        let root = |line: &str| format!("--user root:roots-long-password {line}");
        ctl.ok(&root("role add app"), &[]);
        ctl.ok(
            &root("role grant-permission app readwrite app/ --prefix"),
            &[],
        );
        ctl.ok(&root("user add alice:alices-long-password"), &[]);
        ctl.ok(&root("user grant-role alice app"), &[]);
        let alice = |line: &str| format!("--user alice:alices-long-password {line}");
        ctl.ok(&alice("endpoint health"), &["is healthy"]);
        ctl.ok(&alice("endpoint status"), &[&ctl.endpoint()]);
        ctl.ok(&alice("member list"), &["started"]);
        ctl.ok(&alice("alarm list"), &[]);
        ctl.ok(&alice("lease grant 600"), &["granted with TTL(600s)"]);
        let create = "create(\"app/a\") = \"0\"\n\nput app/a 1\n\nget app/a\n\n";
        ctl.ok_given(&alice("txn"), create, &["SUCCESS", "OK"]);
        let foreign = "create(\"app/a\") = \"0\"\n\nput other 1\n\nget app/a\n\n";
        let (succeeded, said) = ctl.run(&alice("txn"), foreign);
        assert!(!succeeded && said.contains("permission denied"), "{said}");
        for line in [
            "compaction 1",
            "defrag",
            "alarm disarm",
            "snapshot save copy",
        ] {
            let (succeeded, said) = ctl.run(&alice(line), "");
            // `alarm disarm` asks which there are, first; there are none.
            if line != "alarm disarm" {
                assert!(!succeeded, "{line}: {said}");
                assert!(said.contains("permission denied"), "{line}: {said}");
            }
        }
        ctl.ok(&root("compaction 1"), &[]);
    }
}
