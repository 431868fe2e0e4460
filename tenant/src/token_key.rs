//! The public keys that sign tokens: one list for the whole group, known to every member through the log.

use bytes::{Buf, BufMut, Bytes};

/// Most keys that are remembered. Beyond it a key is refused until others have retired.
pub(crate) const TOKEN_KEYS_MAX: usize = 64;
/// Longest key id, bytes. Ours are shorter; the bound is for what a damaged or foreign record may claim.
pub const KID_BYTES_MAX: usize = 64;

/// A key with which one member signs tokens, without its private half.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenKeyRecord {
    /// The id that tokens name it by: 1 to [`KID_BYTES_MAX`] characters of ASCII that can be seen.
    pub kid: String,
    /// The Ed25519 public key.
    pub public_key: [u8; 32],
    /// When it was made, seconds since the epoch by the clock of the member.
    pub made_at: u64,
    /// The member that signs with it.
    pub member: u64,
    /// From when on tokens of this key are refused, seconds since the epoch; `None` while it is in use.
    pub retires_at: Option<u64>,
}

/// Why bytes are not a token key's record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TokenKeyError {
    #[error("token key record of unknown format {0}")]
    Format(u8),
    #[error("token key record of {0} bytes")]
    Length(usize),
    #[error("token key record with an impossible id")]
    Kid,
    #[error("token key record with an unknown state")]
    State,
}

const FORMAT: u8 = 1;
/// Format, public key, made at, member, whether it retires, when.
const LENGTH: usize = 1 + 32 + 8 + 8 + 1 + 8;

impl TokenKeyRecord {
    /// Whether the id is one that can stand in a token and in a log line.
    pub(crate) fn has_valid_kid(&self) -> bool {
        (1..=KID_BYTES_MAX).contains(&self.kid.len())
            && self.kid.bytes().all(|byte| byte.is_ascii_graphic())
    }

    /// The record's value; the id is its key.
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(LENGTH);
        out.put_u8(FORMAT);
        out.put_slice(&self.public_key);
        out.put_u64_le(self.made_at);
        out.put_u64_le(self.member);
        out.put_u8(u8::from(self.retires_at.is_some()));
        out.put_u64_le(self.retires_at.unwrap_or(0));
        out.into()
    }

    pub(crate) fn decode(kid: &[u8], mut value: &[u8]) -> Result<TokenKeyRecord, TokenKeyError> {
        if let Some(&format) = value.first()
            && format != FORMAT
        {
            return Err(TokenKeyError::Format(format));
        }
        if value.len() != LENGTH {
            return Err(TokenKeyError::Length(value.len()));
        }
        value.advance(1);
        let mut public_key = [0; 32];
        value.copy_to_slice(&mut public_key);
        let (made_at, member) = (value.get_u64_le(), value.get_u64_le());
        let retires_at = match (value.get_u8(), value.get_u64_le()) {
            (0, 0) => None,
            (1, at) => Some(at),
            _ => return Err(TokenKeyError::State),
        };
        let key = TokenKeyRecord {
            kid: std::str::from_utf8(kid)
                .map_err(|_| TokenKeyError::Kid)?
                .to_owned(),
            public_key,
            made_at,
            member,
            retires_at,
        };
        if !key.has_valid_kid() {
            return Err(TokenKeyError::Kid);
        }
        Ok(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_bytes_are_a_record_or_an_error(
            kid in proptest::collection::vec(0x20..=0x7fu8, 0..70),
            format in 0..3u8,
            flag in 0..3u8,
            tail in proptest::collection::vec(any::<u8>(), 40..70),
        ) {
            let mut value = vec![format];
            value.extend(&tail);
            if let Some(at) = value.get_mut(49) {
                *at = flag;
            }
            if let Ok(key) = TokenKeyRecord::decode(&kid, &value) {
                prop_assert_eq!(key.kid.as_bytes(), &kid);
                prop_assert_eq!(key.encode(), value);
            }
        }
    }

    #[test]
    fn records_come_back_as_they_went_and_no_others() {
        let mut key = TokenKeyRecord {
            kid: "a-1".into(),
            public_key: [7; 32],
            made_at: 1,
            member: u64::MAX,
            retires_at: None,
        };
        assert_eq!(
            TokenKeyRecord::decode(b"a-1", &key.encode()),
            Ok(key.clone())
        );
        key.retires_at = Some(0);
        let value = key.encode();
        assert_eq!(TokenKeyRecord::decode(b"a-1", &value), Ok(key));
        for kid in [&b""[..], b"a b", b"\xff", b"a\n", &[b'a'; 65]] {
            let decoded = TokenKeyRecord::decode(kid, &value);
            assert_eq!(decoded, Err(TokenKeyError::Kid), "{kid:?}");
        }
        let mut other = value.to_vec();
        other[49] = 2;
        assert_eq!(
            TokenKeyRecord::decode(b"a", &other),
            Err(TokenKeyError::State)
        );
        other[0] = 2;
        assert_eq!(
            TokenKeyRecord::decode(b"a", &other),
            Err(TokenKeyError::Format(2))
        );
        for cut in 0..value.len() {
            let decoded = TokenKeyRecord::decode(b"a", &value[..cut]);
            assert_eq!(decoded, Err(TokenKeyError::Length(cut)));
        }
    }
}
