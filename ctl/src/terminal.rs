//! Secrets read from standard input: typed on a terminal without being shown, or a line of a pipe.

use std::{
    fs::File,
    io::{self, BufRead, IsTerminal, Read},
    os::fd::{AsFd, BorrowedFd},
};

use rustix::termios::{
    LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr,
};

use crate::{Exit, Failure, output};

/// Far more than a password, so that a file by mistake is noticed before it is sent.
const MAX_BYTES: usize = 4096;

/// Reads a secret: from the terminal behind `prompt`, or a line of standard input if that is none. If that is at its end, too,
/// from the terminal that the program was started on. None if there is no such terminal.
pub(crate) fn ask(prompt: &str) -> Result<Option<String>, Failure> {
    if let Some(secret) = ask_input(prompt)? {
        return Ok(Some(secret));
    }
    match File::options().read(true).write(true).open("/dev/tty") {
        Ok(terminal) => typed(terminal.as_fd(), &mut &terminal, prompt),
        Err(_) => Ok(None),
    }
}

/// Reads a secret from standard input only: without echo if that is a terminal. None at its end.
pub(crate) fn ask_input(prompt: &str) -> Result<Option<String>, Failure> {
    let input = io::stdin();
    if input.is_terminal() {
        typed(input.as_fd(), &mut input.lock(), prompt)
    } else {
        line(&mut input.lock())
    }
}

/// Reads a line without its end; none if there is nothing to read.
pub(crate) fn line(input: &mut impl BufRead) -> Result<Option<String>, Failure> {
    let mut line = Vec::new();
    // One more for the line's end, and one to notice what is too long.
    let most = MAX_BYTES as u64 + 2;
    input
        .take(most)
        .read_until(b'\n', &mut line)
        .map_err(unreadable)?;
    if line.is_empty() {
        return Ok(None);
    }
    if line.last() == Some(&b'\n') {
        line.pop();
        if line.last() == Some(&b'\r') {
            line.pop();
        }
    }
    checked(line).map(Some)
}

/// Reads what is typed up to the end of the line, with echo off. The keys that edit and interrupt are obeyed here: with the
/// terminal's own handling, an interrupt would end the program and leave the terminal mute.
fn typed(
    terminal: BorrowedFd<'_>,
    input: &mut impl Read,
    prompt: &str,
) -> Result<Option<String>, Failure> {
    let muted = Muted::new(terminal).map_err(unreadable)?;
    output::write_stderr(prompt.as_bytes());
    let read = keys(input);
    drop(muted);
    output::write_stderr(b"\n");
    match read.map_err(unreadable)? {
        Typed::Line(line) => checked(line).map(Some),
        Typed::End => Ok(None),
        Typed::Interrupt => Err(Failure::reported(Exit::Interrupted)),
    }
}

enum Typed {
    Line(Vec<u8>),
    End,
    Interrupt,
}

fn keys(input: &mut impl Read) -> io::Result<Typed> {
    let mut line: Vec<u8> = Vec::new();
    let mut key = [0];
    loop {
        match input.read(&mut key) {
            Ok(0) => return Ok(Typed::End),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        }
        match key[0] {
            b'\n' | b'\r' => return Ok(Typed::Line(line)),
            // ^C and ^\.
            0x03 | 0x1c => return Ok(Typed::Interrupt),
            // ^D.
            0x04 if line.is_empty() => return Ok(Typed::End),
            0x04 => {}
            // ^U.
            0x15 => line.clear(),
            // ^H and the backspace key take a whole character.
            0x08 | 0x7f => while line.pop().is_some_and(|byte| byte & 0xc0 == 0x80) {},
            byte if line.len() <= MAX_BYTES => line.push(byte),
            _ => {}
        }
    }
}

fn checked(line: Vec<u8>) -> Result<String, Failure> {
    let bad = |text: String| Failure::new(Exit::BadArguments, text);
    if line.len() > MAX_BYTES {
        return Err(bad(format!(
            "the password is longer than {MAX_BYTES} bytes"
        )));
    }
    String::from_utf8(line).map_err(|_| bad("the password is not valid UTF-8".to_owned()))
}

fn unreadable(error: impl Into<io::Error>) -> Failure {
    let error = error.into();
    Failure::new(Exit::Error, format!("cannot read the password: {error}"))
}

/// A terminal that shows nothing of what is typed and hands over each key; as it was before when dropped.
struct Muted<'a> {
    terminal: BorrowedFd<'a>,
    before: Termios,
}

impl Muted<'_> {
    fn new(terminal: BorrowedFd<'_>) -> rustix::io::Result<Muted<'_>> {
        let before = tcgetattr(terminal)?;
        let mut modes = before.clone();
        modes
            .local_modes
            .remove(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG);
        modes.special_codes[SpecialCodeIndex::VMIN] = 1;
        modes.special_codes[SpecialCodeIndex::VTIME] = 0;
        // What was typed before the question is no answer to it.
        tcsetattr(terminal, OptionalActions::Flush, &modes)?;
        Ok(Muted { terminal, before })
    }
}

impl Drop for Muted<'_> {
    fn drop(&mut self) {
        // A terminal that went away needs no restoring.
        let _ = tcsetattr(self.terminal, OptionalActions::Drain, &self.before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_lose_their_end_and_nothing_else() {
        for (input, expected) in [
            (&b"pw\n"[..], Some("pw")),
            (b"pw", Some("pw")),
            (b"pw\r\nrest", Some("pw")),
            (b" a b \n", Some(" a b ")),
            (b"\n", Some("")),
            (b"", None),
        ] {
            assert_eq!(line(&mut &*input).unwrap().as_deref(), expected);
        }
        let longest = vec![b'x'; MAX_BYTES];
        assert!(line(&mut &longest[..]).is_ok());
        assert!(line(&mut &vec![b'x'; MAX_BYTES + 1][..]).is_err());
        let failure = line(&mut &b"secret\xff\n"[..]).unwrap_err();
        assert_eq!(failure.text(), Some("the password is not valid UTF-8"));
    }

    #[test]
    fn typing_is_edited() {
        for (typed, expected) in [
            (&b"pw\n"[..], Some("pw")),
            (b"px\x7fw\r", Some("pw")),
            ("p\u{e9}\x08w\n".as_bytes(), Some("pw")),
            (b"\x08\x7fp\x04w\n", Some("pw")),
            (b"wrong\x15pw\n", Some("pw")),
            (b"\x04", None),
            (b"half", None),
        ] {
            let line = match keys(&mut &*typed).unwrap() {
                Typed::Line(line) => Some(String::from_utf8(line).unwrap()),
                Typed::End => None,
                Typed::Interrupt => panic!("interrupted"),
            };
            assert_eq!(line.as_deref(), expected, "{typed:?}");
        }
        assert!(matches!(keys(&mut &b"pw\x03"[..]), Ok(Typed::Interrupt)));
    }
}
