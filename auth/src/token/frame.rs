//! The form of a token: three parts, canonical base64url, JSON objects. Nothing in here is verified.

use super::{MAX_TOKEN_BYTES, TokenError, object::Object};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::Value;

/// A token taken apart.
pub(super) struct Frame<'a> {
    header: Object,
    /// The claims, which mean nothing before the signature was checked – but `iss`, which selects whose keys to check it with.
    pub(super) claims: Object,
    /// What is signed.
    pub(super) message: &'a [u8],
    pub(super) signature: Vec<u8>,
}

impl Frame<'_> {
    pub(super) fn read(token: &str) -> Result<Frame<'_>, TokenError> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(TokenError::TooLong);
        }
        let (message, signature) = token.rsplit_once('.').ok_or(TokenError::Malformed)?;
        let (header, claims) = message.split_once('.').ok_or(TokenError::Malformed)?;
        let header = Object::read(&decode(header)?)?;
        // Any `crit`, even an empty or malformed one: there is no extension that could be agreed to (RFC 7515, 4.1.11).
        if header.get("crit").is_some() {
            return Err(TokenError::Critical);
        }
        Ok(Frame {
            header,
            claims: Object::read(&decode(claims)?)?,
            message: message.as_bytes(),
            signature: decode(signature)?,
        })
    }

    /// The header's `alg`.
    pub(super) fn algorithm(&self) -> Result<&str, TokenError> {
        let name = self.header.get("alg").and_then(Value::as_str);
        name.ok_or(TokenError::Algorithm)
    }

    /// The header's `kid`. Keys that a header brings or points to (`jwk`, `jku`, `x5c`, `x5u`) are not looked at.
    pub(super) fn key_id(&self) -> Result<&str, TokenError> {
        let id = self.header.get("kid").and_then(Value::as_str);
        id.ok_or(TokenError::UnknownKey)
    }
}

/// Takes the one spelling of base64url that RFC 7515 allows: no padding, no stray bits, no other characters – a fourth part's dot
/// included.
fn decode(part: &str) -> Result<Vec<u8>, TokenError> {
    if part.is_empty() {
        return Err(TokenError::Malformed);
    }
    URL_SAFE_NO_PAD
        .decode(part)
        .map_err(|_| TokenError::Malformed)
}
