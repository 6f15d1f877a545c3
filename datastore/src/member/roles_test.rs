use proptest::prelude::*;

use super::*;

/// `V`, `S` or `-` for voter, stand-by, spare; then `L` for the leader, `?`
/// for one that is not steady, `x` for a dead one; then its failure domain.
fn observed(words: &str) -> Vec<Observed> {
    let member = |(number, word): (usize, &str)| {
        let (role, rest) = word.split_at(1);
        let (mark, domain) = match rest.chars().next() {
            Some(mark @ ('L' | '?' | 'x')) => (mark, &rest[1..]),
            _ => (' ', rest),
        };
        Observed {
            id: MemberId(number as u64 + 1),
            role: match role {
                "V" => Role::Voter,
                "S" => Role::Standby,
                _ => Role::Spare,
            },
            is_steady: !matches!(mark, '?' | 'x'),
            is_dead: mark == 'x',
            is_leader: mark == 'L',
            failure_domain: domain.to_owned(),
            lag: 0,
        }
    };
    words.split_whitespace().enumerate().map(member).collect()
}

fn chosen(words: &str) -> String {
    choose_change(&observed(words))
        .map_or("nothing".to_owned(), |change| format!("{} {:?}", change.member, change.role))
}

#[test]
fn the_next_change_of_every_situation() {
    for (members, change) in [
        // Alone and in two there is one voter; the other stands by.
        ("VL", "nothing"),
        ("VL -", "2 Standby"),
        ("VL S", "nothing"),
        // The third makes a pair, which is promoted one after the other.
        ("VL S -", "3 Standby"),
        ("VL S S", "2 Voter"),
        ("VL V S", "3 Voter"),
        ("VL V V", "nothing"),
        // Half a pair is never begun, and taken back when the other half goes.
        ("VL S S?", "nothing"),
        ("VL V Sx", "2 Standby"),
        ("VL V -x", "2 Standby"),
        // Four and more: the others stand by, at most two of them.
        ("VL V V -", "4 Standby"),
        ("VL V V S", "nothing"),
        ("VL V V S S", "4 Voter"),
        ("VL V V V S", "5 Voter"),
        ("VL V V V V -", "6 Standby"),
        ("VL V V V V S S -", "nothing"),
        ("VL V V V V S Sx -", "7 Spare"),
        // A dead voter is replaced by a stand-by, and kept without one.
        ("VL V Vx", "nothing"),
        ("VL V Vx S", "4 Voter"),
        ("VL V Vx V", "3 Spare"),
        ("VL V Vx S?", "nothing"),
        ("VL V Vx Vx V", "nothing"),
        ("VL V V? S", "nothing"),
        // Members were removed: a pair goes, never the leader.
        ("VL V", "2 Standby"),
        ("V VL", "1 Standby"),
        ("V V VL V", "4 Standby"),
        ("V Vx VL V", "2 Spare"),
        // Failure domains: the pair that spreads, and a swap that does.
        ("VLa Sa Sb", "3 Voter"),
        ("VLa Va Vb Sc", "4 Voter"),
        ("VLa Va Vb Vc", "2 Standby"),
        ("VLa Vc Vb Sa", "nothing"),
        ("VLa Va? Vb Sc", "nothing"),
        ("V V V VL V -a Sa S", "nothing"),
    ] {
        assert_eq!(chosen(members), change, "{members}");
    }
}

fn any_member() -> impl Strategy<Value = (Role, u8, u8)> {
    let role = prop_oneof![Just(Role::Voter), Just(Role::Standby), Just(Role::Spare)];
    (role, 0..3u8, 0..4u8)
}

fn members_of(drawn: &[(Role, u8, u8)], leader: usize) -> Vec<Observed> {
    let member = |(number, (role, mark, domain)): (usize, &(Role, u8, u8))| {
        let is_leader = number == leader;
        Observed {
            id: MemberId(number as u64 + 1),
            role: if is_leader { Role::Voter } else { *role },
            is_steady: is_leader || *mark == 0,
            is_dead: !is_leader && *mark == 2,
            is_leader,
            failure_domain: if *domain == 0 { String::new() } else { domain.to_string() },
            lag: u64::from(*domain),
        }
    };
    drawn.iter().enumerate().map(member).collect()
}

fn votes(members: &[Observed]) -> usize {
    members.iter().filter(|member| member.role == Role::Voter).count()
}

fn has_majority(members: &[Observed]) -> bool {
    let voters = members.iter().filter(|member| member.role == Role::Voter);
    voters.clone().filter(|voter| !voter.is_dead).count() > voters.count() / 2
}

fn domains(members: &[Observed]) -> usize {
    let voters = members.iter().filter(|member| member.role == Role::Voter);
    let unnamed = voters.clone().filter(|voter| voter.failure_domain.is_empty()).count();
    let named: BTreeSet<_> =
        voters.map(|voter| &voter.failure_domain).filter(|name| !name.is_empty()).collect();
    unnamed + named.len()
}

/// Applies what is chosen until nothing is.
fn settle(members: &mut [Observed]) -> Result<usize, TestCaseError> {
    for step in 0..64 {
        let Some(change) = choose_change(members) else { return Ok(step) };
        let had_majority = has_majority(members);
        let member = members.iter_mut().find(|member| member.id == change.member);
        let member = member.expect("a change is of one of the members");
        prop_assert!(member.role != change.role, "nothing changes: {change:?}");
        prop_assert!(!member.is_leader, "the leader's role is changed");
        let promoted = change.role == Role::Voter;
        prop_assert!(!promoted || member.is_steady, "{change:?} can't vote at once");
        member.role = change.role;
        prop_assert!(!had_majority || has_majority(members), "{change:?} loses the majority");
    }
    Err(TestCaseError::fail(format!("no end: {members:?}")))
}

proptest! {
    #[test]
    fn changes_end_and_never_lose_the_majority(
        drawn in prop::collection::vec(any_member(), 1..9),
        leader in any::<prop::sample::Index>(),
    ) {
        let mut members = members_of(&drawn, leader.index(drawn.len()));
        settle(&mut members)?;
    }

    #[test]
    fn when_all_are_well_voters_are_odd_and_as_many_as_wanted(
        drawn in prop::collection::vec(any_member(), 1..9),
        leader in any::<prop::sample::Index>(),
    ) {
        let mut members = members_of(&drawn, leader.index(drawn.len()));
        settle(&mut members)?;
        for member in &mut members {
            (member.is_steady, member.is_dead) = (true, false);
        }
        settle(&mut members)?;
        prop_assert_eq!(votes(&members), voters_wanted(members.len()));
        prop_assert_eq!(votes(&members) % 2, 1);
        let standbys = members.iter().filter(|member| member.role == Role::Standby).count();
        prop_assert_eq!(standbys, STANDBYS.min(members.len() - votes(&members)));
    }

    #[test]
    fn without_dead_members_voters_come_to_be_odd(
        drawn in prop::collection::vec(any_member(), 1..9),
        leader in any::<prop::sample::Index>(),
    ) {
        let mut members = members_of(&drawn, leader.index(drawn.len()));
        for member in &mut members {
            member.is_dead = false;
        }
        settle(&mut members)?;
        prop_assert_eq!(votes(&members) % 2, 1, "{:?}", members);
    }

    #[test]
    fn settling_never_brings_voters_closer_together(
        drawn in prop::collection::vec(any_member(), 3..9),
        leader in any::<prop::sample::Index>(),
    ) {
        let mut members = members_of(&drawn, leader.index(drawn.len()));
        for member in &mut members {
            (member.is_steady, member.is_dead) = (true, false);
        }
        settle(&mut members)?;
        // No stand-by of a domain of its own is left beside a pair that shares one.
        let voters = of_role(&members, Role::Voter);
        let doubled = voters.iter().any(|voter| !voter.is_leader && shares_domain(voter, &voters));
        let better = of_role(&members, Role::Standby)
            .into_iter()
            .any(|standby| !shares_domain(standby, &voters));
        prop_assert!(!(doubled && better), "{} domains: {:?}", domains(&members), members);
    }
}
