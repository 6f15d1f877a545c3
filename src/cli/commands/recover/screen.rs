//! What is found of a lost quorum, and what was done.

use std::path::PathBuf;

use microcluster::record::MemberView;
use serde::Serialize;
use skiff_api::Quorum;
use skiff_datastore::recovery::{State, Verdict};
use time::format_description::well_known::Rfc3339;

use crate::cli::output::{self, Cell};
use crate::cli::ui::Paint;
use crate::node::cluster::recover::Survivor;

/// What is found, and what was done.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Screen {
    members: Vec<Line>,
    /// Control-plane nodes that will not belong to the cluster any more; nobody where the quorum is
    /// not lost.
    leaves_behind: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recovered: Option<Done>,
}

/// A member of the datastore.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    node: String,
    address: String,
    own: bool,
    /// `this-node`, `leads`, `runs`, `stopped` or `silent`.
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    revision: Option<i64>,
    /// Of the cluster's record.
    #[serde(skip_serializing_if = "Option::is_none")]
    record_revision: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_contact: Option<String>,
    /// Why it did not answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Done {
    pub node: String,
    pub revision: i64,
    pub removed: Vec<String>,
    pub former: Option<PathBuf>,
}

/// What skiffd sees while the node runs.
pub fn of_quorum(quorum: &Quorum) -> Screen {
    let line = |member: &skiff_api::QuorumMember| Line {
        node: member.name.clone(),
        address: member.address.clone(),
        own: member.own,
        state: match (member.own, member.reachable) {
            _ if quorum.leader.as_ref() == Some(&member.name) => "leads",
            (true, _) => "this-node",
            (false, true) => "runs",
            (false, false) => "silent",
        },
        revision: member.revision,
        record_revision: None,
        last_contact: member.last_contact.clone().filter(|_| !member.own),
        reason: None,
    };
    let others = quorum.members.iter().filter(|member| !member.own && quorum.is_lost());
    Screen {
        members: quorum.members.iter().map(line).collect(),
        leaves_behind: others.map(|member| member.name.clone()).collect(),
        recovered: None,
    }
}

/// `seen` is what skiffd saw before the node was stopped.
pub fn of_survivor(survivor: &Survivor, seen: Option<&Quorum>, verdict: &Verdict) -> Screen {
    let found = survivor.found();
    let mut members = vec![Line {
        node: survivor.name(),
        address: found.address.clone(),
        own: true,
        state: "this-node",
        revision: Some(found.revision),
        record_revision: found.cluster.map(|record| record.revision),
        last_contact: None,
        reason: None,
    }];
    for other in &found.others {
        let view = survivor.node(&other.node);
        let node = view.as_ref().map_or_else(|| other.member.clone(), |view| view.name.to_string());
        let was_seen = seen.and_then(|quorum| quorum.members.iter().find(|one| one.name == node));
        let last_contact = was_seen.and_then(|one| one.last_contact.clone());
        let (state, revision, record_revision, reason) = match &other.state {
            State::Silent { reason } => ("silent", None, None, Some(reason.clone())),
            State::Running { revision, cluster_revision, leads } => {
                let state = if *leads { "leads" } else { "runs" };
                (state, Some(*revision), *cluster_revision, None)
            }
            State::Stopped { .. } => ("stopped", None, None, None),
        };
        members.push(Line {
            node,
            address: other.address.clone(),
            own: false,
            state,
            revision,
            record_revision,
            last_contact: last_contact.or_else(|| recorded(view.as_ref())),
            reason,
        });
    }
    let leaves_behind = match verdict {
        Verdict::Led(_) => vec![],
        Verdict::Behind(_) | Verdict::Best { .. } => survivor.leaves_behind(),
    };
    Screen { members, leaves_behind, recovered: None }
}

/// When the cluster's record heard of a node last: at the latest renewal of its certificates.
fn recorded(view: Option<&MemberView>) -> Option<String> {
    view.and_then(|view| view.last_contact.replace_nanosecond(0).ok()?.format(&Rfc3339).ok())
}

pub fn text(screen: &Screen, paint: Paint) -> String {
    let number = |number: Option<i64>| number.map_or_else(|| "-".into(), |one| one.to_string());
    let heads = ["NODE", "STATE", "REVISION", "RECORD", "LAST CONTACT", "ADDRESS"];
    let mut rows = vec![heads.map(Cell::from).to_vec()];
    for line in &screen.members {
        rows.push(vec![
            (&line.node).into(),
            line.state.into(),
            number(line.revision).into(),
            number(line.record_revision).into(),
            line.last_contact.as_deref().unwrap_or("-").into(),
            (&line.address).into(),
        ]);
    }
    let mut out = output::table(&rows, 0, paint);
    if screen.leaves_behind.is_empty() {
        return out;
    }
    let silent = screen.members.iter().filter(|line| line.state == "silent");
    let silent: Vec<&str> = silent.map(|line| line.node.as_str()).collect();
    if !silent.is_empty() {
        let names = silent.join(", ");
        let lost = format!(
            "Nobody knows what {names} acknowledged besides: what this node has not received is \
             lost."
        );
        out.push_str(&output::paragraph(&lost, 0));
    }
    let names = screen.leaves_behind.join(", ");
    let removed = format!("No longer members, and refused from then on: {names}.");
    out.push_str(&output::paragraph(&removed, 0));
    out
}

pub fn done(screen: &Screen, paint: Paint) -> String {
    let Some(recovered) = &screen.recovered else { return String::new() };
    let mut rows: Vec<Vec<Cell>> = vec![
        vec!["recovered".into(), (&recovered.node).into()],
        vec!["goes on at".into(), recovered.revision.to_string().into()],
    ];
    rows.extend(recovered.removed.iter().map(|name| vec!["removed".into(), name.into()]));
    if let Some(former) = &recovered.former {
        rows.push(vec!["former".into(), former.display().to_string().into()]);
    }
    let next = "Keep the removed machines off the network until `sudo skiff reset` has emptied \
                them. They and others join with new tokens: sudo skiff add-node";
    format!("\n{}\n{}", output::table(&rows, 0, paint), output::paragraph(next, 0))
}
