//! Who the requests are made by: the token, from the command line or got for a password.

use std::{cell::RefCell, fmt};

use holdfast_proto::etcdserverpb::{AuthenticateRequest, auth_client::AuthClient};
use tonic::{
    Code, Status,
    metadata::{Ascii, MetadataValue},
    transport::Channel,
};

use crate::{Exit, Failure, cli::Credentials, terminal};

/// What servers say of a request whose token they do not take, or that came without one when they want one.
const STALE: [&str; 3] = [
    "etcdserver: invalid auth token",
    "etcdserver: revision of auth store is old",
    // Authentication was off when we asked for a token, and is on now.
    "etcdserver: user name is empty",
];

/// Whether a new token may help.
pub(crate) fn is_stale(status: &Status) -> bool {
    STALE.contains(&status.message())
}

/// The same question about the reason that a watch was cancelled for.
pub(crate) fn is_stale_reason(reason: &str) -> bool {
    STALE.iter().any(|text| reason.ends_with(text))
}

/// A token as requests carry it. It is never printed.
#[derive(Clone, PartialEq)]
pub(crate) struct Token(MetadataValue<Ascii>);

impl Token {
    /// None for what cannot stand in a header.
    fn parse(text: &str) -> Option<Token> {
        let mut value = MetadataValue::try_from(text).ok()?;
        // Also keeps it out of HPACK's table.
        value.set_sensitive(true);
        Some(Token(value))
    }

    pub(crate) fn value(&self) -> MetadataValue<Ascii> {
        self.0.clone()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

/// One user's way to tokens. A token is asked for once and serves all connections.
pub(crate) struct Login<'a> {
    credentials: Option<&'a Credentials>,
    state: RefCell<State>,
}

#[derive(Default)]
struct State {
    token: Option<Token>,
    /// What was typed, if the password was not given.
    typed: Option<String>,
}

impl<'a> Login<'a> {
    /// # Errors
    ///
    /// A given token that no request can carry.
    pub(crate) fn new(credentials: Option<&'a Credentials>) -> Result<Login<'a>, Failure> {
        let token = match credentials {
            Some(Credentials::Token(token)) => Some(Token::parse(token).ok_or_else(|| {
                Failure::new(Exit::BadArguments, "the token is not a header value")
            })?),
            _ => None,
        };
        Ok(Login {
            credentials,
            state: RefCell::new(State { token, typed: None }),
        })
    }

    /// Asks for the password on the terminal, if one is needed and neither given nor typed yet.
    pub(crate) fn ask(&self) -> Result<(), Failure> {
        let Some(Credentials::Password { password: None, .. }) = self.credentials else {
            return Ok(());
        };
        if self.state.borrow().typed.is_some() {
            return Ok(());
        }
        let typed = terminal::ask("Password: ")?
            .ok_or_else(|| Failure::new(Exit::BadArguments, "no password given for --user"))?;
        self.state.borrow_mut().typed = Some(typed);
        Ok(())
    }

    /// Whether tokens are got for a password, so that a new one can be got when one has ended.
    pub(crate) fn has_password(&self) -> bool {
        matches!(self.credentials, Some(Credentials::Password { .. }))
    }

    /// The token at hand, or a first one; none if nobody logs in or the server asks for no authentication.
    pub(crate) async fn token(&self, channel: &Channel) -> Result<Option<Token>, Status> {
        let known = self.state.borrow().token.clone();
        match known {
            Some(token) => Ok(Some(token)),
            None => self.authenticate(channel).await,
        }
    }

    /// A token in place of `refused`. Another request may have got one already.
    pub(crate) async fn renew(
        &self,
        channel: &Channel,
        refused: Option<&Token>,
    ) -> Result<Option<Token>, Status> {
        {
            let mut state = self.state.borrow_mut();
            if state.token.as_ref() == refused {
                state.token = None;
            }
        }
        self.token(channel).await
    }

    async fn authenticate(&self, channel: &Channel) -> Result<Option<Token>, Status> {
        let Some(Credentials::Password { name, password }) = self.credentials else {
            return Ok(None);
        };
        let typed = self.state.borrow().typed.clone();
        let request = AuthenticateRequest {
            name: name.clone(),
            password: password.clone().or(typed).unwrap_or_default(),
        };
        let answer = AuthClient::new(channel.clone()).authenticate(request).await;
        let token = match answer {
            Ok(response) => response.into_inner().token,
            // etcd's client goes on as nobody then, and so do scripts that always pass --user.
            Err(status)
                if status.code() == Code::FailedPrecondition
                    && status.message() == "etcdserver: authentication is not enabled" =>
            {
                return Ok(None);
            }
            Err(status) => return Err(status),
        };
        let token = Token::parse(&token)
            .ok_or_else(|| Status::internal("the server's token is not a header value"))?;
        self.state.borrow_mut().token = Some(token.clone());
        Ok(Some(token))
    }
}
