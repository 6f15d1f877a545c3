//! Whether most of the datastore's voters are there: seen here before anybody asks for what nobody
//! can answer without them.
//!
//! The own datastore tells who votes and who is heard of, also without a leader. One that has just
//! started does not serve before it has found a leader; then whoever answers at the other nodes'
//! port counts.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use microcluster::message::{self, RefusalCode};
use microcluster::record::{MemberView, NodeId, NodeRole};
use skiff_api::{Notice, Quorum, QuorumMember};
use skiff_datastore::member::report::MemberReport;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::net::TcpStream;

use super::{Cluster, Membership, peers};
use crate::daemons::agent;
use crate::node::core::Node;
use crate::node::plan::NO_QUORUM;
use crate::node::server::Refusal;

/// How often is looked.
const INTERVAL: Duration = Duration::from_secs(3);
/// An election is over within seconds: what was so at as many looks in a row is told.
const LOOKS: u32 = 3;
/// What the own datastore, or another node's port, may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// When each node's member was last reachable.
type Contacts = BTreeMap<NodeId, OffsetDateTime>;

/// Ends never. Tells the board and the cluster what is seen.
pub async fn run(node: Arc<Node>, cluster: Arc<Cluster>) {
    if cluster.desk.is_none() {
        return;
    }
    let (mut contacts, mut lost_looks) = (Contacts::new(), 0);
    loop {
        let membership = cluster.membership();
        let quorum = look(&cluster, &membership, &mut contacts).await;
        if lost_looks >= LOOKS && !quorum.is_lost() {
            tracing::info!("the datastore has its quorum again");
        }
        lost_looks = if quorum.is_lost() { lost_looks + 1 } else { 0 };
        let is_lost = lost_looks >= LOOKS;
        if lost_looks == LOOKS {
            tracing::error!(reason = sentence(&quorum), "the datastore has no quorum");
        }
        let notice = is_lost.then(|| notice(&quorum));
        *cluster.quorum.lock().expect("no holder of this lock panics") = Some((quorum, is_lost));
        node.board.update(|observed| {
            observed.notices.retain(|one| one.name != NO_QUORUM);
            if let Some(notice) = notice {
                observed.notices.insert(0, notice);
            }
        });
        tokio::time::sleep(INTERVAL).await;
    }
}

/// As last seen; nothing in the first moment of a skiffd.
pub fn seen(cluster: &Cluster) -> Option<Quorum> {
    let seen = cluster.quorum.lock().expect("no holder of this lock panics");
    seen.as_ref().map(|(quorum, _)| quorum.clone())
}

/// What whoever asks for the record is told while nobody can answer: at once, and why.
pub fn refusal(cluster: &Cluster) -> Option<Refusal> {
    let quorum = lost(cluster)?;
    let mut refusal = Refusal::new(http::StatusCode::SERVICE_UNAVAILABLE, headline(&quorum));
    let gone = quorum.members.iter().filter(|member| !member.reachable);
    refusal.body.causes = gone.map(missing).collect();
    Some(refusal.hint(REMEDY))
}

/// The same for another node, which may be a stranger: not who is missing.
pub fn refusal_of_others(cluster: &Cluster) -> Option<message::Refusal> {
    let quorum = lost(cluster)?;
    let own = cluster.membership().name;
    let refusal = message::Refusal::new(RefusalCode::Unavailable, headline(&quorum));
    let hint = format!("when the others are lost for ever, type on {own}: sudo skiff recover");
    Some(refusal.hint(hint))
}

/// What was seen last, when that is told.
fn lost(cluster: &Cluster) -> Option<Quorum> {
    let seen = cluster.quorum.lock().expect("no holder of this lock panics");
    seen.as_ref().filter(|(_, is_lost)| *is_lost).map(|(quorum, _)| quorum.clone())
}

/// As short as a line.
const REMEDY: &str = "bring it back; moved: skiff start --peer ADDRESS; lost: sudo skiff recover";

async fn look(cluster: &Cluster, membership: &Membership, contacts: &mut Contacts) -> Quorum {
    let asked = tokio::time::timeout(ANSWER_TIMEOUT, peers::list(&cluster.paths)).await;
    let now = OffsetDateTime::now_utc();
    match asked {
        Ok(Ok(reports)) => of_reports(&reports, membership, contacts, now),
        _ => {
            let control_plane =
                membership.members.iter().filter(|one| one.role == NodeRole::ControlPlane);
            let asked = control_plane
                .map(async |one| (one.clone(), one.id == membership.id || answers(one).await));
            let found = futures::future::join_all(asked).await;
            of_ports(&found, membership.id, contacts, now)
        }
    }
}

/// Whether somebody answers where nodes of the cluster meet.
async fn answers(member: &MemberView) -> bool {
    for address in &member.addresses {
        let connected = TcpStream::connect(SocketAddr::new(*address, agent::PORT));
        if matches!(tokio::time::timeout(ANSWER_TIMEOUT, connected).await, Ok(Ok(_))) {
            return true;
        }
    }
    false
}

/// By what the own datastore says.
fn of_reports(
    reports: &[MemberReport],
    membership: &Membership,
    contacts: &mut Contacts,
    now: OffsetDateTime,
) -> Quorum {
    let mut members = Vec::new();
    for report in reports {
        let id = report.node.parse::<NodeId>().ok();
        let known = membership.members.iter().find(|member| Some(member.id) == id);
        let name = known.map_or_else(|| report.id.clone(), |member| member.name.to_string());
        members.push(QuorumMember {
            name,
            address: report.address.clone(),
            own: id == Some(membership.id),
            role: Some(report.role.to_owned()),
            reachable: report.reachable,
            revision: Some(report.revision).filter(|revision| *revision > 0),
            last_contact: note(contacts, id, report.reachable, now),
        });
    }
    let voters = || reports.iter().filter(|report| report.role == "voter");
    let leads = reports.iter().position(|report| report.leads);
    Quorum {
        leader: leads.map(|place| members[place].name.clone()),
        voters: voters().count(),
        reachable: voters().filter(|report| report.reachable).count(),
        members,
    }
}

/// By who answers at all: who votes is not known then, so everybody counts.
fn of_ports(
    found: &[(MemberView, bool)],
    own: NodeId,
    contacts: &mut Contacts,
    now: OffsetDateTime,
) -> Quorum {
    let member = |(member, reachable): &(MemberView, bool)| QuorumMember {
        name: member.name.to_string(),
        address: member.addresses.first().map(ToString::to_string).unwrap_or_default(),
        own: member.id == own,
        role: None,
        reachable: *reachable,
        revision: None,
        last_contact: note(contacts, Some(member.id), *reachable, now),
    };
    let members: Vec<QuorumMember> = found.iter().map(member).collect();
    let reachable = members.iter().filter(|member| member.reachable).count();
    Quorum { leader: None, voters: members.len(), reachable, members }
}

/// Notes that a member is reachable now; answers when it last was.
fn note(
    contacts: &mut Contacts,
    id: Option<NodeId>,
    reachable: bool,
    now: OffsetDateTime,
) -> Option<String> {
    let id = id?;
    if reachable {
        contacts.insert(id, now);
    }
    contacts.get(&id).and_then(|at| at.replace_nanosecond(0).ok()?.format(&Rfc3339).ok())
}

fn notice(quorum: &Quorum) -> Notice {
    let what = "nothing is written, and the API server does not answer; containers go on";
    Notice {
        name: NO_QUORUM.into(),
        message: format!("{}: {what}", sentence(quorum)),
        remedy: Some(REMEDY.into()),
    }
}

/// With who is missing, in one line.
fn sentence(quorum: &Quorum) -> String {
    let gone = quorum.members.iter().filter(|member| !member.reachable);
    let gone: Vec<String> = gone.map(missing).collect();
    format!("{} ({})", headline(quorum), gone.join("; "))
}

fn headline(quorum: &Quorum) -> String {
    let Quorum { reachable, voters, members, .. } = quorum;
    // Who votes is not known while the own datastore does not answer.
    let counted = match members.iter().all(|member| member.role.is_some()) {
        true => "voters",
        false => "control-plane nodes",
    };
    format!("no quorum: {reachable} of {voters} {counted} reachable")
}

fn missing(member: &QuorumMember) -> String {
    let QuorumMember { name, address, last_contact, .. } = member;
    match last_contact {
        Some(at) => format!("{name} at {address} does not answer since {at}"),
        None => format!("{name} at {address} does not answer"),
    }
}

#[cfg(test)]
mod tests {
    use microcluster::record::{AppliedSettings, MemberState};
    use microcluster::version::Version;
    use time::macros::datetime;

    use super::*;

    const NOW: OffsetDateTime = datetime!(2026-11-27 12:00 UTC);

    fn view(name: &str) -> MemberView {
        MemberView {
            name: name.parse().unwrap(),
            id: NodeId::of_key(name.as_bytes()),
            role: NodeRole::ControlPlane,
            state: MemberState::Member,
            addresses: vec![[192, 0, 2, name.len() as u8].into()],
            release: Version::new(0, 1, 0),
            kubernetes: Version::new(1, 36, 3),
            failure_domain: String::new(),
            expires: None,
            last_contact: NOW,
            settings: AppliedSettings::default(),
            rotation: Default::default(),
        }
    }

    fn of_ports_of(reachable: &[bool], contacts: &mut Contacts, now: OffsetDateTime) -> Quorum {
        let names = ["a", "be", "cee"];
        let found: Vec<_> =
            names.iter().zip(reachable).map(|(name, there)| (view(name), *there)).collect();
        of_ports(&found, view("a").id, contacts, now)
    }

    #[test]
    fn a_quorum_is_lost_when_nobody_leads_and_no_majority_answers() {
        let quorum = |leader: bool, voters, reachable| Quorum {
            leader: leader.then(|| "a".to_owned()),
            voters,
            reachable,
            members: vec![],
        };
        for (leader, voters, reachable, lost) in [
            (true, 3, 3, false),
            // It has not heard of the others yet.
            (true, 3, 1, false),
            (false, 3, 2, false),
            (false, 3, 1, true),
            (false, 5, 2, true),
            (false, 1, 0, true),
            (false, 1, 1, false),
        ] {
            assert_eq!(quorum(leader, voters, reachable).is_lost(), lost, "{voters} {reachable}");
        }
    }

    #[test]
    fn who_is_missing_is_told_with_the_last_moment_it_was_there() {
        let mut contacts = Contacts::new();
        assert!(!of_ports_of(&[true, true, false], &mut contacts, NOW).is_lost());
        let later = NOW + time::Duration::SECOND;
        let lost = of_ports_of(&[true, false, false], &mut contacts, later);
        assert!(lost.is_lost());
        assert_eq!(
            sentence(&lost),
            "no quorum: 1 of 3 control-plane nodes reachable (be at 192.0.2.2 does not answer since \
             2026-11-27T12:00:00Z; cee at 192.0.2.3 does not answer)"
        );
    }
}
