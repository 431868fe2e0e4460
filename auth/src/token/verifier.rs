//! Verifying.

use super::{
    CLOCK_LEEWAY_SECONDS, Claims, ExternalIssuer, KeyError, PublicKey, Signer, TokenError,
    Verified, frame::Frame, issuer::is_name, key::Key, object::Object,
};
use std::{collections::BTreeMap, sync::Arc};

/// Most keys of ours: some for each member, and the retired ones beside them.
const MAX_KEYS: usize = 1024;

/// Most external issuers.
const MAX_ISSUERS: usize = 16;

/// Verifies the tokens of one tenant: those of this cluster's keys, and those of external issuers.
///
/// A value: for a new key, a retirement or another key file a new verifier is built and put in the old one's place. Clones share the keys.
#[derive(Clone)]
pub struct Verifier {
    issuer: Arc<str>,
    audience: Arc<str>,
    tenant: Arc<str>,
    keys: BTreeMap<Arc<str>, Accepted>,
    external: Vec<Arc<ExternalIssuer>>,
}

#[derive(Clone)]
struct Accepted {
    key: Key,
    /// The first second at which the key's tokens are refused.
    retires_at: Option<u64>,
}

impl Verifier {
    /// A verifier without keys, which refuses everything.
    ///
    /// `issuer`, `audience`: what [`Signer::mint`] is given. `tenant`: the one whose tokens are taken.
    pub fn new(issuer: &str, audience: &str, tenant: &str) -> Verifier {
        Verifier {
            issuer: issuer.into(),
            audience: audience.into(),
            tenant: tenant.into(),
            keys: BTreeMap::new(),
            external: Vec::new(),
        }
    }

    /// Accepts a key's tokens, up to and without the second `retires_at` if that is given. A key that is accepted already gets the new
    /// retirement.
    ///
    /// # Errors
    /// [`KeyError::DuplicateKeyId`] and [`KeyError::TooMany`].
    pub fn with_key(self, key: &PublicKey, retires_at: Option<u64>) -> Result<Verifier, KeyError> {
        self.accepting(key.key.clone(), retires_at)
    }

    /// Accepts what `signer` mints: the way for HMAC, which has no public key.
    ///
    /// # Errors
    /// As [`Verifier::with_key`].
    pub fn with_signer(self, signer: &Signer) -> Result<Verifier, KeyError> {
        self.accepting(signer.verifying().clone(), None)
    }

    fn accepting(mut self, key: Key, retires_at: Option<u64>) -> Result<Verifier, KeyError> {
        match self.keys.get(key.id()) {
            Some(accepted) if !accepted.key.is_same(&key) => return Err(KeyError::DuplicateKeyId),
            None if self.keys.len() >= MAX_KEYS => return Err(KeyError::TooMany),
            _ => {}
        }
        let id = key.id().clone();
        self.keys.insert(id, Accepted { key, retires_at });
        Ok(self)
    }

    /// Accepts an external issuer's tokens.
    ///
    /// # Errors
    /// [`KeyError::Issuer`] if it has no name of its own or an empty setting, [`KeyError::TooMany`].
    pub fn with_external(mut self, external: ExternalIssuer) -> Result<Verifier, KeyError> {
        let taken = *external.issuer == *self.issuer
            || self
                .external
                .iter()
                .any(|other| other.issuer == external.issuer);
        let settings = [&external.issuer, &external.audience, &external.user_claim];
        let empty = settings
            .into_iter()
            .chain(&external.roles_claim)
            .any(String::is_empty);
        if taken || empty {
            return Err(KeyError::Issuer);
        }
        if self.external.len() >= MAX_ISSUERS {
            return Err(KeyError::TooMany);
        }
        self.external.push(Arc::new(external));
        Ok(self)
    }

    /// Verifies a token at the time `now`, in seconds since 1970. Costs one signature check, and less for what is refused before it.
    ///
    /// What the token says selects the issuer's keys and among them the key (`iss`, `kid`); nothing else of it is believed before the signature
    /// was checked, with the algorithm that the key is pinned to.
    ///
    /// # Errors
    /// [`TokenError`]; for any text, and never a panic.
    pub fn verify(&self, token: &str, now: u64) -> Result<Verified, TokenError> {
        let frame = Frame::read(token)?;
        let issuer = frame.claims.text("iss").map_err(|_| TokenError::Issuer)?;
        if *issuer == *self.issuer {
            self.verify_ours(&frame, now).map(Verified::Ours)
        } else {
            let external = self.external.iter().find(|other| other.issuer == issuer);
            verify_external(external.ok_or(TokenError::Issuer)?, &frame, now)
        }
    }

    fn verify_ours(&self, frame: &Frame<'_>, now: u64) -> Result<Claims, TokenError> {
        let accepted = self.keys.get(frame.key_id()?);
        let accepted = accepted.ok_or(TokenError::UnknownKey)?;
        if accepted.retires_at.is_some_and(|at| at <= now) {
            return Err(TokenError::RetiredKey);
        }
        accepted.key.check(frame)?;
        let claims = &frame.claims;
        let issued_at = claims.time("iat")?;
        let expires_at = check_times(claims, now)?;
        if claims.text("aud").map_err(|_| TokenError::Audience)? != &*self.audience {
            return Err(TokenError::Audience);
        }
        if claims.text("tenant").map_err(|_| TokenError::Tenant)? != &*self.tenant {
            return Err(TokenError::Tenant);
        }
        let user = claims.text("sub")?;
        if !is_name(user) {
            return Err(TokenError::Claim("sub"));
        }
        if claims.text("username")? != user {
            return Err(TokenError::Claim("username"));
        }
        Ok(Claims {
            user: user.to_owned(),
            user_id: claims.number("uid")?,
            tenant: self.tenant.as_ref().to_owned(),
            epoch: claims.number("epoch")?,
            credential: claims.number("credential")?,
            issued_at,
            expires_at,
        })
    }
}

fn verify_external(
    external: &ExternalIssuer,
    frame: &Frame<'_>,
    now: u64,
) -> Result<Verified, TokenError> {
    let key = external.keys.find(frame.key_id()?);
    key.ok_or(TokenError::UnknownKey)?.check(frame)?;
    let expires_at = check_times(&frame.claims, now)?;
    external.identify(&frame.claims, expires_at)
}

/// Checks `exp`, which must be there, and `iat` and `nbf`, if they are. Answers `exp`.
fn check_times(claims: &Object, now: u64) -> Result<u64, TokenError> {
    let expires_at = claims.time("exp")?;
    if expires_at <= now {
        return Err(TokenError::Expired);
    }
    for name in ["iat", "nbf"] {
        let from = claims.optional_time(name)?.unwrap_or(0);
        if from > now.saturating_add(CLOCK_LEEWAY_SECONDS) {
            return Err(TokenError::NotYetValid);
        }
    }
    Ok(expires_at)
}
