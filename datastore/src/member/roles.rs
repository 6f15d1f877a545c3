//! Which member votes. Pure: from what is observed to the next single change.
//!
//! Voters are 1, 3 or 5 at rest. One member in between is a step of a pair:
//!
//! ```text
//!   1 ──> 2 ──> 3      a pair of stand-bys is promoted, one after the other
//!   3 ──> 4 ──> 3      a voter is replaced: first promote, then demote
//!   3 ──> 2 ──> 1      a pair is demoted when members have gone
//! ```
//!
//! A dead voter is replaced when a stand-by is there and otherwise kept:
//! fewer voters would mean fewer copies of what is acknowledged next. No
//! change is made whose result has fewer living voters than a majority.

use std::collections::BTreeSet;

use dqlite::{MemberId, Role};

/// Voters at most: more would slow writes and survive no likelier accident.
const VOTERS_MAX: usize = 5;
/// Stand-bys at rest: the pair that is promoted next.
const STANDBYS: usize = 2;

/// A member as the leader sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observed {
    pub id: MemberId,
    pub role: Role,
    /// Has answered for long enough to be counted on.
    pub is_steady: bool,
    /// Has not answered for so long that it is counted out.
    pub is_dead: bool,
    pub is_leader: bool,
    /// What fails together carries the same name; empty is a domain of its own.
    pub failure_domain: String,
    /// Rows that it is behind the leader.
    pub lag: u64,
}

/// The next change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoleChange {
    pub member: MemberId,
    pub role: Role,
}

/// How many voters so many members should have at rest.
pub fn voters_wanted(members: usize) -> usize {
    match members {
        0..=2 => 1,
        3..=4 => 3,
        _ => VOTERS_MAX,
    }
}

/// The next change, or nothing when all is well or nothing can be done.
pub fn choose_change(members: &[Observed]) -> Option<RoleChange> {
    let voters = of_role(members, Role::Voter);
    let wanted = voters_wanted(members.len());
    let change = if voters.len() < wanted {
        grow(members, &voters, wanted)
    } else if voters.len() > wanted {
        shrink(members, &voters)
    } else {
        replace(members, &voters).or_else(|| arrange_standbys(members))
    };
    change.filter(|change| keeps_majority(members, *change))
}

fn of_role(members: &[Observed], role: Role) -> Vec<&Observed> {
    members.iter().filter(|member| member.role == role).collect()
}

/// Stand-bys that can vote at once, the best first.
fn candidates<'a>(members: &'a [Observed], voters: &[&Observed]) -> Vec<&'a Observed> {
    let mut candidates = of_role(members, Role::Standby);
    candidates.retain(|member| member.is_steady);
    candidates.sort_by_key(|member| (shares_domain(member, voters), member.lag, member.id));
    candidates
}

fn shares_domain(member: &Observed, voters: &[&Observed]) -> bool {
    let others = voters.iter().filter(|voter| voter.id != member.id);
    !member.failure_domain.is_empty()
        && others.into_iter().any(|voter| voter.failure_domain == member.failure_domain)
}

/// Promotes the first of a pair only when the second is there too.
fn grow(members: &[Observed], voters: &[&Observed], wanted: usize) -> Option<RoleChange> {
    let candidates = candidates(members, voters);
    let is_odd = voters.len() % 2 == 1;
    let needed = if is_odd { 2 } else { 1 };
    if candidates.len() >= needed {
        return candidates.first().map(|member| to(member, Role::Voter));
    }
    if !is_odd && wanted > voters.len() && voters.len() > 1 {
        // The second of the pair has gone: back to an odd number.
        return arrange_standbys(members).or_else(|| shrink(members, voters));
    }
    arrange_standbys(members)
}

/// Demotes whoever is missed least; never the leader.
fn shrink(members: &[Observed], voters: &[&Observed]) -> Option<RoleChange> {
    let least = voters.iter().filter(|voter| !voter.is_leader).max_by_key(|voter| {
        let rank = (voter.is_dead, !voter.is_steady, shares_domain(voter, voters));
        (rank, voter.lag, voter.id)
    })?;
    let is_useful = least.is_steady && of_role(members, Role::Standby).len() < STANDBYS;
    Some(to(least, if is_useful { Role::Standby } else { Role::Spare }))
}

/// Promotes a stand-by in the place of a dead voter, or of one that shares
/// its fate with another: the surplus one is then demoted.
fn replace(members: &[Observed], voters: &[&Observed]) -> Option<RoleChange> {
    let candidates = candidates(members, voters);
    let has_dead = voters.iter().any(|voter| voter.is_dead);
    if has_dead {
        return candidates.first().map(|member| to(member, Role::Voter));
    }
    let is_doubled = |voter: &&&Observed| !voter.is_leader && shares_domain(voter, voters);
    let is_calm = voters.iter().all(|voter| voter.is_steady || voter.is_leader);
    let better = candidates.first().filter(|member| !shares_domain(member, voters))?;
    let spreads = is_calm && voters.iter().any(|voter| is_doubled(&voter));
    spreads.then(|| to(better, Role::Voter))
}

/// Keeps a pair of stand-bys ready among those that don't vote.
fn arrange_standbys(members: &[Observed]) -> Option<RoleChange> {
    let standbys = of_role(members, Role::Standby);
    let mut spares = of_role(members, Role::Spare);
    spares.retain(|member| member.is_steady);
    let voters = of_role(members, Role::Voter);
    spares.sort_by_key(|member| (shares_domain(member, &voters), member.id));
    let dead = standbys.iter().find(|member| member.is_dead);
    if standbys.len() < STANDBYS {
        return spares.first().map(|member| to(member, Role::Standby));
    }
    if let (Some(dead), false) = (dead, spares.is_empty()) {
        return Some(to(dead, Role::Spare));
    }
    if standbys.len() > STANDBYS {
        return standbys.last().map(|member| to(member, Role::Spare));
    }
    None
}

fn to(member: &Observed, role: Role) -> RoleChange {
    RoleChange { member: member.id, role }
}

/// Whether a change leaves a majority of living voters.
pub fn keeps_majority(members: &[Observed], change: RoleChange) -> bool {
    let votes = |member: &&Observed| match member.id == change.member {
        true => change.role == Role::Voter,
        false => member.role == Role::Voter,
    };
    let voters: Vec<&Observed> = members.iter().filter(votes).collect();
    let living = voters.iter().filter(|voter| !voter.is_dead).count();
    let distinct: BTreeSet<_> = voters.iter().map(|voter| voter.id).collect();
    living > distinct.len() / 2
}

#[cfg(test)]
#[path = "roles_test.rs"]
mod tests;
