//! Finding the leader.

use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;

use crate::connection::Connection;
use crate::connector::Connector;
use crate::error::Error;
use crate::identity::MemberAddress;

/// How long one member may take to connect and answer; a partitioned member never answers.
const MEMBER_TIMEOUT: Duration = Duration::from_secs(5);

/// Finds the leader among members.
pub struct Client {
    connector: Arc<dyn Connector>,
}

/// Why there is no connection to the leader.
#[derive(Debug, Error)]
#[error("no leader found: {}", reasons(tried))]
pub struct NoLeader {
    /// Each member that was asked, and what it said.
    pub tried: Vec<(MemberAddress, Attempt)>,
}

/// What asking one member gave.
#[derive(Debug, Error)]
pub enum Attempt {
    /// It could not be reached or did not answer well.
    #[error("failed")]
    Failed(#[source] Error),
    /// It took too long.
    #[error("no answer within {} s", MEMBER_TIMEOUT.as_secs())]
    TimedOut,
    /// It knows of no leader.
    #[error("knows no leader")]
    KnowsNone,
    /// It names a leader that does not agree.
    #[error("names {0}, which does not lead")]
    Names(MemberAddress),
}

fn reasons(tried: &[(MemberAddress, Attempt)]) -> String {
    if tried.is_empty() {
        return "no member is known".to_string();
    }
    let texts: Vec<String> = tried.iter().map(|(member, why)| format!("{member} {why}")).collect();
    texts.join(", ")
}

impl Client {
    /// Reaches members through `connector`.
    pub fn new(connector: Arc<dyn Connector>) -> Client {
        Client { connector }
    }

    /// A connection to the leader, without a database open. Asks the members in order, follows the
    /// leader that each names, and asks that one whether it agrees. One round, each step bounded:
    /// during an election call it again.
    pub async fn leader(&self, members: &[MemberAddress]) -> Result<Connection, NoLeader> {
        let mut tried = Vec::new();
        for member in members {
            let attempt = tokio::time::timeout(MEMBER_TIMEOUT, self.follow(member)).await;
            match attempt.unwrap_or(Err(Attempt::TimedOut)) {
                Ok(connection) => return Ok(connection),
                Err(attempt) => tried.push((member.clone(), attempt)),
            }
        }
        Err(NoLeader { tried })
    }

    async fn follow(&self, member: &MemberAddress) -> Result<Connection, Attempt> {
        let mut connection = self.connect(member).await.map_err(Attempt::Failed)?;
        let named = connection.leader().await.map_err(Attempt::Failed)?;
        let (leader, address) = named.ok_or(Attempt::KnowsNone)?;
        if address == *member {
            return Ok(connection);
        }
        let mut connection = self.connect(&address).await.map_err(Attempt::Failed)?;
        match connection.leader().await.map_err(Attempt::Failed)? {
            Some((id, _)) if id == leader => Ok(connection),
            _ => Err(Attempt::Names(address)),
        }
    }

    /// A connection to one member, without a database open.
    pub async fn connect(&self, member: &MemberAddress) -> Result<Connection, Error> {
        let io = |source| Error::Io { during: "connecting to a member", source };
        let (connector, member) = (self.connector.clone(), member.clone());
        let connected = tokio::task::spawn_blocking(move || connector.connect(&member)).await;
        let connected = connected.map_err(|e| io(std::io::Error::other(e)))?;
        Connection::from_fd(connected.map_err(io)?).await
    }
}
