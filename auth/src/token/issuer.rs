//! An external issuer: an identity provider whose tokens are verified here and never minted.

use super::{TokenError, Verified, jwks::KeySet, object::Object};
use crate::{ROOT, bounds};
use serde_json::Value;

/// Most roles that a token may name.
const MAX_ROLES: usize = 64;

/// Most audiences that a token may name.
const MAX_AUDIENCES: usize = 64;

/// Whose tokens are taken beside our own, and what in them says who the caller is.
///
/// Whatever such a token says, it makes nobody root: the role `root` in it is dropped, and one that names the user `root` is refused. That
/// a user of another name holds the role `root` by a record of ours is for the caller to look at.
#[derive(Clone, Debug)]
pub struct ExternalIssuer {
    /// The `iss` of its tokens, exactly.
    pub issuer: String,
    /// What `aud` must be, or hold.
    pub audience: String,
    /// The claim with the user's name: a text.
    pub user_claim: String,
    /// The claim with the roles: a list of texts, or one text with spaces between them. Without, tokens bring no roles.
    pub roles_claim: Option<String>,
    /// Its keys.
    pub keys: KeySet,
}

impl ExternalIssuer {
    /// An issuer whose tokens name the user in `sub` and bring no roles.
    pub fn new(
        issuer: impl Into<String>,
        audience: impl Into<String>,
        keys: KeySet,
    ) -> ExternalIssuer {
        ExternalIssuer {
            issuer: issuer.into(),
            audience: audience.into(),
            user_claim: "sub".into(),
            roles_claim: None,
            keys,
        }
    }

    /// Reads who the caller is from claims whose signature and times were checked.
    pub(super) fn identify(
        &self,
        claims: &Object,
        expires_at: u64,
    ) -> Result<Verified, TokenError> {
        if !self.is_addressed(claims) {
            return Err(TokenError::Audience);
        }
        let user = claims.get(&self.user_claim).and_then(Value::as_str);
        let user = user
            .filter(|name| is_name(name))
            .ok_or(TokenError::Claim("of the user"))?;
        if user == ROOT {
            return Err(TokenError::ExternalRoot);
        }
        let roles = self
            .roles_claim
            .as_ref()
            .and_then(|claim| claims.get(claim))
            // Some issuers write out what is not there.
            .filter(|roles| !roles.is_null());
        Ok(Verified::External {
            user: user.to_owned(),
            roles: roles.map_or(Ok(Vec::new()), read_roles)?,
            expires_at,
        })
    }

    fn is_addressed(&self, claims: &Object) -> bool {
        match claims.get("aud") {
            Some(Value::String(audience)) => *audience == self.audience,
            Some(Value::Array(all)) if all.len() <= MAX_AUDIENCES => {
                all.iter().all(Value::is_string)
                    && all.iter().any(|one| one.as_str() == Some(&self.audience))
            }
            _ => false,
        }
    }
}

fn read_roles(claim: &Value) -> Result<Vec<String>, TokenError> {
    const REFUSED: TokenError = TokenError::Claim("of the roles");
    let names: Vec<&str> = match claim {
        Value::String(text) => text.split(' ').filter(|name| !name.is_empty()).collect(),
        Value::Array(names) => {
            let names = names.iter().map(|name| name.as_str().ok_or(REFUSED));
            names.collect::<Result<_, _>>()?
        }
        _ => return Err(REFUSED),
    };
    if names.len() > MAX_ROLES || !names.iter().all(|name| is_name(name)) {
        return Err(REFUSED);
    }
    let mut roles: Vec<String> = Vec::new();
    for name in names {
        if name != ROOT && roles.iter().all(|role| role != name) {
            roles.push(name.to_owned());
        }
    }
    Ok(roles)
}

/// Whether a user or role of ours could have this name.
pub(super) fn is_name(name: &str) -> bool {
    (1..=bounds::NAME_BYTES).contains(&name.len()) && !name.chars().any(char::is_control)
}
