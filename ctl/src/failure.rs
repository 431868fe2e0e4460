//! What ends the program early: an exit code and what to say.

use std::{error::Error as StdError, io};

use tonic::{Code, Status};

/// The exit codes of etcdctl.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// The request failed, or the command line has an unknown command or flag.
    Error = 1,
    /// No endpoint could be reached.
    BadConnection = 2,
    /// A transaction or a watch line that does not parse.
    InvalidInput = 3,
    /// A known flag with a value that is not supported.
    BadFeature = 4,
    /// A watch or a snapshot ended before its time.
    Interrupted = 5,
    /// Standard output cannot be written.
    Io = 6,
    /// Arguments of the wrong number or kind.
    BadArguments = 128,
    /// The reader of standard output went away: the code that a shell shows for a program that SIGPIPE ended.
    BrokenPipe = 141,
}

/// Why the program ends with an error.
#[derive(Debug, thiserror::Error)]
#[error("{}", text.as_deref().unwrap_or_default())]
pub struct Failure {
    exit: Exit,
    text: Option<String>,
}

impl Failure {
    /// A failure with a text for the user.
    pub fn new(exit: Exit, text: impl Into<String>) -> Failure {
        Failure {
            exit,
            text: Some(text.into()),
        }
    }

    /// A failure whose reasons have been printed already.
    pub(crate) fn reported(exit: Exit) -> Failure {
        Failure { exit, text: None }
    }

    /// The failure of an RPC, with the server's text.
    pub(crate) fn rpc(exit: Exit, status: &Status) -> Failure {
        Failure::new(exit, status_text(status))
    }

    /// The exit code of the process.
    pub fn exit(&self) -> Exit {
        self.exit
    }

    /// What to print after `Error: `; none when there is nothing left to say.
    pub fn text(&self) -> Option<&str> {
        self.text.as_deref()
    }

    /// The same failure with its text put into `wrap`.
    pub(crate) fn wrapped(self, wrap: impl FnOnce(&str) -> String) -> Failure {
        Failure {
            exit: self.exit,
            text: self.text.map(|text| wrap(&text)),
        }
    }

    /// The same failure under another exit code. A server that was not reached keeps the code for that.
    pub(crate) fn with_exit(self, exit: Exit) -> Failure {
        match self.exit {
            Exit::BadConnection => self,
            _ => Failure { exit, ..self },
        }
    }
}

impl From<io::Error> for Failure {
    /// Only standard output is written through this; other files name themselves in their errors.
    fn from(error: io::Error) -> Failure {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Failure::reported(Exit::BrokenPipe),
            _ => Failure::new(
                Exit::Io,
                format!("cannot write to standard output: {error}"),
            ),
        }
    }
}

/// The text etcdctl shows for a gRPC status: etcd's own errors by their text alone, others in gRPC's Go form.
pub(crate) fn status_text(status: &Status) -> String {
    if status.message().starts_with("etcdserver: ") {
        status.message().to_owned()
    } else if status.code() == Code::DeadlineExceeded {
        DEADLINE.to_owned()
    } else {
        let mut text = format!(
            "rpc error: code = {:?} desc = {}",
            status.code(),
            status.message()
        );
        // A connection that broke says why only in its innermost cause, such as a TLS alert.
        let mut cause = status.source();
        while let Some(inner) = cause.and_then(StdError::source) {
            cause = Some(inner);
        }
        if let Some(cause) = cause {
            text = format!("{text}: {cause}");
        }
        text
    }
}

/// What etcdctl says when the command timeout has passed.
pub(crate) const DEADLINE: &str = "context deadline exceeded";
