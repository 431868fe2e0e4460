//! gRPC's framing of messages over HTTP/2 bodies, and the check of what a message holds before it is decoded.
//!
//! Both ends are written here instead of generated, because a batch of messages is to be copied once on its way out and not at all on
//! its way in: a message of raft lies in the very bytes that came from the connection.

use super::bounds::{BATCH_MESSAGES_MAX, FRAME_BYTES_MAX};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use holdfast_proto::peer as pb;
use http::{HeaderMap, HeaderValue};
use http_body::{Body as HttpBody, Frame};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use prost::Message;
use prost::encoding::{WireType, decode_key, decode_varint, encode_key, encode_varint};
use std::convert::Infallible;
use std::io;
use tonic::Status;

/// A message is preceded by a flag (compressed or not) and four bytes of length.
const PREFIX: usize = 5;
/// What is made room for before it has arrived: a length that is claimed costs nothing.
const ROOM: usize = 64 << 10;

/// A body that goes out.
pub(super) type Body = UnsyncBoxBody<Bytes, io::Error>;

/// Why no message could be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum FrameError {
    #[error("the stream broke: {0}")]
    Broken(Box<dyn std::error::Error + Send + Sync>),
    #[error("the stream ended within a message")]
    Truncated,
    #[error("a message of {0} bytes is too long")]
    TooLong(usize),
    #[error("a message is compressed, which was not asked for")]
    Compressed,
    #[error("a message makes no sense: {0}")]
    Malformed(String),
}

impl FrameError {
    /// As the end of a call.
    pub(super) fn status(&self) -> Status {
        match self {
            Self::Broken(_) => Status::unavailable(self.to_string()),
            Self::TooLong(_) => Status::resource_exhausted(self.to_string()),
            _ => Status::invalid_argument(self.to_string()),
        }
    }
}

impl From<prost::DecodeError> for FrameError {
    fn from(error: prost::DecodeError) -> FrameError {
        Self::Malformed(error.to_string())
    }
}

/// A message with its prefix.
pub(super) fn frame(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut frame = BytesMut::with_capacity(PREFIX + length);
    begin(&mut frame, length);
    message.encode_raw(&mut frame);
    frame.freeze()
}

fn begin(frame: &mut BytesMut, length: usize) {
    frame.put_u8(0);
    // Nothing of ours comes near 4 GiB; the saturated length would be refused at the other end.
    frame.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
}

/// A batch with its prefix, as `frame` would make it, without a message of ours in between.
pub(super) fn frame_batch(messages: &[Bytes], probe: u64) -> Bytes {
    const MESSAGES: u32 = 2;
    const PROBE: u32 = 3;
    let key = prost::encoding::key_len(MESSAGES);
    let mut length: usize = messages
        .iter()
        .map(|message| {
            key + prost::encoding::encoded_len_varint(message.len() as u64) + message.len()
        })
        .sum();
    if probe != 0 {
        length += prost::encoding::uint64::encoded_len(PROBE, &probe);
    }
    let mut frame = BytesMut::with_capacity(PREFIX + length);
    begin(&mut frame, length);
    for message in messages {
        encode_key(MESSAGES, WireType::LengthDelimited, &mut frame);
        encode_varint(message.len() as u64, &mut frame);
        frame.put_slice(message);
    }
    if probe != 0 {
        prost::encoding::uint64::encode(PROBE, &probe, &mut frame);
    }
    frame.freeze()
}

/// Decodes a batch whose messages are parts of `bytes`.
///
/// # Errors
/// It makes no sense, has too many messages or an empty one.
pub(super) fn batch(bytes: Bytes) -> Result<pb::MessageBatch, FrameError> {
    bounded(&bytes, 2, BATCH_MESSAGES_MAX)?;
    let batch = pb::MessageBatch::decode(bytes)?;
    if batch.messages.iter().any(Bytes::is_empty) {
        return Err(FrameError::Malformed("an empty message".to_owned()));
    }
    Ok(batch)
}

/// Counts a repeated field before it is decoded: an empty element is two bytes on the wire and dozens in memory.
///
/// # Errors
/// More than `most`, or the message makes no sense.
pub(super) fn bounded(mut bytes: &[u8], field: u32, most: usize) -> Result<(), FrameError> {
    let too_short = || FrameError::Malformed("it ends too early".to_owned());
    let mut count = 0;
    while !bytes.is_empty() {
        let (tag, kind) = decode_key(&mut bytes)?;
        let skip = match kind {
            WireType::Varint => {
                decode_varint(&mut bytes)?;
                0
            }
            WireType::ThirtyTwoBit => 4,
            WireType::SixtyFourBit => 8,
            WireType::LengthDelimited => {
                usize::try_from(decode_varint(&mut bytes)?).map_err(|_| too_short())?
            }
            // Groups have not been written for twenty years.
            WireType::StartGroup | WireType::EndGroup => {
                return Err(FrameError::Malformed("a group".to_owned()));
            }
        };
        bytes = bytes.get(skip..).ok_or_else(too_short)?;
        if tag == field {
            count += 1;
            if count > most {
                return Err(FrameError::Malformed(format!("more than {most} elements")));
            }
        }
    }
    Ok(())
}

/// Messages out of a body.
pub(super) struct Frames<B> {
    body: B,
    /// What has arrived and was not asked for yet.
    chunk: Bytes,
    most: usize,
    trailers: Option<HeaderMap>,
}

impl<B> Frames<B>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    /// Messages of up to `most` bytes, at most 16 MiB.
    pub(super) fn new(body: B, most: usize) -> Frames<B> {
        Frames {
            body,
            chunk: Bytes::new(),
            most: most.min(FRAME_BYTES_MAX),
            trailers: None,
        }
    }

    /// From now on, messages of up to `most` bytes.
    pub(super) fn permit(&mut self, most: usize) {
        self.most = most.min(FRAME_BYTES_MAX);
    }

    /// The next message; `None` at the end of the body. To be dropped, not called again, after it was given up on.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, FrameError> {
        let Some(mut prefix) = self.take(PREFIX).await? else {
            return Ok(None);
        };
        if prefix.get_u8() != 0 {
            return Err(FrameError::Compressed);
        }
        let length = prefix.get_u32() as usize;
        if length > self.most {
            return Err(FrameError::TooLong(length));
        }
        match self.take(length).await? {
            Some(message) => Ok(Some(message)),
            None => Err(FrameError::Truncated),
        }
    }

    /// The status that a stream of answers has ended with, once [`Self::next`] was `None`.
    pub(super) fn status(&self) -> Status {
        self.trailers
            .as_ref()
            .and_then(Status::from_header_map)
            .unwrap_or_else(|| Status::unavailable("the stream ended without a status"))
    }

    /// Exactly so many bytes; `None` if the body has ended before the first. Without a copy if they have arrived together.
    async fn take(&mut self, count: usize) -> Result<Option<Bytes>, FrameError> {
        if self.chunk.is_empty() && count > 0 && !self.fill().await? {
            return Ok(None);
        }
        if self.chunk.len() >= count {
            return Ok(Some(self.chunk.split_to(count)));
        }
        let mut gathered = BytesMut::with_capacity(count.min(ROOM));
        loop {
            let missing = count - gathered.len();
            let piece = self.chunk.split_to(missing.min(self.chunk.len()));
            gathered.extend_from_slice(&piece);
            if gathered.len() == count {
                return Ok(Some(gathered.freeze()));
            }
            if !self.fill().await? {
                return Err(FrameError::Truncated);
            }
        }
    }

    /// Waits for bytes; false at the end.
    async fn fill(&mut self) -> Result<bool, FrameError> {
        loop {
            let frame = match self.body.frame().await {
                None => return Ok(false),
                Some(Err(error)) => return Err(FrameError::Broken(error.into())),
                Some(Ok(frame)) => frame,
            };
            match frame.into_data() {
                Ok(data) if data.is_empty() => {}
                Ok(data) => {
                    self.chunk = data;
                    return Ok(true);
                }
                Err(frame) => self.trailers = frame.into_trailers().ok(),
            }
        }
    }
}

/// The body of a request of one message.
pub(super) fn whole(message: &impl Message) -> Body {
    let body = Full::new(frame(message));
    body.map_err(|never: Infallible| match never {})
        .boxed_unsync()
}

/// A good answer of one message.
pub(super) fn answer(message: &impl Message) -> http::Response<Body> {
    let frames = [Frame::data(frame(message)), Frame::trailers(success())];
    let body = StreamBody::new(futures::stream::iter(frames.map(Ok)));
    respond(BodyExt::boxed_unsync(body))
}

/// A stream of answers that has begun.
pub(super) fn respond(body: Body) -> http::Response<Body> {
    let mut response = http::Response::new(body);
    response.headers_mut().insert(
        http::header::CONTENT_TYPE,
        HeaderValue::from_static("application/grpc"),
    );
    response
}

/// The trailers of a call that went well.
fn success() -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(1);
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    trailers
}

/// The trailers of a stream that ends with this status.
pub(super) fn trailers(status: &Status) -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(3);
    // Texts are escaped; what could not be would be a status without its text.
    if status.add_header(&mut trailers).is_err() {
        trailers.insert(
            "grpc-status",
            HeaderValue::from_static("13"), // INTERNAL
        );
    }
    trailers
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(pieces: Vec<Bytes>) -> Body {
        let frames = pieces.into_iter().map(|piece| Ok(Frame::data(piece)));
        BodyExt::boxed_unsync(StreamBody::new(futures::stream::iter(
            frames.collect::<Vec<_>>(),
        )))
    }

    async fn read(pieces: Vec<Bytes>, most: usize) -> Result<Vec<Bytes>, FrameError> {
        let mut frames = Frames::new(body(pieces), most);
        let mut read = Vec::new();
        while let Some(message) = frames.next().await? {
            read.push(message);
        }
        Ok(read)
    }

    fn messages() -> Vec<Bytes> {
        [1usize, 300, 70_000]
            .map(|length| Bytes::from(vec![7; length]))
            .to_vec()
    }

    #[test]
    fn a_batch_is_framed_as_prost_would() {
        for probe in [0, 1, u64::MAX] {
            let wire = pb::MessageBatch {
                hello: None,
                messages: messages(),
                probe,
            };
            assert_eq!(frame_batch(&messages(), probe), frame(&wire));
        }
    }

    #[tokio::test]
    async fn messages_arrive_however_they_are_cut() {
        let wire = [frame_batch(&messages(), 3), frame_batch(&[], 9)].concat();
        for size in [1, 4, 5, 6, 1_000, wire.len()] {
            let pieces = wire.chunks(size).map(Bytes::copy_from_slice).collect();
            let read = read(pieces, 1 << 20).await.expect("messages");
            let read: Vec<_> = read
                .into_iter()
                .map(|bytes| batch(bytes).expect("batch"))
                .collect();
            assert_eq!((read.len(), read[0].probe, read[1].probe), (2, 3, 9));
            assert_eq!(read[0].messages, messages());
        }
    }

    #[tokio::test]
    async fn bad_frames_are_errors() {
        let cases: [(&[u8], &str); 4] = [
            (&[1, 0, 0, 0, 0], "Compressed"),
            (&[0, 255, 255, 255, 255], "TooLong(4294967295)"),
            (&[0, 0, 0, 0, 9, 1], "Truncated"),
            (&[0, 0], "Truncated"),
        ];
        for (wire, expected) in cases {
            let error = read(vec![Bytes::copy_from_slice(wire)], 1 << 20).await;
            assert_eq!(format!("{:?}", error.expect_err("refused")), expected);
        }
    }

    #[test]
    fn counts_are_bounded_before_anything_is_decoded() {
        let many = [0x12, 1, 5].repeat(BATCH_MESSAGES_MAX);
        assert!(batch(Bytes::from(many.clone())).is_ok());
        let more = [many, vec![0x12, 1, 5]].concat();
        assert!(batch(Bytes::from(more)).is_err());
        assert!(batch(Bytes::from_static(&[0x12, 0])).is_err(), "empty");
    }

    /// Whatever the bytes: an answer or an error.
    #[test]
    fn garbage_is_no_panic() {
        let good = frame_batch(&[Bytes::from_static(b"abc"), Bytes::from_static(b"d")], 77);
        let good = good.slice(PREFIX..);
        for position in 0..good.len() {
            for value in 0..=255 {
                let mut bad = good.to_vec();
                bad[position] = value;
                let _ = batch(Bytes::from(bad));
            }
            let _ = batch(good.slice(..position));
        }
    }
}
