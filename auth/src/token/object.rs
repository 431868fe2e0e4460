//! A JSON object without duplicate members. Two readers of one token that take different ones of two equal members is how checks are
//! passed with one value and used with another (RFC 7519, 4 allows to refuse them).

use super::TokenError;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use serde_json::Value;
use std::{collections::BTreeMap, fmt};

/// The latest time that a token may name: the end of the year 9999, as seconds since 1970. Beyond it lies only what would overflow.
const MAX_TIME: u64 = 253_402_300_799;

/// The members of an object.
pub(super) struct Object(BTreeMap<String, Value>);

impl Object {
    /// Reads one object and nothing behind it.
    pub(super) fn read(json: &[u8]) -> Result<Object, TokenError> {
        serde_json::from_slice(json).map_err(|_| TokenError::Malformed)
    }

    pub(super) fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    /// A member that must be a text.
    pub(super) fn text(&self, name: &'static str) -> Result<&str, TokenError> {
        let value = self.get(name).and_then(Value::as_str);
        value.ok_or(TokenError::Claim(name))
    }

    /// A member that must be a whole number from 0 on, without point or exponent.
    pub(super) fn number(&self, name: &'static str) -> Result<u64, TokenError> {
        let value = self.get(name).and_then(Value::as_u64);
        value.ok_or(TokenError::Claim(name))
    }

    /// A member that must be a time in whole seconds.
    pub(super) fn time(&self, name: &'static str) -> Result<u64, TokenError> {
        let seconds = self.number(name)?;
        (seconds <= MAX_TIME)
            .then_some(seconds)
            .ok_or(TokenError::Claim(name))
    }

    /// As [`Object::time`], for a member that may be missing – which `null` is not.
    pub(super) fn optional_time(&self, name: &'static str) -> Result<Option<u64>, TokenError> {
        self.get(name).map(|_| self.time(name)).transpose()
    }
}

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Object, D::Error> {
        deserializer.deserialize_map(Members)
    }
}

struct Members;

impl<'de> Visitor<'de> for Members {
    type Value = Object;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object, A::Error> {
        let mut members = BTreeMap::new();
        while let Some(name) = map.next_key::<String>()? {
            if members.insert(name, map.next_value()?).is_some() {
                return Err(A::Error::custom("duplicate member"));
            }
        }
        Ok(Object(members))
    }
}
