//! What a node does once there is a leader and before it serves: a new cluster of profile `strict` gets its root and is switched to
//! authentication, and this member's token key is made known.

use crate::identity::unix_now;
use crate::node::Node;
use crate::tokens::TokensError;
use holdfast_auth::{AuthChange, Caller, ROOT};
use holdfast_config::ConfigError;
use holdfast_consensus::{Failure, Submission};
use holdfast_tenant::Command;
use std::time::{Duration, Instant};

/// Why the node cannot be made ready.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FoundingError {
    #[error("the log does not take what a node must say before it serves: {0}")]
    Refused(Failure),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Tokens(#[from] TokensError),
    #[error("what a node must say before it serves did not come into force in time")]
    TimedOut,
}

/// Far longer than a healthy disk needs for one entry.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(1);

/// Switches authentication on in a cluster whose users nobody has ever touched, if it is to be so. `root` has no password: it is whoever
/// holds a certificate of that name.
pub(crate) async fn initial_auth(node: &Node) -> Result<(), FoundingError> {
    if !node.settings().initial_auth || !is_untouched(node) {
        return Ok(());
    }
    // At a later start, too: a node that nobody could log in to must not come up.
    node.config.check_founding()?;
    // Of several members that begin together the leader does it; should it be gone, the next one.
    let begun = Instant::now();
    while !node.status.leads() {
        if !is_untouched(node) {
            return Ok(());
        }
        if begun.elapsed() > PATIENCE {
            return Err(FoundingError::TimedOut);
        }
        tokio::time::sleep(LOOK).await;
    }
    let root = || ROOT.to_owned();
    let changes = [
        AuthChange::RoleAdd { name: root() },
        AuthChange::UserAdd {
            name: root(),
            password: None,
        },
        AuthChange::UserGrantRole {
            user: root(),
            role: root(),
        },
        AuthChange::Enable,
    ];
    submit(node, changes.map(Command::Auth).into()).map_err(FoundingError::Refused)?;
    wait(|| node.default_tenant.auth().is_enabled()).await?;
    tracing::info!("authentication is on; root is whoever holds a certificate for the user root");
    Ok(())
}

/// Whether nobody has ever touched the users and roles.
fn is_untouched(node: &Node) -> bool {
    let auth = node.default_tenant.auth();
    !auth.is_enabled() && auth.revision() == 1 && auth.users().next().is_none()
}

/// Makes sure that other members, and this one after a restart, accept the tokens that this one signs.
pub(crate) async fn publish_token_key(node: &Node) -> Result<(), FoundingError> {
    let Some(key) = node.tokens.unpublished(unix_now())? else {
        return Ok(());
    };
    let kid = key.kid.clone();
    let publish = Command::PublishTokenKey {
        // A key before it is lost, or in other hands: what it signed ends by itself.
        retire_older_at: Some(key.made_at.saturating_add(node.tokens.ttl().as_secs())),
        key,
    };
    submit(node, vec![publish]).map_err(FoundingError::Refused)?;
    wait(|| {
        node.tenants
            .token_keys()
            .iter()
            .any(|known| known.kid == kid)
    })
    .await
}

/// Puts commands into the log together: all come into force or none.
fn submit(node: &Node, commands: Vec<Command>) -> Result<(), Failure> {
    let mut submission = Submission::default();
    for command in &commands {
        command.encode(
            node.default_tenant.id,
            &Caller::Server,
            &mut submission.data,
        );
        // Nobody waits for the outcomes: the state tells.
        submission
            .tickets
            .push(node.mailbox.expect(Instant::now()).0);
    }
    node.group.submit(submission)
}

async fn wait(done: impl Fn() -> bool) -> Result<(), FoundingError> {
    let begun = Instant::now();
    while !done() {
        if begun.elapsed() > PATIENCE {
            return Err(FoundingError::TimedOut);
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}
