//! Who may name users beside this server: an external issuer of tokens, and a trust domain of certificates.

use std::path::PathBuf;

use crate::error::ConfigError;
use crate::settings::Settings;
use crate::table::Key;

/// Issuers and audiences are URLs or short names, claims are words.
const MAX_NAME_BYTES: usize = 512;

/// As long as a host name (SPIFFE ID standard §2.1).
const MAX_TRUST_DOMAIN_BYTES: usize = 255;

/// An issuer beside this server whose tokens are accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExternalIssuerConfig {
    /// Its public keys.
    pub jwks_file: PathBuf,
    /// The `iss` of its tokens; never empty.
    pub issuer: String,
    /// The `aud` of its tokens; never empty.
    pub audience: String,
    /// The claim that names the user; never empty.
    pub user_claim: String,
    /// The claim that lists the roles of a user without a record here.
    pub roles_claim: Option<String>,
}

/// The settings of the external issuer; all or none.
pub(crate) fn external(settings: &Settings) -> Result<Option<ExternalIssuerConfig>, ConfigError> {
    let needs = |key: Key, other: Key| {
        ConfigError::Conflict(format!(
            "--{} ({}) needs --{} too",
            key.row().name,
            settings.origin(key),
            other.row().name
        ))
    };
    let Some(jwks_file) = settings.path(Key::AuthJwksFile) else {
        let useless = [
            Key::AuthJwtIssuer,
            Key::AuthJwtAudience,
            Key::AuthJwtUserClaim,
            Key::AuthJwtRolesClaim,
        ];
        return match useless
            .into_iter()
            .find(|key| settings.is_given(*key) && !settings.text(*key).is_empty())
        {
            Some(key) => Err(needs(key, Key::AuthJwksFile)),
            None => Ok(None),
        };
    };
    // Without both, a token that the issuer made for another service would be accepted here.
    let required = |key: Key| match name(settings, key)? {
        Some(name) => Ok(name),
        None => Err(needs(Key::AuthJwksFile, key)),
    };
    let claim_needed = || "a claim is needed".to_owned();
    Ok(Some(ExternalIssuerConfig {
        jwks_file,
        issuer: required(Key::AuthJwtIssuer)?,
        audience: required(Key::AuthJwtAudience)?,
        user_claim: name(settings, Key::AuthJwtUserClaim)?
            .ok_or_else(|| settings.invalid(Key::AuthJwtUserClaim, claim_needed()))?,
        roles_claim: name(settings, Key::AuthJwtRolesClaim)?,
    }))
}

fn name(settings: &Settings, key: Key) -> Result<Option<String>, ConfigError> {
    let text = settings.text(key);
    let reason = if text.len() > MAX_NAME_BYTES {
        format!("longer than {MAX_NAME_BYTES} bytes")
    } else if text.chars().any(char::is_control) || text.trim() != text {
        "control characters, and spaces at the ends, never match".to_owned()
    } else {
        return Ok(Some(text)
            .filter(|text| !text.is_empty())
            .map(str::to_owned));
    };
    Err(settings.invalid(key, reason))
}

/// The trust domain of certificates that name users.
pub(crate) fn trust_domain(
    settings: &Settings,
    quick_start: bool,
) -> Result<Option<String>, ConfigError> {
    let key = Key::ClientCertUriTrustDomain;
    let text = settings.text(key);
    if text.is_empty() {
        return Ok(None);
    }
    let in_alphabet = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_');
    if text.len() > MAX_TRUST_DOMAIN_BYTES || !text.bytes().all(in_alphabet) {
        let reason = format!(
            "expected a trust domain such as example.org: at most {MAX_TRUST_DOMAIN_BYTES} lower-case letters, digits, dots, dashes \
             and underscores, without spiffe://"
        );
        return Err(settings.invalid(key, reason));
    }
    if settings.path(Key::TrustedCaFile).is_none() && !quick_start {
        return Err(ConfigError::Conflict(format!(
            "--{} ({}) needs --{}: without a CA no certificate can be verified",
            key.row().name,
            settings.origin(key),
            Key::TrustedCaFile.row().name,
        )));
    }
    Ok(Some(text.to_owned()))
}
