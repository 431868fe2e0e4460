//! A member as it is stored (`docs/ARCHITECTURE.md`, "Files").

use super::{MEMBER_URLS_MAX, Member, MemberVersion};
use bytes::{Buf, BufMut, Bytes};

/// Why bytes are not a member's record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RecordError {
    #[error("member record of unknown format {0}")]
    Format(u8),
    #[error("member record that ends early")]
    Truncated,
    #[error("member record with bytes left over")]
    Trailing,
    #[error("member record with an unknown flag")]
    Flag,
    #[error("member record with too many URLs")]
    Urls,
    #[error("member record with a text that is none")]
    Text,
}

const FORMAT: u8 = 1;
const LEARNER: u8 = 1;

impl Member {
    /// The record's value; the id is its key.
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = Vec::new();
        out.put_u8(FORMAT);
        out.put_u8(if self.is_learner { LEARNER } else { 0 });
        out.put_u64_le(self.instance);
        out.put_u32_le(self.version.level);
        put_text(&self.version.text, &mut out);
        put_text(&self.name, &mut out);
        for urls in [&self.peer_urls, &self.client_urls] {
            // All of it was bounded when it came in, far below 64 Ki.
            out.put_u16_le(urls.len() as u16);
            urls.iter().for_each(|url| put_text(url, &mut out));
        }
        out.into()
    }

    /// Reads a record. Whether its content makes a member is for [`super::Membership::assemble`] to say.
    pub(crate) fn decode(id: u64, mut value: &[u8]) -> Result<Member, RecordError> {
        let format = value.try_get_u8().map_err(|_| RecordError::Truncated)?;
        if format != FORMAT {
            return Err(RecordError::Format(format));
        }
        let flags = value.try_get_u8().map_err(|_| RecordError::Truncated)?;
        if flags & !LEARNER != 0 {
            return Err(RecordError::Flag);
        }
        let instance = value.try_get_u64_le().map_err(|_| RecordError::Truncated)?;
        let level = value.try_get_u32_le().map_err(|_| RecordError::Truncated)?;
        let member = Member {
            id,
            is_learner: flags & LEARNER != 0,
            instance,
            version: MemberVersion {
                level,
                text: take_text(&mut value)?,
            },
            name: take_text(&mut value)?,
            peer_urls: take_urls(&mut value)?,
            client_urls: take_urls(&mut value)?,
        };
        if !value.is_empty() {
            return Err(RecordError::Trailing);
        }
        Ok(member)
    }
}

fn put_text(text: &str, out: &mut Vec<u8>) {
    out.put_u16_le(text.len() as u16);
    out.put_slice(text.as_bytes());
}

fn take_text(value: &mut &[u8]) -> Result<String, RecordError> {
    let length = value.try_get_u16_le().map_err(|_| RecordError::Truncated)?;
    let (text, rest) = value
        .split_at_checked(usize::from(length))
        .ok_or(RecordError::Truncated)?;
    *value = rest;
    match std::str::from_utf8(text) {
        Ok(text) => Ok(text.to_owned()),
        Err(_) => Err(RecordError::Text),
    }
}

fn take_urls(value: &mut &[u8]) -> Result<Vec<String>, RecordError> {
    let count = value.try_get_u16_le().map_err(|_| RecordError::Truncated)?;
    if usize::from(count) > MEMBER_URLS_MAX {
        return Err(RecordError::Urls);
    }
    (0..count).map(|_| take_text(value)).collect()
}
