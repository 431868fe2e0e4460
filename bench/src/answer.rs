//! Reads what a load has to check from an answer, without building the message: the client shares the processor with the server
//! that it measures, and a full decode of a 500-key range would cost more than some servers spend on it.
//!
//! Field numbers follow `etcdserverpb` and `mvccpb` (proto/proto/rpc.proto, kv.proto).

use bytes::{Buf, Bytes, buf::Take};
use prost::{DecodeError, encoding::decode_varint};
use std::collections::VecDeque;

/// An answer that is not a protobuf message.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[error("the answer is not a valid message")]
pub(crate) struct Malformed;

impl From<DecodeError> for Malformed {
    fn from(_: DecodeError) -> Self {
        Self
    }
}

/// Bytes that arrived in pieces, read as one without copying them together.
#[derive(Debug, Default)]
pub(crate) struct Pieces {
    pieces: VecDeque<Bytes>,
    remaining: usize,
}

impl Pieces {
    pub(crate) fn push(&mut self, piece: Bytes) {
        if !piece.is_empty() {
            self.remaining += piece.len();
            self.pieces.push_back(piece);
        }
    }

    /// Takes the first `count` bytes out.
    pub(crate) fn split_to(&mut self, mut count: usize) -> Self {
        if count == self.remaining {
            return std::mem::take(self);
        }
        let mut head = Self::default();
        while count > 0 {
            let Some(mut piece) = self.pieces.pop_front() else {
                break;
            };
            if count < piece.len() {
                self.pieces.push_front(piece.split_off(count));
            }
            count -= piece.len();
            self.remaining -= piece.len();
            head.push(piece);
        }
        head
    }
}

impl Buf for Pieces {
    fn remaining(&self) -> usize {
        self.remaining
    }

    fn chunk(&self) -> &[u8] {
        self.pieces.front().map_or(&[], |piece| piece)
    }

    fn advance(&mut self, mut count: usize) {
        assert!(count <= self.remaining, "advance past the end");
        self.remaining -= count;
        while let Some(piece) = self.pieces.front_mut() {
            if count < piece.len() {
                piece.advance(count);
                return;
            }
            count -= piece.len();
            self.pieces.pop_front();
        }
    }
}

/// One field of a message.
enum Value<'a, B> {
    Number(u64),
    Nested(Take<&'a mut B>),
    Fixed,
}

/// Calls `visit` with each field; what it leaves of a nested field is skipped.
fn fields<B: Buf>(
    message: &mut B,
    mut visit: impl FnMut(u64, Value<'_, B>) -> Result<(), Malformed>,
) -> Result<(), Malformed> {
    while message.has_remaining() {
        let tag = decode_varint(message)?;
        match tag & 7 {
            0 => {
                let number = decode_varint(message)?;
                visit(tag >> 3, Value::Number(number))?;
            }
            2 => {
                let length = usize::try_from(decode_varint(message)?).unwrap_or(usize::MAX);
                let Some(rest) = message.remaining().checked_sub(length) else {
                    return Err(Malformed);
                };
                visit(tag >> 3, Value::Nested(message.take(length)))?;
                message.advance(message.remaining() - rest);
            }
            kind @ (1 | 5) => {
                let length = if kind == 1 { 8 } else { 4 };
                if message.remaining() < length {
                    return Err(Malformed);
                }
                message.advance(length);
                visit(tag >> 3, Value::Fixed)?;
            }
            _ => return Err(Malformed),
        }
    }
    Ok(())
}

/// The fields of unary answers that loads look at. Which number means what depends on the message; the accessors name it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Answer {
    /// `header.revision`.
    pub(crate) revision: i64,
    /// How many times field 2 came as a message: `RangeResponse.kvs`.
    pub(crate) kvs: u64,
    /// Field 2 as a number: `TxnResponse.succeeded`, `LeaseGrantResponse.ID`, `LeaseKeepAliveResponse.ID`.
    pub(crate) second: u64,
    /// Field 3 as a number: `RangeResponse.more`, `LeaseKeepAliveResponse.TTL`.
    pub(crate) third: u64,
    /// Field 4 as a number: `RangeResponse.count`.
    pub(crate) fourth: u64,
}

impl Answer {
    pub(crate) fn scan<B: Buf>(message: &mut B) -> Result<Self, Malformed> {
        let mut answer = Self::default();
        fields(message, |number, value| {
            match (number, value) {
                (1, Value::Nested(mut header)) => answer.revision = header_revision(&mut header)?,
                (2, Value::Nested(_)) => answer.kvs += 1,
                (2, Value::Number(value)) => answer.second = value,
                (3, Value::Number(value)) => answer.third = value,
                (4, Value::Number(value)) => answer.fourth = value,
                _ => {}
            }
            Ok(())
        })?;
        Ok(answer)
    }
}

fn header_revision<B: Buf>(header: &mut B) -> Result<i64, Malformed> {
    let mut revision = 0;
    fields(header, |number, value| {
        if let (3, Value::Number(value)) = (number, value) {
            revision = value.cast_signed();
        }
        Ok(())
    })?;
    Ok(revision)
}

/// The key of the last key-value of a `RangeResponse`: where the next page begins.
pub(crate) fn last_key<B: Buf>(message: &mut B) -> Result<(Answer, Bytes), Malformed> {
    let mut answer = Answer::default();
    let mut last = Bytes::new();
    fields(message, |number, value| {
        match (number, value) {
            (2, Value::Nested(mut kv)) => {
                answer.kvs += 1;
                fields(&mut kv, |number, value| {
                    if let (1, Value::Nested(mut key)) = (number, value) {
                        last = key.copy_to_bytes(key.remaining());
                    }
                    Ok(())
                })?;
            }
            (3, Value::Number(value)) => answer.third = value,
            _ => {}
        }
        Ok(())
    })?;
    Ok((answer, last))
}

/// What a `WatchResponse` said beside its events.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct WatchNews {
    pub(crate) created: bool,
    pub(crate) canceled: bool,
    pub(crate) events: u64,
}

/// Reads a `WatchResponse`; `stamp` gets the first eight bytes of each event's value, big-endian (see `Values::stamped`).
pub(crate) fn watch<B: Buf>(
    message: &mut B,
    mut stamp: impl FnMut(u64),
) -> Result<WatchNews, Malformed> {
    let mut news = WatchNews::default();
    fields(message, |number, value| {
        match (number, value) {
            (3, Value::Number(value)) => news.created = value != 0,
            (4, Value::Number(value)) => news.canceled = value != 0,
            (11, Value::Nested(mut event)) => {
                news.events += 1;
                event_stamp(&mut event, &mut stamp)?;
            }
            _ => {}
        }
        Ok(())
    })?;
    Ok(news)
}

fn event_stamp<B: Buf>(event: &mut B, stamp: &mut impl FnMut(u64)) -> Result<(), Malformed> {
    fields(event, |number, value| {
        if let (2, Value::Nested(mut kv)) = (number, value) {
            fields(&mut kv, |number, value| {
                if let (5, Value::Nested(mut bytes)) = (number, value)
                    && bytes.remaining() >= 8
                {
                    stamp(bytes.get_u64());
                }
                Ok(())
            })?;
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_proto::{etcdserverpb as pb, mvccpb};
    use prost::Message;

    /// The message cut into pieces of `size` bytes.
    fn pieces(message: &impl Message, size: usize) -> Pieces {
        let mut pieces = Pieces::default();
        for piece in message.encode_to_vec().chunks(size) {
            pieces.push(Bytes::copy_from_slice(piece));
        }
        pieces
    }

    fn header() -> Option<pb::ResponseHeader> {
        Some(pb::ResponseHeader {
            cluster_id: u64::MAX,
            member_id: 5,
            revision: 77,
            raft_term: 2,
        })
    }

    fn key_value(key: &'static str) -> mvccpb::KeyValue {
        mvccpb::KeyValue {
            key: Bytes::from_static(key.as_bytes()),
            value: Bytes::copy_from_slice(&9_u64.to_be_bytes()),
            ..Default::default()
        }
    }

    #[test]
    fn scans_a_range_in_any_cut() -> Result<(), Malformed> {
        let message = pb::RangeResponse {
            header: header(),
            kvs: vec![key_value("a"), key_value("b")],
            more: true,
            count: 1000,
        };
        for size in [1, 3, 7, 1000] {
            let answer = Answer::scan(&mut pieces(&message, size))?;
            assert_eq!(
                (answer.revision, answer.kvs, answer.third, answer.fourth),
                (77, 2, 1, 1000)
            );
            let (answer, last) = last_key(&mut pieces(&message, size))?;
            assert_eq!((answer.kvs, last.as_ref()), (2, b"b".as_slice()));
        }
        Ok(())
    }

    #[test]
    fn scans_watch_events() -> Result<(), Malformed> {
        let message = pb::WatchResponse {
            header: header(),
            created: true,
            events: vec![
                mvccpb::Event {
                    kv: Some(key_value("a")),
                    ..Default::default()
                };
                3
            ],
            ..Default::default()
        };
        let mut stamps = Vec::new();
        let news = watch(&mut pieces(&message, 5), |stamp| stamps.push(stamp))?;
        assert_eq!((news.created, news.events), (true, 3));
        assert_eq!(stamps, [9, 9, 9]);
        Ok(())
    }

    #[test]
    fn damage_is_an_error_and_never_a_panic() {
        let message = pb::TxnResponse {
            header: header(),
            succeeded: true,
            responses: vec![],
        }
        .encode_to_vec();
        for end in 1..message.len() {
            let _ = Answer::scan(&mut &message[..end]);
        }
        assert!(Answer::scan(&mut [0x12, 0x7f].as_slice()).is_err());
        assert!(Answer::scan(&mut [0x0f].as_slice()).is_err());
    }
}
