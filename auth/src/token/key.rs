//! Keys that verify: public ones, and for HMAC the secret itself.

use super::{Algorithm, AlgorithmError, TokenError, algorithm::Family, frame::Frame};
use aws_lc_rs::{
    digest,
    encoding::{AsDer, PublicKeyX509Der},
    hmac, rsa,
    signature::{ParsedPublicKey, RsaPublicKeyComponents},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{DecodingKey, crypto::aws_lc};
use std::{fmt, sync::Arc};
use zeroize::Zeroizing;

/// The smallest RSA key, in bits (RFC 7518, 3.3).
const MIN_RSA_BITS: usize = 2048;

/// The largest RSA key, in bits: what aws-lc verifies with. Larger ones cost more than they give.
const MAX_RSA_BITS: usize = 8192;

/// The longest key file, in bytes. An RSA key of 8,192 bits with its PEM is below 7 KiB.
const MAX_KEY_FILE_BYTES: usize = 64 * 1024;

/// Bytes of a digest that a key id keeps: 128 bits name a key beyond doubt, and stay short in every token.
const KEY_ID_BYTES: usize = 16;

/// Why a key cannot be used. Never holds anything of the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The algorithm is none of ours.
    #[error(transparent)]
    Algorithm(#[from] AlgorithmError),
    /// The file is too long.
    #[error("the key file is longer than 64 KiB")]
    TooLong,
    /// The file is not PEM.
    #[error("the key file is not PEM")]
    NotPem,
    /// The file does not hold exactly one key.
    #[error("the key file must hold exactly one {0}")]
    NotOneKey(&'static str),
    /// The key is encrypted; nobody could enter its password.
    #[error("the private key is encrypted")]
    Encrypted,
    /// The key is not one of this algorithm, or damaged.
    #[error("the key is not a valid {0} key")]
    Invalid(Algorithm),
    /// The RSA key's size.
    #[error("the RSA key has {0} bits; at least 2048 and at most 8192 are needed")]
    RsaBits(usize),
    /// The HMAC secret is shorter than the hash.
    #[error("the secret is too short: {0} needs at least {1} bytes")]
    ShortSecret(Algorithm, usize),
    /// What was given as a secret is a public key or a certificate, which anybody may know.
    #[error("the secret is a public key or a certificate")]
    PublicSecret,
    /// The algorithm is symmetric and has no public keys.
    #[error("{0} has no public key")]
    NoPublicKey(Algorithm),
    /// Another key with the same id and issuer is there already.
    #[error("two different keys have the same id")]
    DuplicateKeyId,
    /// More keys or issuers than a verifier holds.
    #[error("too many keys or issuers")]
    TooMany,
    /// An external issuer's name is empty, ours, or another external issuer's; or its audience or a claim's name is empty.
    #[error("the issuer's name is empty or taken, or its audience or a claim's name is empty")]
    Issuer,
    /// The library could not sign.
    #[error("the token could not be signed")]
    Signing,
}

/// A key with the one algorithm that it is used for, and its id.
#[derive(Clone)]
pub(super) struct Key {
    algorithm: Algorithm,
    id: Arc<str>,
    /// SHA-256 of the `SubjectPublicKeyInfo`; for a secret, a keyed one.
    digest: [u8; 32],
    material: Arc<DecodingKey>,
}

impl Key {
    pub(super) fn id(&self) -> &Arc<str> {
        &self.id
    }

    pub(super) fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Whether `other` verifies what this key verifies.
    pub(super) fn is_same(&self, other: &Key) -> bool {
        self.algorithm == other.algorithm && self.digest == other.digest
    }

    /// A public key in DER (`SubjectPublicKeyInfo`, or PKCS#1 for RSA), as an uncompressed point, or raw for Ed25519. Everything that makes a
    /// key unusable is found here, not when the first token comes.
    ///
    /// `id`: the id to go by; without, a digest of the key.
    pub(super) fn public(
        algorithm: Algorithm,
        bytes: &[u8],
        id: Option<&str>,
    ) -> Result<Key, KeyError> {
        let invalid = || KeyError::Invalid(algorithm);
        let verification = algorithm
            .verification()
            .ok_or(KeyError::NoPublicKey(algorithm))?;
        let parsed = ParsedPublicKey::new(verification, bytes).map_err(|_| invalid())?;
        let info: PublicKeyX509Der<'_> = parsed.as_der().map_err(|_| invalid())?;
        let material = match algorithm.family() {
            Family::Rsa => {
                let key = rsa::PublicKey::from_der(bytes).map_err(|_| invalid())?;
                let modulus = key.modulus().big_endian_without_leading_zero();
                let spare = modulus.first().map_or(0, |byte| byte.leading_zeros());
                let bits = modulus.len() * 8 - spare as usize;
                if !(MIN_RSA_BITS..=MAX_RSA_BITS).contains(&bits) {
                    return Err(KeyError::RsaBits(bits));
                }
                DecodingKey::from_rsa_der(key.as_ref())
            }
            Family::Ec => DecodingKey::from_ec_der(bytes),
            // The key stands at the end (RFC 8410). The library reads it from 32 bytes in half the time that it takes from DER, and does so for
            // every token.
            Family::Ed25519 => {
                let key = info.as_ref().last_chunk::<32>().ok_or_else(invalid)?;
                DecodingKey::from_ed_der(key)
            }
            Family::Hmac => return Err(KeyError::NoPublicKey(algorithm)),
        };
        let digest = fixed(digest::digest(&digest::SHA256, info.as_ref()).as_ref());
        Ok(Key {
            algorithm,
            id: id.map_or_else(|| key_id(&digest), Arc::from),
            digest,
            material: Arc::new(material),
        })
    }

    /// An RSA key by modulus and exponent, big-endian.
    pub(super) fn rsa(algorithm: Algorithm, n: &[u8], e: &[u8], id: &str) -> Result<Key, KeyError> {
        let info: PublicKeyX509Der<'_> = RsaPublicKeyComponents { n, e }
            .as_der()
            .map_err(|_| KeyError::Invalid(algorithm))?;
        Key::public(algorithm, info.as_ref(), Some(id))
    }

    /// The secret of an HMAC algorithm.
    pub(super) fn secret(algorithm: Algorithm, secret: &[u8]) -> Result<Key, KeyError> {
        let least = algorithm.min_secret_bytes();
        if !algorithm.is_symmetric() {
            return Err(KeyError::Invalid(algorithm));
        }
        if secret.len() > MAX_KEY_FILE_BYTES {
            return Err(KeyError::TooLong);
        }
        if secret.len() < least {
            return Err(KeyError::ShortSecret(algorithm, least));
        }
        // The server's side of the attack with a public key as secret: an operator who changes only `sign-method`.
        let text = String::from_utf8_lossy(secret);
        if ["PUBLIC KEY-----", "CERTIFICATE-----"]
            .iter()
            .any(|end| text.contains(end))
        {
            return Err(KeyError::PublicSecret);
        }
        // A plain digest of the secret would let guesses be checked without a token.
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
        let digest = fixed(hmac::sign(&key, b"holdfast token key id").as_ref());
        Ok(Key {
            algorithm,
            id: key_id(&digest),
            digest,
            material: Arc::new(DecodingKey::from_secret(secret)),
        })
    }

    /// Checks the algorithm that the header names, then the signature.
    pub(super) fn check(&self, frame: &Frame<'_>) -> Result<(), TokenError> {
        if frame.algorithm()? != self.algorithm.name() {
            return Err(TokenError::Algorithm);
        }
        self.check_signature(frame.message, &frame.signature)
            .then_some(())
            .ok_or(TokenError::Signature)
    }

    pub(super) fn check_signature(&self, message: &[u8], signature: &Vec<u8>) -> bool {
        // The provider is named, not taken from the process: the library's default panics when features of other crates make it ambiguous.
        let verifier =
            (aws_lc::DEFAULT_PROVIDER.verifier_factory)(&self.algorithm.library(), &self.material);
        verifier.is_ok_and(|verifier| verifier.verify(message, signature).is_ok())
    }
}

/// The bytes of a SHA-256, which has always this many.
fn fixed(digest: &[u8]) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes
        .iter_mut()
        .zip(digest)
        .for_each(|(to, from)| *to = *from);
    bytes
}

fn key_id(digest: &[u8; 32]) -> Arc<str> {
    URL_SAFE_NO_PAD.encode(&digest[..KEY_ID_BYTES]).into()
}

/// A public key that verifies tokens of ours. Knowing it lets nobody mint one.
#[derive(Clone)]
pub struct PublicKey {
    pub(super) key: Key,
    ed25519: Option<[u8; 32]>,
}

impl PublicKey {
    /// An Ed25519 key from its 32 bytes (RFC 8032), as the log carries it.
    ///
    /// # Errors
    /// [`KeyError::Invalid`] if the library does not take it.
    pub fn ed25519(bytes: [u8; 32]) -> Result<PublicKey, KeyError> {
        Ok(PublicKey {
            key: Key::public(Algorithm::EdDsa, &bytes, None)?,
            ed25519: Some(bytes),
        })
    }

    /// Reads a PEM file with one `PUBLIC KEY`, or `RSA PUBLIC KEY`.
    ///
    /// # Errors
    /// [`KeyError`] if the file does not hold one key of the algorithm's kind, or one that is too weak.
    pub fn from_pem(algorithm: Algorithm, file: &[u8]) -> Result<PublicKey, KeyError> {
        if algorithm.is_symmetric() {
            return Err(KeyError::NoPublicKey(algorithm));
        }
        let labels: &[&str] = match algorithm.family() {
            Family::Rsa => &["PUBLIC KEY", "RSA PUBLIC KEY"],
            _ => &["PUBLIC KEY"],
        };
        let (_, der) = only_block(file, labels, "public key")?;
        PublicKey::from_der(algorithm, &der)
    }

    pub(super) fn from_der(algorithm: Algorithm, der: &[u8]) -> Result<PublicKey, KeyError> {
        Ok(PublicKey {
            key: Key::public(algorithm, der, None)?,
            ed25519: None,
        })
    }

    /// The key's id: 128 bits of a SHA-256 of its `SubjectPublicKeyInfo`, in base64url. The same key has the same id everywhere.
    pub fn kid(&self) -> &str {
        self.key.id()
    }

    /// What it verifies.
    pub fn algorithm(&self) -> Algorithm {
        self.key.algorithm()
    }

    /// The 32 bytes of a key that was made from them; `None` for keys from files.
    pub fn ed25519_bytes(&self) -> Option<[u8; 32]> {
        self.ed25519
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PublicKey")
            .field("kid", &self.kid())
            .field("algorithm", &self.algorithm())
            .finish_non_exhaustive()
    }
}

/// The label and content of the one block of a PEM file that has one of the labels.
pub(super) fn only_block(
    file: &[u8],
    labels: &[&str],
    wanted: &'static str,
) -> Result<(String, Zeroizing<Vec<u8>>), KeyError> {
    if file.len() > MAX_KEY_FILE_BYTES {
        return Err(KeyError::TooLong);
    }
    let mut found = None;
    for block in pem::parse_many(file).map_err(|_| KeyError::NotPem)? {
        let label = block.tag().to_owned();
        let content = Zeroizing::new(block.into_contents());
        match label.as_str() {
            "ENCRYPTED PRIVATE KEY" => return Err(KeyError::Encrypted),
            // `openssl ecparam -genkey` writes the curve before the key, which names it again.
            "EC PARAMETERS" => {}
            _ if labels.contains(&label.as_str()) && found.is_none() => {
                found = Some((label, content));
            }
            _ => return Err(KeyError::NotOneKey(wanted)),
        }
    }
    found.ok_or(KeyError::NotOneKey(wanted))
}
