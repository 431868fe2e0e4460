//! From the command line and the environment to an [`Invocation`].

mod completion;
mod flags;
mod globals;
mod help;
mod spec;

use crate::{Exit, Failure};

pub(crate) use flags::{Read, read};
pub use globals::{Credentials, Globals, TlsFiles};
pub(crate) use spec::{Action, TXN_REQUESTS, WATCH};

/// What a command line asks for.
#[derive(Debug)]
pub enum Parsed {
    /// To print this text and do nothing else.
    Help(String),
    /// To run a command.
    Run(Box<Invocation>),
}

/// A command with everything that was said about it.
#[derive(Debug)]
pub struct Invocation {
    pub(crate) action: Action,
    pub(crate) globals: Globals,
    pub(crate) line: Read,
}

/// Parses the arguments (without the program name); flags not given come from `ETCDCTL_*` variables of the environment.
///
/// # Errors
///
/// An unknown command or flag (exit code 1) or a bad value.
pub fn parse(arguments: &[Vec<u8>]) -> Result<Parsed, Failure> {
    parse_with(arguments, |name| std::env::var(name).ok())
}

fn parse_with(
    arguments: &[Vec<u8>],
    environment: impl Fn(&str) -> Option<String>,
) -> Result<Parsed, Failure> {
    let mut line = read(&spec::ROOT, spec::GLOBAL_FLAGS, arguments)?;
    if line.flag("help") {
        return Ok(Parsed::Help(help::command(&line.path)));
    }
    if line.flag("version") {
        return Ok(Parsed::Help(help::version()));
    }
    match line.command().action {
        None => Ok(Parsed::Help(help::command(&line.path))),
        Some(Action::Version) => Ok(Parsed::Help(help::version())),
        Some(Action::Options) => Ok(Parsed::Help(help::options())),
        Some(Action::Help) => {
            let named = read(&spec::ROOT, &[], line.positional())?;
            Ok(Parsed::Help(help::command(&named.path)))
        }
        Some(Action::Completion) => Ok(Parsed::Help(completion::script(line.positional())?)),
        Some(action) => {
            line.fill_from_environment(spec::GLOBAL_FLAGS, environment)?;
            let globals = Globals::from_line(&line)?;
            Ok(Parsed::Run(Box::new(Invocation {
                action,
                globals,
                line,
            })))
        }
    }
}

/// The line of a command, for tests of what the commands make of it.
#[cfg(test)]
pub(crate) fn line_of(arguments: &[&str]) -> Read {
    let arguments: Vec<Vec<u8>> = arguments.iter().map(|a| a.as_bytes().to_vec()).collect();
    match read(&spec::ROOT, spec::GLOBAL_FLAGS, &arguments) {
        Ok(line) => line,
        Err(failure) => panic!("{failure}"),
    }
}

fn bad_arguments(text: impl Into<String>) -> Failure {
    Failure::new(Exit::BadArguments, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(arguments: &[&str], environment: &[(&str, &str)]) -> Result<Invocation, Failure> {
        let arguments: Vec<Vec<u8>> = arguments.iter().map(|a| a.as_bytes().to_vec()).collect();
        let lookup = |name: &str| {
            let found = environment.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        match parse_with(&arguments, lookup)? {
            Parsed::Run(invocation) => Ok(*invocation),
            Parsed::Help(text) => panic!("help instead of a command: {text}"),
        }
    }

    #[test]
    fn flags_may_stand_anywhere_and_in_every_spelling() {
        for line in [
            &["-w", "json", "get", "k", "--rev", "-1", "--prefix"][..],
            &["get", "--rev=-1", "-wjson", "--prefix=true", "k"],
            &["get", "k", "-w=json", "--prefix", "--rev", "-1"],
            &[
                "ge",
                "--prefix",
                "--write-out",
                "json",
                "--rev",
                "-1",
                "--",
                "k",
            ],
        ] {
            let invocation = run(line, &[]).unwrap();
            assert_eq!(invocation.action, Action::Get, "{line:?}");
            assert_eq!(invocation.line.positional(), [b"k".to_vec()]);
            assert_eq!(invocation.line.int("rev"), -1);
            assert!(invocation.line.flag("prefix"));
            assert_eq!(invocation.globals.write_out, "json");
        }
    }

    #[test]
    fn what_follows_two_dashes_is_no_flag() {
        let line = run(&["watch", "a", "--", "sh", "-c", "--"], &[])
            .unwrap()
            .line;
        let (before, after) = line.around_dashes();
        assert_eq!(before, [b"a".to_vec()]);
        assert_eq!(
            after.unwrap(),
            [b"sh".to_vec(), b"-c".to_vec(), b"--".to_vec()]
        );
    }

    #[test]
    fn a_flag_wins_over_its_variable() {
        let environment = [
            ("ETCDCTL_ENDPOINTS", "a:1, b:2"),
            ("ETCDCTL_WRITE_OUT", "json"),
            ("ETCDCTL_COMMAND_TIMEOUT", "1m"),
            ("ETCDCTL_HEX", "true"),
            ("ETCDCTL_USER", ""),
        ];
        let globals = run(&["-w", "fields", "get", "k"], &environment)
            .unwrap()
            .globals;
        assert_eq!(globals.write_out, "fields");
        assert_eq!(globals.endpoints, ["a:1", "b:2"]);
        assert_eq!(globals.command_timeout.as_secs(), 60);
        assert!(globals.hex);
        assert!(globals.credentials.is_none());
        let bad = run(&["get", "k"], &[("ETCDCTL_HEX", "maybe")]).unwrap_err();
        assert_eq!(bad.exit(), Exit::BadArguments);
    }

    #[test]
    fn no_secret_is_shown() {
        const SECRETS: [&str; 4] = ["s1cret", "s2cret", "s3cret", "s4cret"];
        let line = [
            "user",
            "add",
            "bob:s1cret",
            "--user=alice:s2cret",
            "--password=s3cret",
            "--auth-jwt-token=s4cret",
        ];
        let environment = [
            ("ETCDCTL_USER", "alice:s2cret"),
            ("ETCDCTL_PASSWORD", "s3cret"),
            ("ETCDCTL_AUTH_JWT_TOKEN", "s4cret"),
        ];
        for invocation in [
            run(&line, &[]).unwrap(),
            run(&["user", "list"], &environment).unwrap(),
            run(
                &["user", "add", "bob", "--new-user-password", "s1cret"],
                &environment,
            )
            .unwrap(),
        ] {
            let shown = format!("{invocation:?}\n{}", invocation.line.describe_globals());
            for secret in SECRETS {
                assert!(!shown.contains(secret), "{secret} in {shown}");
            }
        }
        // With a password of its own, the name is the whole of --user, but who wrote it may have meant something else.
        let user = ["get", "k", "--user", "alice:s2cret"];
        let shown = run(&user, &[]).unwrap().line.describe_globals();
        assert!(shown.contains("ETCDCTL_USER=alice\n"), "{shown}");

        let not_text = [b"--password".to_vec(), b"s1cret\xff".to_vec()];
        let text = parse(&not_text).unwrap_err().to_string();
        assert!(text.starts_with("invalid argument for \"--password\" flag"));
        assert!(!text.contains("s1cret"), "{text}");
    }

    #[test]
    fn repeated_lists_are_joined() {
        let line = ["--endpoints", "a:1,b:2", "get", "k", "--endpoints=c:3"];
        let globals = run(&line, &[]).unwrap().globals;
        assert_eq!(globals.endpoints, ["a:1", "b:2", "c:3"]);
    }

    #[test]
    fn mistakes_are_named() {
        for (line, exit, text) in [
            (
                &["get", "--bogus"][..],
                Exit::Error,
                "unknown flag: --bogus",
            ),
            (
                &["get", "-z"],
                Exit::Error,
                "unknown shorthand flag: 'z' in -z",
            ),
            (
                &["get", "--limit"],
                Exit::Error,
                "flag needs an argument: --limit",
            ),
            (
                &["get", "-w"],
                Exit::Error,
                "flag needs an argument: 'w' in -w",
            ),
            (
                &["get", "--rev", "x"],
                Exit::Error,
                "invalid argument \"x\" for \"--rev\" flag: strconv.ParseInt: parsing \"x\": invalid syntax",
            ),
            (
                &["get", "--prefix=maybe"],
                Exit::Error,
                "invalid argument \"maybe\" for \"--prefix\" flag: strconv.ParseBool: parsing \"maybe\": invalid syntax",
            ),
            (
                &["--dial-timeout", "1", "get"],
                Exit::Error,
                "invalid argument \"1\" for \"--dial-timeout\" flag: time: missing unit in duration \"1\"",
            ),
            (
                &["bogus"],
                Exit::Error,
                "unknown command \"bogus\" for \"holdfastctl\"",
            ),
            (
                &["lease", "x"],
                Exit::Error,
                "unknown command \"x\" for \"holdfastctl lease\"",
            ),
            (
                &["get", "k", "--cert="],
                Exit::BadArguments,
                "empty string is passed to --cert option",
            ),
            (
                &["get", "k", "--cert", "c"],
                Exit::BadArguments,
                "KeyFile and CertFile must both be present[key: , cert: c]",
            ),
        ] {
            let failure = run(line, &[]).unwrap_err();
            assert_eq!(failure.exit(), exit, "{line:?}");
            let shown = failure.text().unwrap_or_default();
            assert_eq!(shown.lines().next(), Some(text), "{line:?}");
        }
    }
}
