//! Joining: ask, which changes nothing, and enter, which consumes a use of the token.
//!
//! A message that is repeated (a lost answer, a joiner that died, somebody who recorded it) is
//! known by the joiner's key, of which the node's id is made: while the node is *joining* it gets
//! the same answer once more and no further use is spent; when it is a member it is refused; when
//! it was removed or undone it is refused by what is remembered of it. That needs no memory of
//! numbers used once, which would be one more thing to keep and to bound, and it is what the
//! joiner needs itself. A message that is old is refused by its time, which the token has signed.

use time::{Duration, OffsetDateTime};

use super::applicant::check_applicant;
use super::caller::{Caller, removed_refusal};
use super::check_clocks;
use super::decision::{Decision, Outcome};
use super::request::{order_leaves, read_requests};
use crate::message::{Applicant, Enter, Entrant, Refusal, RefusalCode, SigningRequest};
use crate::record::{
    AppliedSettings, ClusterRecord, DoneSteps, Fingerprint, MemberRecord, MemberState, NodeId,
    NodeName, NodeRole, RemovalReason, Rest, Versioned,
};
use crate::store::Change;
use crate::token::{ProofError, Proven, Statement, TokenRecord, TokenState};
use crate::trust::Purpose;
use crate::version::Version;

/// From entering to being Ready. On a slow machine the images are read from the disk first.
pub const JOIN_TIME_MAX: Duration = Duration::minutes(30);
/// An age recipient has 62 characters.
const RECIPIENT_LENGTH_MAX: usize = 128;

/// Whether a machine could join, without changing anything.
pub fn decide_ask(
    record: &ClusterRecord,
    proven: &Proven,
    now: OffsetDateTime,
) -> Result<Decision, Refusal> {
    let (token, applicant) = open::<Applicant>(record, proven)?;
    check_clocks(applicant.sent, now)?;
    check_not_removed(record, applicant.id)?;
    if let Some(member) = record.member(applicant.id) {
        check_joins(member, &token.value, &applicant, now)?;
        return Ok(Decision::of(Outcome::Asked));
    }
    redeem(&token.value, now)?;
    check_applicant(record, &token.value, &applicant)?;
    Ok(Decision::of(Outcome::Asked))
}

/// Lets a machine in, as *joining*.
pub fn decide_enter(
    record: &ClusterRecord,
    enter: &Enter,
    release: Version,
    caller: &Caller,
    now: OffsetDateTime,
) -> Result<Decision, Refusal> {
    let proven = match enter {
        Enter::Proven(proven) => proven,
        Enter::Again { requests } => {
            return repeat(caller.identify(record, now)?, requests, now);
        }
    };
    let (token, entrant) = open::<Entrant>(record, proven)?;
    let applicant = &entrant.applicant;
    check_clocks(applicant.sent, now)?;
    check_not_removed(record, applicant.id)?;
    if let Some(member) = record.member(applicant.id) {
        check_joins(member, &token.value, applicant, now)?;
        return repeat(member, &entrant.requests, now);
    }
    let redeemed = redeem(&token.value, now)?;
    let name = check_applicant(record, &token.value, applicant)?;
    let recipient = check_recipient(applicant.role, entrant.recipient.as_deref())?;
    let keys = read_requests(&entrant.requests, applicant.role)?;
    let own = keys.get(&Purpose::Node).map(|key| key.public_key());
    let own = own.filter(|key| NodeId::of_key(key) == applicant.id).ok_or_else(|| {
        let message = "there is no signing request for node with the key that the id is made of";
        Refusal::new(RefusalCode::RequestInvalid, message)
    })?;
    let until = now + JOIN_TIME_MAX;
    let state = MemberState::Joining { until, token: token.value.id, recipient: recipient.clone() };
    let key = Fingerprint::of(own);
    let member = new_member(name.clone(), applicant, &token.value, (state, key, release), now);
    let orders = order_leaves(&keys, &member, now)?;
    let changes = vec![
        Change::PutMember { member: Box::new(member), was: None },
        Change::token(redeemed, token),
        Change::membership(record),
    ];
    Ok(Decision { changes, orders, outcome: Outcome::Entered { name, until, recipient } })
}

fn new_member(
    name: NodeName,
    applicant: &Applicant,
    token: &TokenRecord,
    (state, key, release): (MemberState, Fingerprint, Version),
    now: OffsetDateTime,
) -> MemberRecord {
    MemberRecord {
        name,
        id: applicant.id,
        role: token.role,
        state,
        addresses: applicant.addresses.clone(),
        release,
        kubernetes: applicant.kubernetes,
        failure_domain: applicant.failure_domain.clone(),
        labels: token.labels.clone(),
        taints: token.taints.clone(),
        keys: vec![key],
        certificates: vec![],
        joined: now,
        last_contact: now,
        settings: AppliedSettings::default(),
        rotation: DoneSteps::default(),
        rest: Rest::default(),
    }
}

/// The same once more, for a node that is still joining.
fn repeat(
    member: &Versioned<MemberRecord>,
    requests: &[SigningRequest],
    now: OffsetDateTime,
) -> Result<Decision, Refusal> {
    let MemberState::Joining { until, ref recipient, .. } = member.value.state else {
        return Err(already_member(&member.value));
    };
    check_in_time(until, now)?;
    let keys = read_requests(requests, member.value.role)?;
    let own = keys.get(&Purpose::Node).map(|key| Fingerprint::of(key.public_key()));
    if own.is_some_and(|own| !member.value.keys.contains(&own)) {
        let message = "a node that enters again does so with the key that it entered with";
        return Err(Refusal::new(RefusalCode::RequestInvalid, message));
    }
    let again = MemberRecord { last_contact: now, ..member.value.clone() };
    let orders = order_leaves(&keys, &again, now)?;
    let (name, recipient) = (again.name.clone(), recipient.clone());
    let changes = vec![Change::member(again, member)];
    Ok(Decision { changes, orders, outcome: Outcome::Entered { name, until, recipient } })
}

/// Whether a node that is there already is the applicant, on its way in.
fn check_joins(
    member: &Versioned<MemberRecord>,
    token: &TokenRecord,
    applicant: &Applicant,
    now: OffsetDateTime,
) -> Result<(), Refusal> {
    let member = &member.value;
    let MemberState::Joining { until, token: joins_with, .. } = member.state else {
        return Err(already_member(member));
    };
    let is_same = joins_with == token.id
        && member.name.as_str() == applicant.name
        && member.role == applicant.role
        && member.addresses == applicant.addresses;
    if !is_same {
        let message =
            format!("this node joins already, as {} with another token or address", member.name);
        return Err(Refusal::new(RefusalCode::AlreadyMember, message)
            .hint("let it finish, or give it up on that machine with `skiff reset`"));
    }
    check_in_time(until, now)
}

fn check_in_time(until: OffsetDateTime, now: OffsetDateTime) -> Result<(), Refusal> {
    if now < until {
        return Ok(());
    }
    Err(removed_refusal(RemovalReason::Expired.sentence()))
}

fn check_not_removed(record: &ClusterRecord, id: NodeId) -> Result<(), Refusal> {
    match record.removed.get(&id) {
        None => Ok(()),
        Some(removed) => Err(removed_refusal(removed.value.reason.sentence())),
    }
}

fn already_member(member: &MemberRecord) -> Refusal {
    let message = format!("{} is a member already", member.name);
    Refusal::new(RefusalCode::AlreadyMember, message)
}

/// Finds the token and reads what its bearer stated. Whoever does not have the secret learns only
/// that.
pub(super) fn open<'a, S: Statement>(
    record: &'a ClusterRecord,
    proven: &Proven,
) -> Result<(&'a Versioned<TokenRecord>, S), Refusal> {
    let unknown = || {
        let message = format!("this cluster does not know the token {}", proven.token);
        Refusal::new(RefusalCode::TokenUnknown, message)
            .hint("is it of another cluster, or an old one? `skiff add-node` makes a new one")
    };
    let token = record.tokens.get(&proven.token).ok_or_else(unknown)?;
    match proven.open(&token.value) {
        Ok(stated) => Ok((token, stated)),
        Err(ProofError::Wrong) => Err(unknown()),
        Err(ProofError::Unreadable(source)) => {
            let message = format!("what the joiner states cannot be read: {source}");
            Err(Refusal::new(RefusalCode::Malformed, message))
        }
    }
}

fn redeem(token: &TokenRecord, now: OffsetDateTime) -> Result<TokenRecord, Refusal> {
    token.redeem(now).map_err(|state| {
        let (code, what) = match state {
            TokenState::Expired => (RefusalCode::TokenExpired, "has expired"),
            TokenState::Revoked => (RefusalCode::TokenRevoked, "was revoked"),
            TokenState::Used | TokenState::Live => (RefusalCode::TokenUsed, "was used already"),
            TokenState::WornOut => {
                (RefusalCode::TokenWornOut, "began too many joins that were given up")
            }
        };
        Refusal::new(code, format!("the token {} {what}", token.id))
            .hint("`skiff add-node` on a member makes a new one")
    })
}

pub(super) fn check_recipient(
    role: NodeRole,
    recipient: Option<&str>,
) -> Result<Option<String>, Refusal> {
    match (role, recipient) {
        (NodeRole::Worker, _) => Ok(None),
        (NodeRole::ControlPlane, Some(text))
            if text.starts_with("age1")
                && text.len() <= RECIPIENT_LENGTH_MAX
                && text.chars().all(|c| c.is_ascii_alphanumeric()) =>
        {
            Ok(Some(text.to_owned()))
        }
        (NodeRole::ControlPlane, _) => {
            let message = "a control-plane node says to which key the authorities' are sealed";
            Err(Refusal::new(RefusalCode::RequestInvalid, message))
        }
    }
}
