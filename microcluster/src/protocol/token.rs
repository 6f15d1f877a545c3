//! Tokens are made and revoked by root on a control-plane member.

use std::collections::BTreeMap;

use time::{Duration, OffsetDateTime};

use super::decision::{Decision, Outcome};
use crate::message::{Refusal, RefusalCode};
use crate::record::{
    ClusterRecord, Fingerprint, LABELS_MAX, NodeName, NodeRole, Rest, TAINTS_MAX, check_label,
    check_taint,
};
use crate::store::Change;
use crate::token::{
    ATTEMPTS_PER_USE, Secret, TOKEN_TTL_MAX, TOKEN_TTL_MIN, TOKEN_USES_MAX, TokenId, TokenRecord,
};

/// Tokens at once, those included that are over and still listed.
pub const TOKENS_MAX: usize = 1000;

/// A token that is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenSpec {
    pub role: NodeRole,
    pub name: Option<NodeName>,
    pub labels: BTreeMap<String, String>,
    pub taints: Vec<String>,
    pub ttl: Duration,
    pub uses: u32,
    /// That signs first; it comes into the token's text.
    pub authority: Fingerprint,
}

/// Adds a token around a secret that is random.
pub fn decide_add_token(
    record: &ClusterRecord,
    spec: &TokenSpec,
    secret: &Secret,
    now: OffsetDateTime,
) -> Result<Decision, Refusal> {
    check_spec(record, spec)?;
    let token = TokenRecord {
        id: secret.token_id(),
        verifier: secret.verifier(),
        authority: spec.authority,
        role: spec.role,
        name: spec.name.clone(),
        labels: spec.labels.clone(),
        taints: spec.taints.clone(),
        created: now,
        expires: now + spec.ttl,
        uses: spec.uses,
        uses_left: spec.uses,
        attempts_left: spec.uses * ATTEMPTS_PER_USE,
        revoked: false,
        rest: Rest::default(),
    };
    let outcome = Outcome::TokenAdded(token.id);
    let changes = vec![Change::PutToken { token: Box::new(token), was: None }];
    Ok(Decision::changing(changes, outcome))
}

fn check_spec(record: &ClusterRecord, spec: &TokenSpec) -> Result<(), Refusal> {
    let refused = |message: String| Err(Refusal::new(RefusalCode::TokenInvalid, message));
    if spec.ttl < TOKEN_TTL_MIN || spec.ttl > TOKEN_TTL_MAX {
        return refused("a token lives from a minute to a year".into());
    }
    if spec.uses == 0 || spec.uses > TOKEN_USES_MAX {
        return refused(format!("a token has 1 to {TOKEN_USES_MAX} uses"));
    }
    if spec.name.is_some() && spec.uses > 1 {
        return refused("one name cannot join several times: take away --uses or --name".into());
    }
    if !record.settings.value.authorities.contains(&spec.authority) {
        return refused("the token names an authority that the cluster does not trust".into());
    }
    if let Some(name) = &spec.name {
        if record.members.contains_key(name) {
            return Err(Refusal::new(
                RefusalCode::NameTaken,
                format!("there is a node {name} in the cluster already"),
            ));
        }
        if record.settings.value.reserves_name(name) {
            let message = format!("a node cannot be called {name}");
            return Err(Refusal::new(RefusalCode::NameReserved, message));
        }
    }
    if spec.labels.len() > LABELS_MAX || spec.taints.len() > TAINTS_MAX {
        return refused(format!("{LABELS_MAX} labels and {TAINTS_MAX} taints are the most"));
    }
    let labels = spec.labels.iter().map(|(key, value)| check_label(key, value));
    let mut checks = labels.chain(spec.taints.iter().map(|taint| check_taint(taint)));
    if let Some(Err(error)) = checks.find(Result::is_err) {
        return refused(error.to_string());
    }
    if record.tokens.len() >= TOKENS_MAX {
        return refused(format!("there are {TOKENS_MAX} tokens: `skiff tokens revoke` some"));
    }
    Ok(())
}

/// Nobody joins with it any more. Those who have entered already may finish.
pub fn decide_revoke_token(record: &ClusterRecord, id: TokenId) -> Result<Decision, Refusal> {
    let Some(token) = record.tokens.get(&id) else {
        return Err(Refusal::new(RefusalCode::TokenUnknown, format!("there is no token {id}"))
            .hint("`skiff tokens list` lists them"));
    };
    let changes = match token.value.revoked {
        true => vec![],
        false => vec![Change::token(TokenRecord { revoked: true, ..token.value.clone() }, token)],
    };
    Ok(Decision::changing(changes, Outcome::TokenRevoked(id)))
}
