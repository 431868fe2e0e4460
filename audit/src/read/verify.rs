//! Verifying files: that they are what was written, in order and without a gap, and up to where that is signed.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use super::ReadError;
use crate::{
    PublicKey,
    chain::{Header, Parsed, Position, parse},
    line,
    lines::{Line, Lines, MAX_LINE_BYTES, Shape},
    walk::{Step, Walk},
};

/// More problems are only counted.
const MAX_PROBLEMS: usize = 100;

/// How strictly to verify.
#[derive(Clone, Debug, Default)]
pub struct VerifyOptions {
    /// Public keys of the node, known from elsewhere. Without any, each file's own word is taken for its key: whoever can write the files can
    /// then put a whole new log in their place.
    pub trusted: Vec<PublicKey>,
    /// The log was stopped: it is a problem if its last lines are not signed.
    pub closed: bool,
    /// A position known from elsewhere, from an earlier report for instance, that the files must pass. So it is noticed if everything after
    /// some point was cut off.
    pub expect: Option<Position>,
}

/// What verifying found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Files read.
    pub files: u64,
    /// Lines read.
    pub lines: u64,
    /// Lines that stand for requests.
    pub records: u64,
    /// Records that the log itself says it lost.
    pub lost: u64,
    /// Seals.
    pub seals: u64,
    /// Checkpoints.
    pub checkpoints: u64,
    /// Where the first file begins. Not at 0: there were older files.
    pub first: Option<Position>,
    /// The last seal.
    pub last: Option<Position>,
    /// The last position with a good signature.
    pub last_checkpoint: Option<Position>,
    /// Time of the first line.
    pub first_time: Option<String>,
    /// Time of the last line that has one.
    pub last_time: Option<String>,
    /// Keys named in the headers, each once.
    pub keys: Vec<PublicKey>,
    /// All of them were trusted.
    pub is_trusted: bool,
    /// Blocks after the last checkpoint: chained, but not signed yet.
    pub unsigned_blocks: u64,
    /// Lines after the last seal: nothing vouches for them yet.
    pub unsealed_lines: u64,
    /// What is wrong; at most 100.
    pub problems: Vec<Problem>,
    /// Further problems.
    pub more_problems: u64,
}

impl Report {
    /// Nothing is wrong.
    pub fn is_intact(&self) -> bool {
        self.problems.is_empty()
    }
}

/// Something that is not as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file.
    pub file: PathBuf,
    /// The line at which it shows, from 1 on. A change inside a block shows at the block's seal.
    pub line: u64,
    /// Bytes before that line.
    pub offset: u64,
    /// What is wrong.
    pub what: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = self.file.display();
        write!(
            f,
            "{file}:{} (byte {}): {}",
            self.line, self.offset, self.what
        )
    }
}

/// Verifies files, which must be given in the order of the chain ([`super::files`]). They are read once and never held in memory.
///
/// # Errors
///
/// A file cannot be read. What is wrong *in* a file is in the report.
pub fn verify(files: &[PathBuf], options: &VerifyOptions) -> Result<Report, ReadError> {
    let mut verifier = Verifier {
        options,
        walk: Walk::at(None, Vec::new()),
        report: Report {
            is_trusted: true,
            ..Report::default()
        },
        is_expected_found: options.expect.is_none(),
        wrong: Vec::new(),
    };
    for (index, file) in files.iter().enumerate() {
        verifier.file(file, index + 1 == files.len())?;
    }
    Ok(verifier.finish(files.last()))
}

struct Verifier<'a> {
    options: &'a VerifyOptions,
    walk: Walk,
    report: Report,
    is_expected_found: bool,
    /// Not yet reported.
    wrong: Vec<String>,
}

/// Where in a file.
#[derive(Clone, Copy, Default)]
struct Place {
    line: u64,
    offset: u64,
}

impl Verifier<'_> {
    fn file(&mut self, path: &Path, is_last: bool) -> Result<(), ReadError> {
        let mut lines = Lines::new(super::open(path)?, 0);
        let mut place = Place { line: 1, offset: 0 };
        let mut is_torn = false;
        let mut is_empty = true;
        self.report.files += 1;
        while let Some(line) = lines.next().map_err(ReadError::at(path))? {
            place = Place {
                line: line.number,
                offset: line.offset,
            };
            self.report.lines = self
                .report
                .lines
                .saturating_add(u64::from(line.shape != Shape::Part));
            if std::mem::take(&mut is_empty) {
                self.first_line(&line);
            } else {
                match line.shape {
                    Shape::Whole => self.line(line.bytes),
                    Shape::Part => {
                        if line.bytes.len() == MAX_LINE_BYTES {
                            self.wrong.push("the line is too long".to_owned());
                        }
                        self.walk.part(line.bytes);
                    }
                    Shape::Torn => is_torn = true,
                }
            }
            self.tell(path, place);
        }
        if is_empty {
            self.wrong.push("the file is empty".to_owned());
        }
        self.walk.end(&mut self.wrong);
        if !is_last || self.options.closed {
            self.end_of_file(is_torn);
        }
        self.report.unsealed_lines = self.walk.open_lines() + u64::from(is_torn);
        self.tell(path, place);
        Ok(())
    }

    /// A file that was ended in order ends with a seal and a checkpoint.
    fn end_of_file(&mut self, is_torn: bool) {
        let open = self.walk.open_lines();
        if is_torn {
            self.wrong.push("the last line has no end".to_owned());
        } else if open > 0 {
            self.wrong.push(format!(
                "the file ends with {open} lines without a seal: it was cut off, or lines were added"
            ));
        } else if self.walk.is_checkpoint_due() {
            self.wrong.push(
                "the file does not end with a checkpoint: it was cut off, or not closed in order"
                    .to_owned(),
            );
        }
    }

    fn first_line(&mut self, line: &Line<'_>) {
        let header = match (line.shape, parse(line.bytes)) {
            (Shape::Whole, Parsed::Header(header)) => header,
            _ => {
                self.wrong.push(
                    "the file does not begin with the header of an audit log of this version"
                        .to_owned(),
                );
                // What follows can still be followed from its first seal on.
                self.walk = Walk::at(None, self.options.trusted.clone());
                return;
            }
        };
        self.note_time(line.bytes);
        self.header(&header);
        self.walk.begin_file(header.position, line.bytes);
        self.pass(header.position);
    }

    fn header(&mut self, header: &Header) {
        let key = header.identity.public;
        match self.walk.position() {
            Some(before) if before != header.position => self.wrong.push(format!(
                "the file continues block {}, and the file before ends with {}: a file is missing, repeated, or was cut off",
                header.position.seq,
                if before.seq == header.position.seq { "another one of that number".to_owned() } else { format!("block {}", before.seq) }
            )),
            _ => {}
        }
        self.report.first.get_or_insert(header.position);
        let is_trusted = self.options.trusted.contains(&key);
        if self.options.trusted.is_empty() {
            self.report.is_trusted = false;
            if self.report.keys.last().is_some_and(|last| *last != key) {
                self.wrong
                    .push(format!("from here on the key is another one: {key}"));
            }
        } else if !is_trusted {
            self.report.is_trusted = false;
            self.wrong
                .push(format!("the file names a key that is not trusted: {key}"));
        }
        if !self.report.keys.contains(&key) {
            self.report.keys.push(key);
        }
        self.walk.set_keys(if self.options.trusted.is_empty() {
            vec![key]
        } else {
            self.options.trusted.clone()
        });
    }

    fn line(&mut self, line: &[u8]) {
        match self.walk.line(line, &mut self.wrong) {
            Step::Seal => {
                self.report.seals += 1;
                self.report.unsigned_blocks += 1;
                if let Some(position) = self.walk.position() {
                    self.pass(position);
                }
                return;
            }
            Step::Checkpoint => {
                self.report.checkpoints += 1;
                self.report.unsigned_blocks = 0;
            }
            Step::Header => self
                .wrong
                .push("a header stands inside of a file".to_owned()),
            Step::Line if line.starts_with(line::RPC) => self.report.records += 1,
            Step::Line => self.report.lost += lost(line),
        }
        self.note_time(line);
    }

    fn pass(&mut self, position: Position) {
        self.is_expected_found |= self.options.expect == Some(position);
    }

    fn note_time(&mut self, line: &[u8]) {
        if let Some(time) = time(line) {
            if self.report.first_time.is_none() {
                self.report.first_time = Some(time.to_owned());
            }
            // Kept in its buffer: this is done for every line.
            let last = self.report.last_time.get_or_insert_default();
            last.clear();
            last.push_str(time);
        }
    }

    fn tell(&mut self, path: &Path, place: Place) {
        for what in self.wrong.drain(..) {
            if self.report.problems.len() < MAX_PROBLEMS {
                self.report.problems.push(Problem {
                    file: path.to_owned(),
                    line: place.line,
                    offset: place.offset,
                    what,
                });
            } else {
                self.report.more_problems += 1;
            }
        }
    }

    fn finish(mut self, last: Option<&PathBuf>) -> Report {
        if let Some(expected) = self.options.expect
            && !self.is_expected_found
        {
            self.wrong.push(format!(
                "block {} is not in these files as it is known from elsewhere: they were cut off before it, or changed",
                expected.seq
            ));
            let path = last.cloned().unwrap_or_default();
            self.tell(&path, Place::default());
        }
        self.report.last = self.walk.position();
        self.report.last_checkpoint = self.walk.last_checkpoint();
        self.report.is_trusted &= !self.report.keys.is_empty();
        self.report
    }
}

/// The time that a line begins with: `{"type":"…","time":"…"`.
fn time(line: &[u8]) -> Option<&str> {
    let rest = line.strip_prefix(br#"{"type":""#)?;
    let end = rest.iter().take(16).position(|byte| *byte == b'"')?;
    let time = rest[end..].strip_prefix(br#"","time":""#)?.get(..27)?;
    let is_time = time
        .iter()
        .all(|byte| byte.is_ascii_digit() || b"-T:.Z".contains(byte));
    if is_time {
        std::str::from_utf8(time).ok()
    } else {
        None
    }
}

/// What a line says was lost.
fn lost(line: &[u8]) -> u64 {
    #[derive(serde::Deserialize)]
    struct Lost {
        count: u64,
    }
    if !line.starts_with(br#"{"type":"lost","#) {
        return 0;
    }
    serde_json::from_slice::<Lost>(line).map_or(0, |lost| lost.count)
}
