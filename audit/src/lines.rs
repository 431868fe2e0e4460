//! Reading a file line by line, with a bound on what a line may be.

use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};

/// The longest line of ours is some 70 KiB: sixteen ranges of twice 1 KiB, each byte escaped, and a little more.
pub(crate) const MAX_LINE_BYTES: usize = 128 << 10;

/// Bytes read at once.
const READ_BYTES: usize = 256 << 10;

/// Lines with the places where they begin.
pub(crate) struct Lines<R> {
    source: BufReader<R>,
    offset: u64,
    number: u64,
    /// The last line was given in part.
    is_inside: bool,
    buffer: Vec<u8>,
}

/// One line, or a part of one that is too long.
pub(crate) struct Line<'a> {
    /// With its newline, if it has one.
    pub(crate) bytes: &'a [u8],
    /// Bytes before it.
    pub(crate) offset: u64,
    /// From 1 on.
    pub(crate) number: u64,
    pub(crate) shape: Shape,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    Whole,
    /// The file ends before the line does.
    Torn,
    /// A piece of a line that is too long; more may follow.
    Part,
}

impl<R: Read> Lines<R> {
    /// `offset` is where `source` stands.
    pub(crate) fn new(source: R, offset: u64) -> Self {
        Self {
            source: BufReader::with_capacity(READ_BYTES, source),
            offset,
            number: 0,
            is_inside: false,
            buffer: Vec::new(),
        }
    }

    pub(crate) fn get_ref(&self) -> &R {
        self.source.get_ref()
    }

    /// Goes to a line that begins at `offset`; the numbers of lines go on.
    pub(crate) fn seek(&mut self, offset: u64) -> io::Result<()>
    where
        R: Seek,
    {
        self.source.seek(SeekFrom::Start(offset))?;
        self.offset = offset;
        self.is_inside = false;
        Ok(())
    }

    /// Where the next line begins.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    pub(crate) fn next(&mut self) -> io::Result<Option<Line<'_>>> {
        self.buffer.clear();
        let limit = MAX_LINE_BYTES as u64;
        let read = (&mut self.source)
            .take(limit)
            .read_until(b'\n', &mut self.buffer)?;
        if read == 0 {
            return Ok(None);
        }
        let is_ended = self.buffer.last() == Some(&b'\n');
        let was_inside = std::mem::replace(&mut self.is_inside, !is_ended && read as u64 == limit);
        let shape = if was_inside || self.is_inside {
            Shape::Part
        } else if is_ended {
            Shape::Whole
        } else {
            Shape::Torn
        };
        let offset = self.offset;
        self.offset += read as u64;
        if !was_inside {
            self.number += 1;
        }
        Ok(Some(Line {
            bytes: &self.buffer,
            offset,
            number: self.number,
            shape,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_have_their_places_and_long_ones_come_in_parts() {
        let mut text = b"one\n\n".to_vec();
        text.resize(text.len() + MAX_LINE_BYTES + 5, b'x');
        text.extend_from_slice(b"\nlast");
        let mut lines = Lines::new(text.as_slice(), 100);
        let mut found = Vec::new();
        while let Some(line) = lines.next().unwrap() {
            found.push((line.number, line.offset, line.bytes.len(), line.shape));
        }
        let long = MAX_LINE_BYTES as u64;
        assert_eq!(
            found,
            [
                (1, 100, 4, Shape::Whole),
                (2, 104, 1, Shape::Whole),
                (3, 105, MAX_LINE_BYTES, Shape::Part),
                (3, 105 + long, 6, Shape::Part),
                (4, 111 + long, 4, Shape::Torn),
            ]
        );
    }
}
