//! The text of a password hash: which forms and costs are accepted, before anything computes with it.
//!
//! A hash comes from a log, a snapshot or an administrator's import, and verifying one costs what *it* says. So the costs are bounded
//! here, where the text becomes a value.

use std::fmt;
use std::sync::Arc;

/// Longest accepted text, bytes. The longest that the rules below let through is shorter.
const MAX_BYTES: usize = 256;
/// Memory of one Argon2id verification, KiB: 64 MiB.
const MAX_MEMORY_KIB: u32 = 64 * 1024;
const MAX_PASSES: u32 = 8;
const MAX_LANES: u32 = 4;
/// Bytes of salt and of output, by RFC 9106 and the PHC format's bounds.
const SALT_BYTES: std::ops::RangeInclusive<usize> = 8..=48;
const OUTPUT_BYTES: std::ops::RangeInclusive<usize> = 16..=64;
/// Cost of bcrypt is the logarithm of its rounds: 14 takes about a second.
const BCRYPT_COSTS: std::ops::RangeInclusive<u32> = 4..=14;
/// 22 characters of salt, 31 of hash.
const BCRYPT_TAIL: usize = 53;

/// A validated password hash: Argon2id as a PHC string, or bcrypt. It shows itself to nobody but who asks for the text.
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash {
    text: Arc<str>,
    scheme: HashScheme,
}

/// How a password was hashed, and what it costs to do it again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HashScheme {
    /// `$argon2id$v=19$m=…,t=…,p=…$salt$output`.
    Argon2id {
        /// Memory, KiB.
        memory_kib: u32,
        /// Passes over it.
        passes: u32,
        /// Lanes.
        lanes: u32,
    },
    /// `$2a$`, `$2b$` or `$2y$`.
    Bcrypt {
        /// Logarithm of the rounds.
        cost: u32,
    },
}

/// A text that is not a password hash, or one that would cost too much. Says nothing of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PasswordHashError {
    /// Too long to be one.
    #[error("a password hash of more than {MAX_BYTES} bytes")]
    TooLong,
    /// Neither Argon2id in PHC form nor bcrypt.
    #[error("not an Argon2id (PHC) or bcrypt password hash")]
    Form,
    /// The parameters are outside what is accepted.
    #[error(
        "a password hash with parameters outside of m <= 64 MiB, t <= 8, p <= 4 (Argon2id) or cost 4 to 14 (bcrypt)"
    )]
    Parameters,
}

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PasswordHash(..)")
    }
}

impl PasswordHash {
    /// Validates the text of a hash.
    ///
    /// # Errors
    /// [`PasswordHashError`] for other forms and for costs beyond the bounds.
    pub fn parse(text: &str) -> Result<PasswordHash, PasswordHashError> {
        if text.len() > MAX_BYTES {
            return Err(PasswordHashError::TooLong);
        }
        let scheme = match text.strip_prefix("$argon2id$v=19$") {
            Some(rest) => argon2id(rest)?,
            None => bcrypt(text)?,
        };
        Ok(PasswordHash {
            text: Arc::from(text),
            scheme,
        })
    }

    /// The text: for verifying and for the record, never for people.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// How it was made.
    pub fn scheme(&self) -> HashScheme {
        self.scheme
    }
}

/// `m=…,t=…,p=…$salt$output`.
fn argon2id(rest: &str) -> Result<HashScheme, PasswordHashError> {
    let mut fields = rest.split('$');
    let (Some(parameters), Some(salt), Some(output), None) =
        (fields.next(), fields.next(), fields.next(), fields.next())
    else {
        return Err(PasswordHashError::Form);
    };
    let mut parameters = parameters.split(',');
    let mut parameter = |name: &str| {
        let text = parameters.next().and_then(|field| field.strip_prefix(name));
        text.and_then(decimal).ok_or(PasswordHashError::Form)
    };
    let (memory_kib, passes, lanes) = (parameter("m=")?, parameter("t=")?, parameter("p=")?);
    if parameters.next().is_some() {
        return Err(PasswordHashError::Form);
    }
    for (text, bytes) in [(salt, SALT_BYTES), (output, OUTPUT_BYTES)] {
        if !unpadded_base64_bytes(text).is_some_and(|count| bytes.contains(&count)) {
            return Err(PasswordHashError::Form);
        }
    }
    // RFC 9106 §3.1: at least 8 KiB for each lane.
    let in_bounds = (1..=MAX_LANES).contains(&lanes)
        && (1..=MAX_PASSES).contains(&passes)
        && (8 * lanes..=MAX_MEMORY_KIB).contains(&memory_kib);
    if !in_bounds {
        return Err(PasswordHashError::Parameters);
    }
    Ok(HashScheme::Argon2id {
        memory_kib,
        passes,
        lanes,
    })
}

fn bcrypt(text: &str) -> Result<HashScheme, PasswordHashError> {
    let rest = ["$2a$", "$2b$", "$2y$"]
        .iter()
        .find_map(|prefix| text.strip_prefix(prefix))
        .ok_or(PasswordHashError::Form)?;
    let (cost, tail) = rest.split_once('$').ok_or(PasswordHashError::Form)?;
    let tail_is_text = tail.len() == BCRYPT_TAIL
        && tail
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'/'));
    // Two digits always: `05`.
    if cost.len() != 2 || !cost.bytes().all(|byte| byte.is_ascii_digit()) || !tail_is_text {
        return Err(PasswordHashError::Form);
    }
    let cost = cost.parse().map_err(|_| PasswordHashError::Form)?;
    if !BCRYPT_COSTS.contains(&cost) {
        return Err(PasswordHashError::Parameters);
    }
    Ok(HashScheme::Bcrypt { cost })
}

/// A number as the PHC format writes it: digits, no leading zero, no sign.
fn decimal(text: &str) -> Option<u32> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits || (text.len() > 1 && text.starts_with('0')) {
        return None;
    }
    text.parse().ok()
}

/// How many bytes a base64 text without padding stands for, if it is one.
fn unpadded_base64_bytes(text: &str) -> Option<usize> {
    let alphabet = text
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/'));
    (alphabet && text.len() % 4 != 1).then_some(text.len() * 3 / 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SALT: &str = "c29tZXNhbHRzb21lc2FsdA";
    const OUTPUT: &str = "MTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTI";
    const BCRYPT: &str = "$2a$10$N9qo8uLOickgx2ZMRZoMyeIjZAgcfl7p92ldGxad68LJZdL17lhWy";

    fn argon(parameters: &str) -> Result<HashScheme, PasswordHashError> {
        PasswordHash::parse(&format!("$argon2id$v=19${parameters}${SALT}${OUTPUT}"))
            .map(|hash| hash.scheme())
    }

    #[test]
    fn both_schemes_are_read() {
        assert_eq!(
            argon("m=19456,t=2,p=1"),
            Ok(HashScheme::Argon2id {
                memory_kib: 19456,
                passes: 2,
                lanes: 1
            })
        );
        for form in ["$2a$", "$2b$", "$2y$"] {
            let hash = PasswordHash::parse(&BCRYPT.replace("$2a$", form)).unwrap();
            assert_eq!(hash.scheme(), HashScheme::Bcrypt { cost: 10 });
        }
    }

    #[test]
    fn costs_are_bounded() {
        for parameters in [
            "m=65537,t=2,p=1",
            "m=19456,t=9,p=1",
            "m=19456,t=2,p=5",
            "m=19456,t=0,p=1",
            "m=19456,t=2,p=0",
            "m=15,t=1,p=2",
            "m=4294967295,t=1,p=1",
        ] {
            assert_eq!(
                argon(parameters),
                Err(PasswordHashError::Parameters),
                "{parameters}"
            );
        }
        for cost in ["03", "15", "31", "99"] {
            let refused = PasswordHash::parse(&BCRYPT.replace("$10$", &format!("${cost}$")));
            assert_eq!(refused, Err(PasswordHashError::Parameters), "{cost}");
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for parameters in [
            "m=4294967296,t=1,p=1",
            "m=+9,t=1,p=1",
            "t=1,m=9,p=1",
            "m=09,t=1,p=1",
        ] {
            assert_eq!(
                argon(parameters),
                Err(PasswordHashError::Form),
                "{parameters}"
            );
        }
        let long = format!("{BCRYPT}{}", "x".repeat(300));
        assert_eq!(PasswordHash::parse(&long), Err(PasswordHashError::TooLong));
        for text in [
            "",
            "password",
            "$argon2i$v=19$m=19456,t=2,p=1$c29tZXNhbHQ$MTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMg",
            "$argon2id$v=16$m=19456,t=2,p=1$c29tZXNhbHQ$MTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMg",
            "$argon2id$v=19$m=19456,t=2,p=1$c29t$MTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMg",
            "$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHQ$",
            "$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHQ",
            &BCRYPT[..59],
            &BCRYPT.replace("$2a$", "$2x$"),
            &BCRYPT.replace("$10$", "$+9$"),
        ] {
            assert_eq!(
                PasswordHash::parse(text),
                Err(PasswordHashError::Form),
                "{text}"
            );
        }
    }

    #[test]
    fn a_hash_is_not_shown() {
        let hash = PasswordHash::parse(BCRYPT).unwrap();
        assert_eq!(format!("{hash:?}"), "PasswordHash(..)");
    }
}
