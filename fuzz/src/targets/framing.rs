//! Where messages end in a stream of gRPC, as the server counts what a client makes it hold.
//!
//! Input: sizes of the pieces in which the stream arrives (u8 length), and the stream. However it is cut, what counts is what lies behind
//! the last whole message.

use crate::framing::{Messages, Unfinished};
use crate::input::Input;

pub(crate) fn run(data: &[u8]) -> bool {
    let mut input = Input::new(data);
    let mut sizes = input.short().iter().cycle();
    let stream = input.rest();
    let ends = ends(stream);
    let mut messages = Messages::default();
    let (mut at, mut counted) = (0, 0);
    while at < stream.len() {
        let size = sizes
            .next()
            .map_or(stream.len(), |size| usize::from(*size).max(1));
        let piece = &stream[at..stream.len().min(at + size)];
        at += piece.len();
        let before = counted;
        counted = match messages.follow(piece) {
            Unfinished::Same(bytes) => before + bytes,
            Unfinished::Other(bytes) => bytes,
        };
        let end = ends.iter().rev().find(|end| **end <= at).unwrap_or(&0);
        assert_eq!(counted, at - end);
    }
    !ends.is_empty()
}

/// Where whole messages end.
fn ends(stream: &[u8]) -> Vec<usize> {
    let mut ends = Vec::new();
    let mut at = 0;
    while let Some([_, length @ ..]) = stream[at..].first_chunk::<5>() {
        let length = u32::from_be_bytes(*length) as usize;
        if stream.len() - at - 5 < length {
            break;
        }
        at += 5 + length;
        ends.push(at);
    }
    ends
}
