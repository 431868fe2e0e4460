//! The value of `--auth-token`, as etcd has it: `simple`, or `jwt` with options.

use super::{Algorithm, AlgorithmError};
use std::{path::PathBuf, time::Duration};

/// How long a token lives unless `ttl` says otherwise: etcd's five minutes.
pub const DEFAULT_TTL: Duration = Duration::from_secs(5 * 60);

/// The longest life of a token: a stolen one that nobody misses is dead after it.
pub const MAX_TTL: Duration = Duration::from_secs(30 * 24 * 3600);

/// The longest value, in bytes: two paths and some words.
const MAX_BYTES: usize = 16 * 1024;

/// What the flag asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenOptions {
    /// The empty value: no tokens.
    None,
    /// Tokens with keys of our own making.
    Simple,
    /// Tokens with the operator's keys.
    Jwt {
        /// How they are signed.
        sign_method: Algorithm,
        /// File with the public key.
        pub_key: Option<PathBuf>,
        /// File with the private key, or with the secret of an HMAC method. Without, tokens are verified and never minted.
        priv_key: Option<PathBuf>,
        /// Life of a token: whole seconds, at least one.
        ttl: Duration,
    },
}

/// Why the value is not usable. Option names are of our list, so that nothing of the value is repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FlagError {
    /// Longer than any real value.
    #[error("the value is too long")]
    TooLong,
    /// Neither `simple` nor `jwt`.
    #[error("unknown token type; known are simple and jwt")]
    Type,
    /// `simple` with options.
    #[error("simple takes no options")]
    SimpleOptions,
    /// Not `option=value`, or an unknown option.
    #[error("options of jwt are sign-method=, pub-key=, priv-key= and ttl=, separated by commas")]
    Option,
    /// An option twice.
    #[error("{0} is given twice")]
    Twice(&'static str),
    /// An option without a value.
    #[error("{0} has no value")]
    NoValue(&'static str),
    /// `jwt` without `sign-method`.
    #[error("jwt needs sign-method")]
    NoMethod,
    /// A sign-method that cannot be used.
    #[error(transparent)]
    Method(#[from] AlgorithmError),
    /// Neither key.
    #[error("jwt needs priv-key to mint tokens, or pub-key to verify only")]
    NoKey,
    /// An HMAC method without its secret.
    #[error("{0} needs priv-key, the file with the secret")]
    NoSecret(Algorithm),
    /// An HMAC method with a public key.
    #[error("{0} has no public key; pub-key cannot be given")]
    NoPublicKey(Algorithm),
    /// Not a duration, or one out of bounds.
    #[error("ttl must be a duration of whole seconds such as 5m, between 1s and 720h")]
    Ttl,
}

/// Reads the flag. Opens no file.
///
/// `duration` reads a duration in Go's spelling; the configuration has that function.
///
/// # Errors
/// [`FlagError`]; for any text, and never a panic.
pub fn parse_auth_token_flag(
    text: &str,
    duration: impl Fn(&str) -> Option<Duration>,
) -> Result<TokenOptions, FlagError> {
    if text.len() > MAX_BYTES {
        return Err(FlagError::TooLong);
    }
    let (kind, options) = match text.split_once(',') {
        Some((kind, options)) => (kind, Some(options)),
        None => (text, None),
    };
    match (kind, options) {
        ("", None) => Ok(TokenOptions::None),
        ("simple", None) => Ok(TokenOptions::Simple),
        ("simple", Some(_)) => Err(FlagError::SimpleOptions),
        ("jwt", options) => parse_jwt(options.ok_or(FlagError::NoMethod)?, duration),
        _ => Err(FlagError::Type),
    }
}

fn parse_jwt(
    options: &str,
    duration: impl Fn(&str) -> Option<Duration>,
) -> Result<TokenOptions, FlagError> {
    let (mut method, mut pub_key, mut priv_key, mut ttl) = (None, None, None, None);
    for option in options.split(',') {
        let (name, value) = option.split_once('=').ok_or(FlagError::Option)?;
        let (name, place) = match name {
            "sign-method" => ("sign-method", &mut method),
            "pub-key" => ("pub-key", &mut pub_key),
            "priv-key" => ("priv-key", &mut priv_key),
            "ttl" => ("ttl", &mut ttl),
            _ => return Err(FlagError::Option),
        };
        if value.is_empty() {
            return Err(FlagError::NoValue(name));
        }
        if place.replace(value).is_some() {
            return Err(FlagError::Twice(name));
        }
    }
    let sign_method = Algorithm::from_name(method.ok_or(FlagError::NoMethod)?)?;
    match (sign_method.is_symmetric(), pub_key, priv_key) {
        (true, Some(_), _) => return Err(FlagError::NoPublicKey(sign_method)),
        (true, None, None) => return Err(FlagError::NoSecret(sign_method)),
        (false, None, None) => return Err(FlagError::NoKey),
        _ => {}
    }
    let ttl = match ttl {
        Some(text) => duration(text).ok_or(FlagError::Ttl)?,
        None => DEFAULT_TTL,
    };
    let whole_seconds = ttl.subsec_nanos() == 0;
    if !whole_seconds || !(Duration::from_secs(1)..=MAX_TTL).contains(&ttl) {
        return Err(FlagError::Ttl);
    }
    Ok(TokenOptions::Jwt {
        sign_method,
        pub_key: pub_key.map(PathBuf::from),
        priv_key: priv_key.map(PathBuf::from),
        ttl,
    })
}
