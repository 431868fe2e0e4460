//! Minting.

use super::{
    Algorithm, Claims, KeyError, MAX_TOKEN_BYTES, PublicKey,
    algorithm::Family,
    key::{Key, only_block},
};
use aws_lc_rs::signature::{EcdsaKeyPair, Ed25519KeyPair, KeyPair, RsaKeyPair};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{EncodingKey, crypto::aws_lc};
use serde::Serialize;
use std::fmt;
use zeroize::Zeroizing;

/// A key that mints tokens.
pub struct Signer {
    /// What verifies its tokens.
    key: Key,
    /// `None` for HMAC.
    public: Option<PublicKey>,
    private: EncodingKey,
    /// The encoded header, the same in every token.
    header: String,
}

/// The claims as they stand in a token.
#[derive(Serialize)]
struct Payload<'a> {
    iss: &'a str,
    aud: &'a str,
    sub: &'a str,
    /// What etcd's tokens call the user; clients and tools look at it.
    username: &'a str,
    tenant: &'a str,
    uid: u64,
    epoch: u64,
    credential: u64,
    iat: u64,
    exp: u64,
}

#[derive(Serialize)]
struct Header<'a> {
    alg: &'a str,
    kid: &'a str,
    typ: &'a str,
}

impl Signer {
    /// The Ed25519 key of a seed: 32 bytes from a good source of randomness, kept as secret as the key. The same seed gives the same key.
    ///
    /// # Errors
    /// [`KeyError::Invalid`] if the library does not take it, which no seed is known to bring about.
    pub fn generate(seed: [u8; 32]) -> Result<Signer, KeyError> {
        let seed = Zeroizing::new(seed);
        let invalid = |_| KeyError::Invalid(Algorithm::EdDsa);
        let pair = Ed25519KeyPair::from_seed_unchecked(seed.as_slice()).map_err(invalid)?;
        let mut bytes = [0; 32];
        let public = pair.public_key().as_ref();
        bytes
            .iter_mut()
            .zip(public)
            .for_each(|(to, from)| *to = *from);
        let der = pair
            .to_pkcs8v1()
            .map_err(|_| KeyError::Invalid(Algorithm::EdDsa))?;
        Signer::asymmetric(
            PublicKey::ed25519(bytes)?,
            EncodingKey::from_ed_der(der.as_ref()),
        )
    }

    /// Reads a PEM file with one unencrypted private key: PKCS#8, or PKCS#1 (RSA), or SEC 1 (elliptic curves). For an HMAC algorithm, the
    /// file's bytes are the secret, as in etcd.
    ///
    /// # Errors
    /// [`KeyError`] if the file does not hold one key of the algorithm's kind, or one that is too weak.
    pub fn from_pem(algorithm: Algorithm, file: &[u8]) -> Result<Signer, KeyError> {
        let labels: &[&str] = match algorithm.family() {
            Family::Hmac => {
                let key = Key::secret(algorithm, file)?;
                return Signer::new(key, None, EncodingKey::from_secret(file));
            }
            Family::Ed25519 => &["PRIVATE KEY"],
            Family::Ec => &["PRIVATE KEY", "EC PRIVATE KEY"],
            Family::Rsa => &["PRIVATE KEY", "RSA PRIVATE KEY"],
        };
        let (label, der) = only_block(file, labels, "private key")?;
        let invalid = || KeyError::Invalid(algorithm);
        let (public, private) = match algorithm.family() {
            Family::Rsa => {
                // The library signs with the PKCS#1 form only.
                let pkcs1 = if label == "RSA PRIVATE KEY" {
                    der.as_slice()
                } else {
                    pkcs8_content(&der).ok_or_else(invalid)?
                };
                let pair = RsaKeyPair::from_der(pkcs1).map_err(|_| invalid())?;
                (
                    PublicKey::from_der(algorithm, pair.public_key().as_ref())?,
                    EncodingKey::from_rsa_der(pkcs1),
                )
            }
            Family::Ec => {
                let signing = algorithm.ec_signing().ok_or_else(invalid)?;
                let pair =
                    EcdsaKeyPair::from_private_key_der(signing, &der).map_err(|_| invalid())?;
                let pkcs8 = pair.to_pkcs8v1().map_err(|_| invalid())?;
                (
                    PublicKey::from_der(algorithm, pair.public_key().as_ref())?,
                    EncodingKey::from_ec_der(pkcs8.as_ref()),
                )
            }
            Family::Ed25519 | Family::Hmac => {
                let pair = Ed25519KeyPair::from_pkcs8(&der).map_err(|_| invalid())?;
                (
                    PublicKey::from_der(algorithm, pair.public_key().as_ref())?,
                    EncodingKey::from_ed_der(&der),
                )
            }
        };
        Signer::asymmetric(public, private)
    }

    fn asymmetric(public: PublicKey, private: EncodingKey) -> Result<Signer, KeyError> {
        Signer::new(public.key.clone(), Some(public), private)
    }

    fn new(key: Key, public: Option<PublicKey>, private: EncodingKey) -> Result<Signer, KeyError> {
        let header = encode(&Header {
            alg: key.algorithm().name(),
            kid: key.id(),
            typ: "JWT",
        })?;
        let signer = Signer {
            key,
            public,
            private,
            header,
        };
        // A private key that cannot sign, or not for its public one, is found when it is loaded, not at the first login.
        let message = b"holdfast token self test";
        let signature = signer.sign(message)?;
        if !signer.key.check_signature(message, &signature) {
            return Err(KeyError::Invalid(signer.algorithm()));
        }
        Ok(signer)
    }

    /// The id of the key.
    pub fn kid(&self) -> &str {
        self.key.id()
    }

    /// How it signs.
    pub fn algorithm(&self) -> Algorithm {
        self.key.algorithm()
    }

    /// What others need to verify its tokens; `None` for HMAC, whose secret is nobody else's.
    pub fn public(&self) -> Option<&PublicKey> {
        self.public.as_ref()
    }

    pub(super) fn verifying(&self) -> &Key {
        &self.key
    }

    /// A token that says `claims`.
    ///
    /// # Errors
    /// [`KeyError::Signing`] if the library fails, or the token would be longer than a verifier takes.
    pub fn mint(&self, claims: &Claims, issuer: &str, audience: &str) -> Result<String, KeyError> {
        let claims = encode(&Payload {
            iss: issuer,
            aud: audience,
            sub: &claims.user,
            username: &claims.user,
            tenant: &claims.tenant,
            uid: claims.user_id,
            epoch: claims.epoch,
            credential: claims.credential,
            iat: claims.issued_at,
            exp: claims.expires_at,
        })?;
        let mut token = format!("{}.{claims}", self.header);
        let signature = self.sign(token.as_bytes())?;
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(&signature, &mut token);
        (token.len() <= MAX_TOKEN_BYTES)
            .then_some(token)
            .ok_or(KeyError::Signing)
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        let algorithm = self.algorithm().library();
        let signer = (aws_lc::DEFAULT_PROVIDER.signer_factory)(&algorithm, &self.private)
            .map_err(|_| KeyError::Signing)?;
        signer.try_sign(message).map_err(|_| KeyError::Signing)
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signer")
            .field("kid", &self.kid())
            .field("algorithm", &self.algorithm())
            .finish_non_exhaustive()
    }
}

fn encode(part: &impl Serialize) -> Result<String, KeyError> {
    let json = serde_json::to_vec(part).map_err(|_| KeyError::Signing)?;
    Ok(URL_SAFE_NO_PAD.encode(json))
}

/// The key inside a PKCS#8 `PrivateKeyInfo` (RFC 5208): the octet string behind version and algorithm. What it holds is judged by who
/// reads it.
fn pkcs8_content(der: &[u8]) -> Option<&[u8]> {
    const INTEGER: u8 = 0x02;
    const OCTET_STRING: u8 = 0x04;
    const SEQUENCE: u8 = 0x30;
    let (info, _) = der_element(der, SEQUENCE)?;
    let (_, rest) = der_element(info, INTEGER)?;
    let (_, rest) = der_element(rest, SEQUENCE)?;
    Some(der_element(rest, OCTET_STRING)?.0)
}

/// The content of a leading DER element with this tag, and what follows the element.
fn der_element(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&found, rest) = bytes.split_first()?;
    let (&length, rest) = rest.split_first()?;
    let (length, rest) = match length {
        0..=0x7f => (usize::from(length), rest),
        // One or two bytes of length: a key file has at most 64 KiB.
        0x81 | 0x82 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(length & 0x0f))?;
            let length = bytes
                .iter()
                .fold(0, |sum, byte| sum << 8 | usize::from(*byte));
            (length, rest)
        }
        _ => return None,
    };
    (found == tag).then_some(())?;
    rest.split_at_checked(length)
}
