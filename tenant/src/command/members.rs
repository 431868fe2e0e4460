//! The changes of the membership.

use super::callers::take_text;
use super::codec::{blob, take_count, take_u8, take_unsigned, unsigned};
use super::{Command, DecodeError, RESERVE};
use crate::membership::MemberVersion;
use bytes::{BufMut, Bytes};

pub(super) fn encode_add(
    id: u64,
    peer_urls: &[String],
    is_learner: bool,
    max_learners: u32,
    out: &mut Vec<u8>,
) {
    unsigned(id, out);
    encode_urls(peer_urls, out);
    out.put_u8(u8::from(is_learner));
    unsigned(u64::from(max_learners), out);
}

pub(super) fn decode_add(body: &mut Bytes) -> Result<Command, DecodeError> {
    Ok(Command::MemberAdd {
        id: take_unsigned(body)?,
        peer_urls: decode_urls(body)?,
        is_learner: match take_u8(body)? {
            0 => false,
            1 => true,
            _ => return Err(DecodeError::Unknown("flag")),
        },
        max_learners: take_unsigned_u32(body)?,
    })
}

pub(super) fn decode_update(body: &mut Bytes) -> Result<Command, DecodeError> {
    Ok(Command::MemberUpdate {
        id: take_unsigned(body)?,
        peer_urls: decode_urls(body)?,
    })
}

pub(super) fn encode_publish(
    id: u64,
    name: &str,
    client_urls: &[String],
    instance: u64,
    version: &MemberVersion,
    out: &mut Vec<u8>,
) {
    unsigned(id, out);
    blob(name.as_bytes(), out);
    encode_urls(client_urls, out);
    unsigned(instance, out);
    unsigned(u64::from(version.level), out);
    blob(version.text.as_bytes(), out);
}

pub(super) fn decode_publish(body: &mut Bytes) -> Result<Command, DecodeError> {
    Ok(Command::MemberPublish {
        id: take_unsigned(body)?,
        name: take_text(body)?,
        client_urls: decode_urls(body)?,
        instance: take_unsigned(body)?,
        version: MemberVersion {
            level: take_unsigned_u32(body)?,
            text: take_text(body)?,
        },
    })
}

pub(super) fn encode_urls(urls: &[String], out: &mut Vec<u8>) {
    unsigned(urls.len() as u64, out);
    urls.iter().for_each(|url| blob(url.as_bytes(), out));
}

/// As many as were asked for: it is the state's to refuse them, with an answer.
fn decode_urls(body: &mut Bytes) -> Result<Vec<String>, DecodeError> {
    let count = take_count(body)?;
    let mut urls = Vec::with_capacity(count.min(RESERVE));
    for _ in 0..count {
        urls.push(take_text(body)?);
    }
    Ok(urls)
}

fn take_unsigned_u32(body: &mut Bytes) -> Result<u32, DecodeError> {
    u32::try_from(take_unsigned(body)?).map_err(|_| DecodeError::Unknown("number"))
}
