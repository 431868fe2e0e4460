//! Who makes a request: the connection's certificate, a token, or both, resolved against the tenant's users.

use crate::headers::token_of;
use crate::tokens::{Keys, Tokens};
use holdfast_auth::token::Verified;
use holdfast_auth::{Access, AuthState, Caller, Denied, TokenEpochs};
use http::HeaderMap;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// By what a caller is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    /// By nothing.
    Nothing,
    Certificate,
    /// A token of this cluster.
    Token,
    /// A token of the external issuer.
    External,
}

/// A caller, with the name that the audit log knows it by.
#[derive(Clone, Debug)]
pub(crate) struct Identified {
    pub(crate) caller: Caller,
    pub(crate) name: Option<Arc<str>>,
    pub(crate) how: How,
    /// When the token ends, seconds since 1970; `None` without one.
    pub(crate) expires_at: Option<u64>,
}

impl Identified {
    /// What this caller may do now, with the identity that it had when it was found: the way of requests on a stream.
    ///
    /// # Errors
    /// When the token has ended since, by time or because its user has changed.
    pub(crate) fn access<'a>(&self, auth: &'a AuthState) -> Result<Access<'a>, Denied> {
        if auth.is_enabled() && self.expires_at.is_some_and(|at| unix_now() >= at) {
            return Err(Denied::InvalidToken);
        }
        auth.access(&self.caller)
    }
}

/// What a connection knows of who is at its other end.
pub(crate) struct ConnectionIdentity {
    /// The user that the certificate names.
    certified: Option<Arc<str>>,
    /// Whether a certificate that names no user of the tenant is no identity beside a token: etcd's set-ups have one certificate for all
    /// clients, and a password for each. In profile `strict` it is one, and disagrees.
    lenient: bool,
    /// Who calls while authentication is off.
    unchecked: Arc<Identified>,
    /// The last caller that was found, so that a token is verified once.
    last: Mutex<Option<Last>>,
}

struct Last {
    /// The state of users and roles that it was found in.
    auth_revision: u64,
    /// The token, with the keys that it was verified by.
    token: Option<(Box<str>, Keys)>,
    who: Arc<Identified>,
}

impl Identified {
    /// As [`Identified::access`], for a stream that goes on: it outlives its token, as long as user and password are the same. A caller of
    /// another issuer has neither, so that its streams end with the token.
    ///
    /// # Errors
    /// When the stream must end.
    pub(crate) fn stream_access<'a>(&self, auth: &'a AuthState) -> Result<Access<'a>, Denied> {
        if auth.is_enabled() && self.stream_end().is_some_and(|at| unix_now() >= at) {
            return Err(Denied::InvalidToken);
        }
        auth.stream_access(&self.caller)
    }

    /// When streams of this caller end at the latest, seconds since 1970.
    fn stream_end(&self) -> Option<u64> {
        match self.how {
            How::External => self.expires_at,
            How::Nothing | How::Certificate | How::Token => None,
        }
    }

    /// Waits until streams of this caller must end by time.
    pub(crate) async fn ended(&self) {
        let Some(at) = self.stream_end() else {
            return std::future::pending().await;
        };
        // In steps: clocks are set, and timers do not reach for years.
        loop {
            let left = at.saturating_sub(unix_now());
            if left == 0 {
                return;
            }
            tokio::time::sleep(Duration::from_secs(left.min(60))).await;
        }
    }
}

impl Last {
    fn still_holds(&self, token: Option<&str>, tokens: &Tokens) -> bool {
        match (&self.token, token) {
            (None, None) => true,
            (Some((known, keys)), Some(token)) if **known == *token => {
                let now = unix_now();
                self.who.expires_at.is_none_or(|at| now < at) && tokens.are_current(keys, now)
            }
            _ => false,
        }
    }
}

impl ConnectionIdentity {
    pub(crate) fn new(certified: Option<Arc<str>>, lenient: bool) -> ConnectionIdentity {
        let how = if certified.is_some() {
            How::Certificate
        } else {
            How::Nothing
        };
        ConnectionIdentity {
            unchecked: Arc::new(Identified {
                caller: Caller::Anonymous,
                name: certified.clone(),
                how,
                expires_at: None,
            }),
            certified,
            lenient,
            last: Mutex::default(),
        }
    }

    /// Whom the log is to blame when nobody could be identified.
    pub(crate) fn unchecked(&self) -> &Arc<Identified> {
        &self.unchecked
    }

    /// Finds who makes a request with these headers.
    ///
    /// # Errors
    /// [`Denied`] when nobody is named, when a token is not good, or when certificate and token disagree.
    pub(crate) fn identify(
        &self,
        auth: &AuthState,
        tenant: &str,
        tokens: &Tokens,
        headers: &HeaderMap,
    ) -> Result<Arc<Identified>, Denied> {
        if !auth.is_enabled() {
            return Ok(self.unchecked.clone());
        }
        let token = token_of(headers)?;
        let revision = auth.revision();
        if let Some(last) = &*self.last.lock()
            && last.auth_revision == revision
            && last.still_holds(token, tokens)
        {
            return Ok(last.who.clone());
        }
        // Taken before the token is looked at: a key that goes meanwhile makes it be looked at again.
        let keys = tokens.keys(unix_now());
        let who = match token {
            Some(token) => self.by_token(auth, tenant, tokens, token)?,
            None => self.by_certificate(auth)?,
        };
        // Refused at once if the user is gone or has changed since the token was given.
        auth.access(&who.caller)?;
        let who = Arc::new(who);
        *self.last.lock() = Some(Last {
            auth_revision: revision,
            token: token.map(|token| (token.into(), keys)),
            who: who.clone(),
        });
        Ok(who)
    }

    fn by_certificate(&self, auth: &AuthState) -> Result<Identified, Denied> {
        let name = self.certified.as_ref().ok_or(Denied::Unidentified)?;
        let user = auth.user(name).ok_or(Denied::NotPermitted)?;
        Ok(Identified {
            caller: Caller::User {
                id: user.id,
                token: None,
            },
            name: Some(name.clone()),
            how: How::Certificate,
            expires_at: None,
        })
    }

    fn by_token(
        &self,
        auth: &AuthState,
        tenant: &str,
        tokens: &Tokens,
        token: &str,
    ) -> Result<Identified, Denied> {
        let verified = tokens
            .verify(token, unix_now())
            .map_err(|_| Denied::InvalidToken)?;
        match verified {
            Verified::Ours(claims) => {
                if claims.tenant != tenant {
                    return Err(Denied::InvalidToken);
                }
                self.check_agreement(auth, &claims.user)?;
                Ok(Identified {
                    caller: Caller::User {
                        id: holdfast_auth::UserId(claims.user_id),
                        token: Some(TokenEpochs {
                            epoch: claims.epoch,
                            credential: claims.credential,
                        }),
                    },
                    name: Some(claims.user.into()),
                    how: How::Token,
                    expires_at: Some(claims.expires_at),
                })
            }
            Verified::External {
                user,
                roles,
                expires_at,
            } => {
                self.check_agreement(auth, &user)?;
                // A user of that name decides by its own roles; only a stranger comes with the issuer's.
                let caller = match auth.user(&user) {
                    // Never root from outside.
                    Some(known) if known.is_root() => return Err(Denied::NotPermitted),
                    Some(known) => Caller::User {
                        id: known.id,
                        token: Some(auth.epochs(known)),
                    },
                    None => Caller::External {
                        subject: user.as_str().into(),
                        roles: roles.into_iter().map(Arc::from).collect(),
                    },
                };
                Ok(Identified {
                    caller,
                    name: Some(user.into()),
                    how: How::External,
                    expires_at: Some(expires_at),
                })
            }
        }
    }

    /// A certificate and a token that name different users are refused: one of them is not the caller's.
    fn check_agreement(&self, auth: &AuthState, user: &str) -> Result<(), Denied> {
        match &self.certified {
            Some(certified)
                if &**certified != user && !(self.lenient && auth.user(certified).is_none()) =>
            {
                Err(Denied::Disagree)
            }
            _ => Ok(()),
        }
    }
}

/// Seconds since 1970.
pub(crate) fn unix_now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
