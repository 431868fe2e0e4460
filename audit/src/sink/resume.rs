//! How a file ends that is to be continued.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
};

use crate::{
    chain::{Chain, Header, Parsed, Position, STOP, parse},
    lines::{Lines, Shape},
    walk::{Step, Walk},
};

/// So much of a file's end is verified before it is continued, or more if there is no seal in it.
const WINDOW_BYTES: u64 = 4 << 20;

/// The end of a file.
pub(crate) struct Tail {
    /// With what comes after the last seal, whose last line is taken as ended.
    pub(crate) chain: Chain,
    pub(crate) unsealed_lines: u64,
    /// Bytes of a last line without a newline.
    pub(crate) torn_bytes: u64,
    /// The process that wrote it stopped in order.
    pub(crate) was_stopped: bool,
    /// What is wrong with it, if anything.
    pub(crate) wrong: Option<String>,
    pub(crate) bytes: u64,
}

/// Where a file's last good seal ends, as its writer knows it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Known {
    pub(crate) position: Position,
    pub(crate) offset: u64,
}

/// The header that the file begins with.
pub(crate) fn header(file: &mut File) -> io::Result<Header> {
    file.seek(SeekFrom::Start(0))?;
    let mut lines = Lines::new(file.take(8 << 10), 0);
    if let Some(line) = lines.next()?
        && line.shape == Shape::Whole
        && let Parsed::Header(header) = parse(line.bytes)
    {
        return Ok(header);
    }
    Err(io::Error::new(
        io::ErrorKind::InvalidData,
        "the file does not begin like an audit log of this version",
    ))
}

/// Walks through the end of the file: from `known`, or from a seal that lies far enough back.
pub(crate) fn tail(file: &mut File, header: &Header, known: Option<Known>) -> io::Result<Tail> {
    let bytes = file.metadata()?.len();
    if let Some(known) = known {
        if bytes < known.offset {
            let mut tail = walk(file, header, None, 0, bytes)?;
            tail.wrong = Some("it is shorter than what was written".to_owned());
            tail.chain = Chain::at(known.position);
            return Ok(tail);
        }
        return walk(file, header, Some(known.position), known.offset, bytes);
    }
    let mut window = WINDOW_BYTES;
    while window < bytes {
        let start = bytes - window;
        if let Some((offset, position)) = first_seal(file, start)? {
            return walk(file, header, Some(position), offset, bytes);
        }
        window = window.saturating_mul(4);
    }
    walk(file, header, None, 0, bytes)
}

/// The first seal after `start`, and where it ends.
fn first_seal(file: &mut File, start: u64) -> io::Result<Option<(u64, Position)>> {
    file.seek(SeekFrom::Start(start))?;
    let mut lines = Lines::new(&mut *file, start);
    // The first line is cut off by the window.
    lines.next()?;
    while let Some(line) = lines.next()? {
        if let Parsed::Seal { position, .. } = parse(line.bytes) {
            let end = line.offset + line.bytes.len() as u64;
            return Ok(Some((end, position)));
        }
    }
    Ok(None)
}

fn walk(
    file: &mut File,
    header: &Header,
    position: Option<Position>,
    offset: u64,
    bytes: u64,
) -> io::Result<Tail> {
    file.seek(SeekFrom::Start(offset))?;
    let mut lines = Lines::new(&mut *file, offset);
    let mut walk = Walk::at(position, vec![header.identity.public]);
    let mut wrong = Vec::new();
    let mut torn_bytes = 0;
    let mut was_stopped = false;
    let mut is_first = position.is_none();
    let mut ended = Vec::new();
    while let Some(line) = lines.next()? {
        let bytes = match line.shape {
            Shape::Part => {
                wrong.push(format!("line at byte {} is too long", line.offset));
                walk.part(line.bytes);
                continue;
            }
            Shape::Whole => line.bytes,
            Shape::Torn => {
                torn_bytes = line.bytes.len() as u64;
                ended.extend_from_slice(line.bytes);
                ended.push(b'\n');
                ended.as_slice()
            }
        };
        if std::mem::take(&mut is_first) {
            walk.begin_file(header.position, bytes);
            continue;
        }
        match walk.line(bytes, &mut wrong) {
            Step::Header => wrong.push("there is a header inside".to_owned()),
            Step::Line => was_stopped = bytes.starts_with(STOP),
            Step::Seal | Step::Checkpoint => {}
        }
        // What follows explains a damaged line: that this is the end of what a crash left.
        if wrong.len() > 100 {
            break;
        }
    }
    Ok(Tail {
        unsealed_lines: walk.open_lines() - u64::from(torn_bytes > 0 && walk.open_lines() > 0),
        was_stopped: was_stopped && walk.open_lines() == 0 && !walk.is_checkpoint_due(),
        chain: walk
            .chain()
            .cloned()
            .unwrap_or_else(|| Chain::at(header.position)),
        torn_bytes,
        wrong: wrong.into_iter().next(),
        bytes,
    })
}
