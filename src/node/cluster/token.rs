//! Tokens, as they are asked for here and as they are told.

use microcluster::endpoint::{Endpoint, Host};
use microcluster::message::{Refusal, RefusalCode};
use microcluster::protocol::TokenSpec;
use microcluster::record::{ClusterRecord, MemberState, MemberView, NodeRole};
use microcluster::token::{
    JoinToken, Secret, TOKEN_ADDRESSES_MAX, TokenId, TokenRecord, TokenState,
};
use rcgen::KeyPair;
use sha2::{Digest, Sha256};
use skiff_api::{Token, TokenRequest};
use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};

use super::{Cluster, ClusterDesk};
use crate::daemons::agent;

/// Makes one, and says what is to be typed.
pub async fn add(
    cluster: &Cluster,
    desk: &ClusterDesk,
    request: &TokenRequest,
) -> Result<Token, Refusal> {
    let invalid = |why: String| Refusal::new(RefusalCode::TokenInvalid, why);
    let membership = cluster.membership();
    let settings = &membership.settings;
    let authority = settings.authorities.first().copied();
    let authority = authority.ok_or_else(|| invalid("the cluster has no authority".into()))?;
    let name = request.name.as_deref().map(str::parse).transpose();
    let ttl = i64::try_from(request.ttl_s).map_err(|_| invalid("it would live too long".into()))?;
    let spec = TokenSpec {
        role: if request.worker { NodeRole::Worker } else { NodeRole::ControlPlane },
        name: name.map_err(|e: microcluster::record::NodeNameError| invalid(e.to_string()))?,
        labels: request.labels.clone(),
        taints: request.taints.clone(),
        ttl: Duration::seconds(ttl),
        uses: request.uses,
        authority,
    };
    let secret = secret().map_err(|error| invalid(error.to_string()))?;
    let endpoints = endpoints(&membership.members);
    let text = JoinToken::new(endpoints, authority, secret.clone());
    let text = text.map_err(|error| invalid(error.to_string()))?.to_string();
    let id = desk.add_token(&spec, &secret).await?;
    let record = desk.record().await?;
    let token = record.tokens.get(&id).map(|token| view(&token.value, OffsetDateTime::now_utc()));
    let token = token.ok_or_else(|| invalid("somebody took it back at once".into()))?;
    let flag = if request.worker { " --worker" } else { "" };
    Ok(Token { command: Some(format!("sudo skiff join {text}{flag}")), ..token })
}

/// All that are kept, by their ids.
pub fn list(record: &ClusterRecord, now: OffsetDateTime) -> Vec<Token> {
    record.tokens.values().map(|token| view(&token.value, now)).collect()
}

/// Takes one back.
pub async fn revoke(desk: &ClusterDesk, id: &str) -> Result<(), Refusal> {
    let id: TokenId = id.parse().map_err(|error: microcluster::token::TokenIdError| {
        Refusal::new(RefusalCode::TokenUnknown, error).hint("`skiff tokens list` lists them")
    })?;
    desk.revoke_token(id).await
}

fn view(token: &TokenRecord, now: OffsetDateTime) -> Token {
    let state = match token.state_at(now) {
        TokenState::Live => skiff_api::TokenState::Live,
        TokenState::Used => skiff_api::TokenState::Used,
        TokenState::Expired => skiff_api::TokenState::Expired,
        TokenState::Revoked => skiff_api::TokenState::Revoked,
        TokenState::WornOut => skiff_api::TokenState::WornOut,
    };
    Token {
        id: token.id.to_string(),
        role: token.role.to_string(),
        state,
        name: token.name.as_ref().map(ToString::to_string),
        uses: token.uses,
        uses_left: token.uses_left,
        expires: token.expires.format(&Rfc3339).unwrap_or_default(),
        command: None,
    }
}

/// Where the control plane is, as far as there is room in a token.
fn endpoints(members: &[MemberView]) -> Vec<Endpoint> {
    let answers = |member: &&MemberView| {
        member.role == NodeRole::ControlPlane && matches!(member.state, MemberState::Member)
    };
    let control_plane = members.iter().filter(answers);
    let addresses = control_plane.flat_map(|member| &member.addresses);
    let endpoints = addresses.filter_map(|a| Endpoint::new(Host::Address(*a), agent::PORT).ok());
    endpoints.take(TOKEN_ADDRESSES_MAX).collect()
}

/// A fresh private key comes from the system's random source.
fn secret() -> Result<Secret, rcgen::Error> {
    let digest = Sha256::digest(KeyPair::generate()?.serialize_der());
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    Ok(Secret::from_bytes(bytes))
}
