//! Becoming a member: asks those that were named until one of them says yes.

use std::time::Duration;

use dqlite::MemberId;
use tonic::Code;
use tracing::info;

use super::channel::Channels;
use super::ping::Ping;
use super::roster::{Roster, RosterError};
use super::{VERSION, is_understood};
use crate::proto::peer::{JoinRequest, JoinResponse, PeerEntry};

/// The first pause between two rounds; it doubles,
const PAUSE_MIN: Duration = Duration::from_millis(50);
/// up to this.
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// How long one member may take to answer: it may ask its leader.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Why a member will never be one.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    #[error("{address} refuses this member: {reason}")]
    Refused { address: String, reason: String },
    #[error("{address} speaks version {version} of the members' protocol, this is {VERSION}")]
    Version { address: String, version: u32 },
    #[error(
        "{address} belongs to another cluster than this member; to join that one, empty this \
         member's directory"
    )]
    Foreign { address: String },
    #[error(transparent)]
    Roster(#[from] RosterError),
}

/// Asks until it is told yes, or no for good. Says what it waits for whenever
/// that changes.
pub async fn join(
    roster: &Roster,
    channels: &Channels,
    ping: &Ping,
    addresses: &[String],
) -> Result<(), JoinError> {
    let mut pause = PAUSE_MIN;
    let mut said = String::new();
    loop {
        let mut reasons = Vec::new();
        for address in addresses {
            match ask(roster, channels, address).await? {
                Ok(answer) => {
                    if roster.cluster_id().is_some_and(|own| own != answer.cluster_id) {
                        return Err(JoinError::Foreign { address: address.clone() });
                    }
                    roster.merge(answer.peers)?;
                    roster.enter(answer.cluster_id)?;
                    // The node begins with timeouts that suit the network.
                    let seen = ping.first().await.map_or(0, |seen| seen.as_micros() as u64);
                    roster.set_round_trip_us(answer.round_trip_us.max(seen))?;
                    info!(through = address, cluster = answer.cluster_id, "joined");
                    return Ok(());
                }
                Err(reason) => reasons.push(format!("{address}: {reason}")),
            }
        }
        let waiting_for = reasons.join(", ");
        if waiting_for != said {
            info!(waiting_for, "not joined yet");
            said = waiting_for;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

async fn ask(
    roster: &Roster,
    channels: &Channels,
    address: &str,
) -> Result<Result<JoinResponse, String>, JoinError> {
    let member = own_entry(roster);
    let request = JoinRequest { version: VERSION, member };
    let mut client = channels.to_address(address);
    let answer = match tokio::time::timeout(ANSWER_TIMEOUT, client.join(request)).await {
        Err(_) => return Ok(Err("no answer".to_owned())),
        Ok(Ok(answer)) => answer.into_inner(),
        Ok(Err(status)) => {
            let final_word =
                matches!(status.code(), Code::PermissionDenied | Code::InvalidArgument);
            let reason = reason_of(&status);
            return match final_word {
                true => Err(JoinError::Refused { address: address.to_owned(), reason }),
                false => Ok(Err(reason)),
            };
        }
    };
    if !is_understood(answer.version) {
        return Err(JoinError::Version { address: address.to_owned(), version: answer.version });
    }
    Ok(Ok(answer))
}

/// The innermost reason: "connection refused" says more than "transport error".
fn reason_of(status: &tonic::Status) -> String {
    let mut reason = status.message().to_owned();
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        reason = error.to_string();
        source = error.source();
    }
    reason
}

/// The line that this member has stated of itself.
fn own_entry(roster: &Roster) -> Option<PeerEntry> {
    roster.entries().into_iter().find(|entry| MemberId(entry.id) == roster.own())
}
