//! What a connection can ask about the cluster. Changes are for the leader only.

use super::Connection;
use crate::error::Error;
use crate::identity::{MemberAddress, MemberId, MemberInfo, Role};
use crate::wire::{Request, Response, WireError};

/// What a node says about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metadata {
    /// Nodes of one failure domain are expected to fail together.
    pub failure_domain: u64,
    /// Larger is less eager to lead.
    pub weight: u64,
}

impl Connection {
    /// The leader as this node knows it: identity and address.
    pub async fn leader(&mut self) -> Result<Option<(MemberId, MemberAddress)>, Error> {
        match self.ask(&Request::Leader, true).await? {
            Response::Server { id: 0, .. } => Ok(None),
            Response::Server { id, address } => Ok(Some((MemberId(id), address.into()))),
            other => Err(self.unexpected(&Request::Leader, &other)),
        }
    }

    /// The configuration as this node knows it.
    pub async fn members(&mut self) -> Result<Vec<MemberInfo>, Error> {
        let servers = match self.ask(&Request::Cluster, true).await? {
            Response::Servers(servers) => servers,
            other => return Err(self.unexpected(&Request::Cluster, &other)),
        };
        let member = |(id, address, code): (u64, String, u64)| {
            let unknown = Error::Protocol(WireError::Unknown { what: "role", code });
            let role = Role::from_code(code).ok_or(unknown)?;
            Ok(MemberInfo { id: MemberId(id), address: address.into(), role })
        };
        servers.into_iter().map(member).collect()
    }

    /// Adds a member as a spare; give it a role afterwards.
    pub async fn add(&mut self, id: MemberId, address: &MemberAddress) -> Result<(), Error> {
        self.change(&Request::Add { id: id.0, address: address.as_str().into() }).await
    }

    /// Gives a member a role. A new voter first receives the log, which takes its time.
    pub async fn assign(&mut self, id: MemberId, role: Role) -> Result<(), Error> {
        self.change(&Request::Assign { id: id.0, role: role.code() }).await
    }

    /// Removes a member.
    pub async fn remove(&mut self, id: MemberId) -> Result<(), Error> {
        self.change(&Request::Remove { id: id.0 }).await
    }

    /// Gives leadership to a member, or to any.
    pub async fn transfer(&mut self, to: Option<MemberId>) -> Result<(), Error> {
        self.change(&Request::Transfer { id: to.map_or(0, |id| id.0) }).await
    }

    /// What this node says about itself.
    pub async fn describe(&mut self) -> Result<Metadata, Error> {
        match self.ask(&Request::Describe, true).await? {
            Response::Metadata { failure_domain, weight } => {
                Ok(Metadata { failure_domain, weight })
            }
            other => Err(self.unexpected(&Request::Describe, &other)),
        }
    }

    /// Tells this node how eager it is to lead: of equal voters the one of the smallest weight.
    pub async fn set_weight(&mut self, weight: u64) -> Result<(), Error> {
        self.ask_empty(&Request::Weight { weight }).await
    }

    /// A change of the configuration is a write: when its answer is lost nobody knows.
    async fn change(&mut self, request: &Request<'_>) -> Result<(), Error> {
        match self.ask(request, false).await? {
            Response::Empty => Ok(()),
            other => Err(self.unexpected(request, &other)),
        }
    }
}
