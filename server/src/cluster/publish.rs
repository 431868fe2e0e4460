//! Makes this member's name, client URLs, data directory and version known to all.

use super::version;
use crate::node::{Node, ProposeError};
use holdfast_tenant::{Command, Refusal};
use std::time::Duration;

/// Why a member cannot tell the others who it is.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PublishError {
    #[error("this member was removed from the cluster")]
    Removed,
    #[error(
        "the cluster knows this member with another data directory: the one it had was lost or replaced. Remove the member from the \
         cluster, and add it again as a new one"
    )]
    Wiped,
}

/// How long to wait after a proposal that came to nothing.
const AGAIN: Duration = Duration::from_millis(200);

/// Publishes what is new. Waits for a leader as long as it takes.
pub(crate) async fn publish(node: &Node) -> Result<(), PublishError> {
    let me = node.identity.member;
    let client_urls: Vec<String> = node
        .config
        .advertise_client_urls
        .iter()
        .map(ToString::to_string)
        .collect();
    let version = version();
    loop {
        let members = node.tenants.members();
        if members.is_removed(me) {
            return Err(PublishError::Removed);
        }
        if let Some(member) = members.get(me) {
            if member.instance != 0 && member.instance != node.identity.instance {
                return Err(PublishError::Wiped);
            }
            if member.instance == node.identity.instance
                && member.name == node.config.name
                && member.client_urls == client_urls
                && member.version == version
            {
                return Ok(());
            }
            let command = Command::MemberPublish {
                id: me,
                name: node.config.name.clone(),
                client_urls: client_urls.clone(),
                instance: node.identity.instance,
                version: version.clone(),
            };
            match node.propose(&command).await {
                Ok(_) => continue,
                Err(ProposeError::Refused(Refusal::MemberInstance)) => {
                    return Err(PublishError::Wiped);
                }
                Err(ProposeError::Refused(Refusal::MemberNotFound)) => {
                    return Err(PublishError::Removed);
                }
                Err(error) => {
                    tracing::warn!(?error, "cannot publish this member yet");
                }
            }
        }
        tokio::time::sleep(AGAIN).await;
    }
}
