//! Key sets of external issuers (RFC 7517): a file with public keys.
//!
//! A key is pinned to one algorithm. What can verify nothing here – encryption keys, kinds of key and algorithms that are not offered – is
//! passed over and told; what is wrong – a secret, a private half, a weak or damaged key, a key that cannot be named – refuses the file,
//! so that nobody finds out by refused logins.

use super::{Algorithm, KeyError, algorithm::Family, key::Key};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, de::IgnoredAny};
use std::{collections::BTreeMap, fmt, sync::Arc};

/// The longest file, in bytes.
pub const MAX_BYTES: usize = 256 * 1024;

/// Most keys in a file, those that are passed over included.
pub const MAX_KEYS: usize = 64;

/// The longest key id, in bytes.
const MAX_KEY_ID_BYTES: usize = 256;

/// The keys of one issuer.
#[derive(Clone)]
pub struct KeySet {
    keys: BTreeMap<Arc<str>, Key>,
    ignored: Vec<Ignored>,
}

/// A key of the file that is not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ignored {
    /// Its place in the file, from 0.
    pub index: usize,
    /// Why.
    pub reason: &'static str,
}

/// Why a file was refused. Keys are named by their place in the file, from 0; nothing of them is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JwksError {
    /// Longer than [`MAX_BYTES`].
    #[error("the key set is longer than 256 KiB")]
    TooLong,
    /// Not JSON, or not of the form of RFC 7517.
    #[error("the file is not a JSON key set (an object with a list \"keys\")")]
    Malformed,
    /// More than [`MAX_KEYS`].
    #[error("the key set has more than 64 keys")]
    TooManyKeys,
    /// A symmetric key: whoever could verify with it could mint with it.
    #[error("key {0} is symmetric; an issuer's key set has public keys only")]
    Symmetric(usize),
    /// A private key.
    #[error("key {0} has its private half in the file; it must be considered as known to others")]
    Private(usize),
    /// A key without a usable `kid`: no token could name it.
    #[error("key {0} has no kid, or one of more than 256 bytes")]
    KeyId(usize),
    /// Two keys with one `kid`.
    #[error("key {0} has the kid of an earlier one")]
    DuplicateKeyId(usize),
    /// `alg` and the key do not belong together.
    #[error("key {0} is not of the kind that its alg needs")]
    Algorithm(usize),
    /// A key that is damaged or too weak.
    #[error("key {0}: {1}")]
    Key(usize, KeyError),
    /// No key can verify anything.
    #[error("the key set has no key to verify tokens with")]
    Empty,
}

/// Reads a key set.
///
/// # Errors
/// [`JwksError`]; for any bytes, and never a panic.
pub fn parse(bytes: &[u8]) -> Result<KeySet, JwksError> {
    if bytes.len() > MAX_BYTES {
        return Err(JwksError::TooLong);
    }
    let file: File = serde_json::from_slice(bytes).map_err(|_| JwksError::Malformed)?;
    if file.keys.len() > MAX_KEYS {
        return Err(JwksError::TooManyKeys);
    }
    let mut set = KeySet {
        keys: BTreeMap::new(),
        ignored: Vec::new(),
    };
    for (index, jwk) in file.keys.iter().enumerate() {
        match jwk.read(index)? {
            Ok(key) => {
                if set.keys.insert(key.id().clone(), key).is_some() {
                    return Err(JwksError::DuplicateKeyId(index));
                }
            }
            Err(reason) => set.ignored.push(Ignored { index, reason }),
        }
    }
    if set.keys.is_empty() {
        return Err(JwksError::Empty);
    }
    Ok(set)
}

impl KeySet {
    /// How many keys verify. Never none.
    #[allow(clippy::len_without_is_empty, reason = "an empty set cannot be made")]
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// The keys of the file that were passed over: for a line in the log.
    pub fn ignored(&self) -> &[Ignored] {
        &self.ignored
    }

    pub(super) fn find(&self, id: &str) -> Option<&Key> {
        self.keys.get(id)
    }
}

impl fmt::Debug for KeySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.keys.keys()).finish()
    }
}

#[derive(Deserialize)]
struct File {
    keys: Vec<Jwk>,
}

/// The members of a key that matter here. The derived reader refuses duplicates of them.
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    purpose: Option<String>,
    key_ops: Option<Vec<String>>,
    crv: Option<String>,
    x: Option<String>,
    y: Option<String>,
    n: Option<String>,
    e: Option<String>,
    /// The private half, of any kind of key.
    d: Option<IgnoredAny>,
    /// A symmetric key.
    k: Option<IgnoredAny>,
}

impl Jwk {
    /// The key, or why it is passed over.
    fn read(&self, index: usize) -> Result<Result<Key, &'static str>, JwksError> {
        if self.kty == "oct" || self.k.is_some() {
            return Err(JwksError::Symmetric(index));
        }
        if self.d.is_some() {
            return Err(JwksError::Private(index));
        }
        if self
            .purpose
            .as_ref()
            .is_some_and(|purpose| purpose != "sig")
        {
            return Ok(Err("its use is not sig"));
        }
        let operations = self.key_ops.as_ref();
        if operations.is_some_and(|all| all.iter().all(|one| one != "verify")) {
            return Ok(Err("verify is not among its key_ops"));
        }
        let natural = match (self.kty.as_str(), self.crv.as_deref()) {
            ("RSA", _) => Algorithm::Rs256,
            ("EC", Some("P-256")) => Algorithm::Es256,
            ("EC", Some("P-384")) => Algorithm::Es384,
            ("OKP", Some("Ed25519")) => Algorithm::EdDsa,
            _ => return Ok(Err("keys of its kty and crv are not supported")),
        };
        let algorithm = match self.alg.as_deref().map(Algorithm::from_name) {
            None => natural,
            Some(Err(_)) => return Ok(Err("its alg is not supported")),
            Some(Ok(named)) if named == natural => named,
            // RSA keys alone leave a choice.
            Some(Ok(named)) if natural.family() == Family::Rsa && named.family() == Family::Rsa => {
                named
            }
            Some(Ok(_)) => return Err(JwksError::Algorithm(index)),
        };
        let id = self.kid.as_deref();
        let id = id
            .filter(|id| (1..=MAX_KEY_ID_BYTES).contains(&id.len()))
            .ok_or(JwksError::KeyId(index))?;
        let key = self.key(algorithm, id);
        key.map(Ok).map_err(|error| JwksError::Key(index, error))
    }

    fn key(&self, algorithm: Algorithm, id: &str) -> Result<Key, KeyError> {
        let bytes = |member: &Option<String>| {
            let text = member.as_deref().filter(|text| !text.is_empty());
            let decoded = text.and_then(|text| URL_SAFE_NO_PAD.decode(text).ok());
            decoded.ok_or(KeyError::Invalid(algorithm))
        };
        match algorithm.family() {
            Family::Rsa => Key::rsa(algorithm, &bytes(&self.n)?, &bytes(&self.e)?, id),
            Family::Ed25519 => {
                let x = bytes(&self.x)?;
                // Longer encodings of the key are for key files, not for this member.
                if x.len() != 32 {
                    return Err(KeyError::Invalid(algorithm));
                }
                Key::public(algorithm, &x, Some(id))
            }
            Family::Ec | Family::Hmac => {
                let field_bytes = if algorithm == Algorithm::Es256 {
                    32
                } else {
                    48
                };
                let (x, y) = (bytes(&self.x)?, bytes(&self.y)?);
                if x.len() != field_bytes || y.len() != field_bytes {
                    return Err(KeyError::Invalid(algorithm));
                }
                // An uncompressed point (SEC 1, 2.3.3).
                let point = [&[4], x.as_slice(), y.as_slice()].concat();
                Key::public(algorithm, &point, Some(id))
            }
        }
    }
}
