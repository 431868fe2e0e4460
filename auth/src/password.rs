//! Passwords: hashing and verifying. Both are slow on purpose and need memory; the caller bounds how many run at once.
//!
//! New hashes are Argon2id (RFC 9106). A bcrypt hash, imported from etcd, is verified, and then worth replacing ([`needs_upgrade`]).

use crate::{HashScheme, PasswordHash};
use argon2::{
    Algorithm, Argon2, Params, Version,
    password_hash::{PasswordHasher, PasswordVerifier, phc},
};

/// The longest password, in bytes. Argon2 takes any length; this one keeps a caller from making us carry megabytes.
pub const MAX_PASSWORD_BYTES: usize = 4096;

/// How much of a password bcrypt looks at. etcd refuses to hash a longer one.
const BCRYPT_BYTES: usize = 72;

/// Bytes of a bcrypt state: four tables of 256 words and 18 words.
const BCRYPT_MEMORY_BYTES: u64 = (4 * 256 + 18) * 4;

/// Bytes of an Argon2id output: as strong as the rest.
const OUTPUT_BYTES: usize = 32;

/// What a new hash costs. Never less than 19 MiB, two passes and one lane, the least that OWASP's password storage sheet advises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HashParams {
    memory_kib: u32,
    passes: u32,
    lanes: u32,
}

/// Why a password was not hashed. Holds nothing of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HashError {
    /// The costs are below the least, or above what an import may have.
    #[error("a password hash needs 19 to 64 MiB, 2 to 8 passes and 1 to 4 lanes")]
    Params,
    /// Longer than [`MAX_PASSWORD_BYTES`].
    #[error("the password is longer than {MAX_PASSWORD_BYTES} bytes")]
    TooLong,
    /// There was no memory for it, or the library failed.
    #[error("the password could not be hashed")]
    Failed,
}

impl HashParams {
    /// Costs other than the default.
    ///
    /// # Errors
    /// [`HashError::Params`] unless the memory is 19,456 to 65,536 KiB, passes are 2 to 8 and lanes 1 to 4.
    pub fn new(memory_kib: u32, passes: u32, lanes: u32) -> Result<HashParams, HashError> {
        let least = HashParams::default();
        let fits = (least.memory_kib..=64 * 1024).contains(&memory_kib)
            && (least.passes..=8).contains(&passes)
            && (least.lanes..=4).contains(&lanes);
        fits.then_some(HashParams {
            memory_kib,
            passes,
            lanes,
        })
        .ok_or(HashError::Params)
    }

    fn argon2(&self) -> Result<Argon2<'static>, HashError> {
        let params = Params::new(self.memory_kib, self.passes, self.lanes, Some(OUTPUT_BYTES));
        let params = params.map_err(|_| HashError::Params)?;
        Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
    }
}

impl Default for HashParams {
    fn default() -> HashParams {
        HashParams {
            memory_kib: 19 * 1024,
            passes: 2,
            lanes: 1,
        }
    }
}

/// Hashes a password. `salt` comes from a good source of randomness and is never used twice.
///
/// # Errors
/// [`HashError`] for a password that is too long, and when memory is short.
pub fn hash_argon2id(
    password: &[u8],
    salt: [u8; 16],
    params: &HashParams,
) -> Result<PasswordHash, HashError> {
    if password.len() > MAX_PASSWORD_BYTES {
        return Err(HashError::TooLong);
    }
    let hash: phc::PasswordHash = params
        .argon2()?
        .hash_password_with_salt(password, &salt)
        .map_err(|_| HashError::Failed)?;
    PasswordHash::parse(&hash.to_string()).map_err(|_| HashError::Failed)
}

/// Whether `password` is the one that was hashed. The outputs are compared in constant time.
///
/// A password that bcrypt would not tell from another one – longer than 72 bytes, or with a zero byte – never fits a bcrypt hash; it costs
/// the same as one that could, so that the time does not tell how a user's password is kept.
pub fn verify(password: &[u8], hash: &PasswordHash) -> bool {
    if password.len() > MAX_PASSWORD_BYTES {
        return false;
    }
    match hash.scheme() {
        HashScheme::Argon2id { .. } => phc::PasswordHash::new(hash.as_str())
            .is_ok_and(|hash| Argon2::default().verify_password(password, &hash).is_ok()),
        HashScheme::Bcrypt { .. } => {
            let fits = bcrypt::verify(password, hash.as_str()).unwrap_or(false);
            fits && password.len() <= BCRYPT_BYTES && !password.contains(&0)
        }
    }
}

/// Whether a password that was just verified should be hashed anew: bcrypt, and Argon2id below the default costs.
pub fn needs_upgrade(hash: &PasswordHash) -> bool {
    let least = HashParams::default();
    match hash.scheme() {
        HashScheme::Argon2id {
            memory_kib, passes, ..
        } => memory_kib < least.memory_kib || passes < least.passes,
        HashScheme::Bcrypt { .. } => true,
    }
}

/// A hash that no password is known to fit, and that costs as much to verify as one with these costs: for names that no user has, so that
/// time does not tell which exist.
///
/// # Errors
/// [`HashError::Failed`] if the text cannot be made, which no costs are known to bring about.
pub fn decoy(params: &HashParams) -> Result<PasswordHash, HashError> {
    // Salt and output of zero bytes: finding a password for this output is as hard as for any other.
    let HashParams {
        memory_kib,
        passes,
        lanes,
    } = params;
    let (salt, output) = ("A".repeat(22), "A".repeat(43));
    let text = format!("$argon2id$v=19$m={memory_kib},t={passes},p={lanes}${salt}${output}");
    PasswordHash::parse(&text).map_err(|_| HashError::Failed)
}

/// How many bytes of memory verifying this hash takes.
pub fn memory_bytes(hash: &PasswordHash) -> u64 {
    match hash.scheme() {
        HashScheme::Argon2id { memory_kib, .. } => u64::from(memory_kib) * 1024,
        HashScheme::Bcrypt { .. } => BCRYPT_MEMORY_BYTES,
    }
}
