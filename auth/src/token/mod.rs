//! Signed tokens: minting our own, verifying ours and those of an external issuer (RFC 7515, 7518, 7519).
//!
//! `jsonwebtoken` signs and checks signatures, always with the algorithm that a key is pinned to. What stands around that is done here,
//! because it has to be stricter than the library's: the form of a token, duplicate members, `crit`, the choice of the key, and the times,
//! which are compared with a time that the caller passes.
//!
//! Nothing here reads a clock or a file. Randomness comes from outside, too, but for the nonces of ECDSA and PSS signatures, which aws-lc
//! draws itself: a caller who could choose them could learn the key.

mod algorithm;
mod flag;
mod frame;
mod issuer;
pub mod jwks;
mod key;
mod object;
mod signer;
mod verifier;

pub use algorithm::{Algorithm, AlgorithmError};
pub use flag::{DEFAULT_TTL, FlagError, MAX_TTL, TokenOptions, parse_auth_token_flag};
pub use issuer::ExternalIssuer;
pub use key::{KeyError, PublicKey};
pub use signer::Signer;
pub use verifier::Verifier;

/// The longest token that is looked at, in bytes. Ours are below 1 KiB; those of external issuers with 64 roles below 4.
pub const MAX_TOKEN_BYTES: usize = 8 * 1024;

/// How far `iat` and `nbf` may lie ahead of the time here, in seconds: issuers' clocks are not exact. `exp` has no such leeway.
pub const CLOCK_LEEWAY_SECONDS: u64 = 60;

/// What a token of ours says. Times are seconds since 1970 (UTC).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claims {
    /// Name of the user (`sub`, and `username`, where etcd has it).
    pub user: String,
    /// The user's id (`uid`), so that a user made anew under the same name is another one.
    pub user_id: u64,
    /// The tenant that the user belongs to (`tenant`).
    pub tenant: String,
    /// The user's epoch when the token was minted (`epoch`).
    pub epoch: u64,
    /// The user's credential epoch when the token was minted (`credential`).
    pub credential: u64,
    /// When the token was minted (`iat`).
    pub issued_at: u64,
    /// The first second at which the token is no longer valid (`exp`).
    pub expires_at: u64,
}

/// A token that passed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verified {
    /// Minted by this cluster. Whether user and epochs are still current is for the auth state to say.
    Ours(Claims),
    /// Minted by an [`ExternalIssuer`].
    External {
        /// The user, from the issuer's user claim; never `root`.
        user: String,
        /// The roles, from the issuer's roles claim, each once; never `root`.
        roles: Vec<String>,
        /// The first second at which the token is no longer valid.
        expires_at: u64,
    },
}

/// Why a token was refused: for logs and the audit. A client learns `invalid auth token` and no more. Never holds anything of the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Longer than [`MAX_TOKEN_BYTES`].
    #[error("the token is too long")]
    TooLong,
    /// Not three parts in canonical base64url, or not JSON objects without duplicate members.
    #[error("the token is malformed")]
    Malformed,
    /// The header demands an extension (`crit`); none is understood.
    #[error("the token demands an extension")]
    Critical,
    /// The header's `alg` is not the one that the key is pinned to, or is missing.
    #[error("the token's algorithm is not its key's")]
    Algorithm,
    /// The header's `kid` is missing or names no key of the issuer.
    #[error("the token's key is not known")]
    UnknownKey,
    /// The key was retired.
    #[error("the token's key was retired")]
    RetiredKey,
    /// The signature does not fit.
    #[error("the token's signature is wrong")]
    Signature,
    /// `iss` is neither ours nor that of an external issuer.
    #[error("the token's issuer is not trusted")]
    Issuer,
    /// `aud` does not name us.
    #[error("the token is for another audience")]
    Audience,
    /// `tenant` is another tenant.
    #[error("the token is for another tenant")]
    Tenant,
    /// `exp` has passed.
    #[error("the token has expired")]
    Expired,
    /// `iat` or `nbf` lies more than [`CLOCK_LEEWAY_SECONDS`] ahead.
    #[error("the token is not valid yet")]
    NotYetValid,
    /// A claim is missing, has the wrong type or a value out of bounds.
    #[error("the token's claim {0} is missing or unusable")]
    Claim(&'static str),
    /// An external issuer's token names the user `root`, who can only be a user of ours.
    #[error("the token of an external issuer names root")]
    ExternalRoot,
}
