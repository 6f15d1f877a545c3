use std::process::ExitCode;

use skiff_api::{ClusterNode, NodeSettings, NodeState};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::Outcome;
use super::tokens::until;
use crate::cli::Session;
use crate::cli::output::{self, Cell, Choice};
use crate::cli::ui::{Paint, Tone};

/// List the nodes of the cluster
///
/// DATA is what a node does for the cluster's data: the leader and the voters
/// must agree on each change, a majority of them is needed; others stand by.
/// EXPIRES is when the first of a node's certificates ends; it gets new ones
/// at half of their life. CONTACT is when the node was last heard of. A worker
/// does not see which of the others are ready. Below is who does not run with the
/// newest settings of the cluster, and why.
///
///   skiff nodes
///   skiff nodes --names
#[derive(clap::Args, Debug)]
#[command(verbatim_doc_comment)]
pub struct Arguments {
    /// Their names alone, a line each
    #[arg(long, conflicts_with = "format")]
    names: bool,

    #[command(flatten)]
    output: Choice,
}

pub(super) async fn run(arguments: Arguments, session: &Session) -> Outcome {
    let nodes: Vec<ClusterNode> = session.client().get("/v1/cluster/nodes").await?;
    if arguments.names {
        output::write(&nodes.iter().map(|node| format!("{}\n", node.name)).collect::<String>())?;
        return Ok(ExitCode::SUCCESS);
    }
    let now = OffsetDateTime::now_utc();
    output::print(arguments.output, &nodes, |all, paint| text(all, now, paint))?;
    Ok(ExitCode::SUCCESS)
}

fn text(nodes: &[ClusterNode], now: OffsetDateTime, paint: Paint) -> String {
    let heads = ["NAME", "ROLE", "STATE", "DATA", "VERSION", "EXPIRES", "CONTACT", "ADDRESS"];
    let mut rows = vec![heads.map(Cell::from).to_vec()];
    let time = |at: &Option<String>| at.as_deref().map_or_else(|| "-".into(), |at| until(at, now));
    // Clocks of nodes differ: nobody was heard of in the future.
    let contact = |at: &Option<String>| match OffsetDateTime::parse(at.as_deref()?, &Rfc3339) {
        Ok(at) => {
            Some(format!("{} ago", output::age((now - at).whole_seconds().max(0).unsigned_abs())))
        }
        Err(_) => None,
    };
    for node in nodes {
        let (state, tone) = match node.state {
            NodeState::Ready => ("ready", Tone::Good),
            NodeState::NotReady => ("not-ready", Tone::Bad),
            NodeState::Joining => ("joining", Tone::Warn),
            NodeState::Leaving => ("leaving", Tone::Warn),
            NodeState::Member => ("member", Tone::Plain),
        };
        rows.push(vec![
            (&node.name).into(),
            (&node.role).into(),
            Cell::new(state, tone),
            node.datastore.as_deref().unwrap_or("-").into(),
            (&node.kubernetes).into(),
            time(&node.certificate_expires).into(),
            contact(&node.last_contact).unwrap_or_else(|| "-".into()).into(),
            node.addresses.join(" ").into(),
        ]);
    }
    output::table(&rows, 0, paint) + &behind(nodes)
}

/// A line for each node that does not run with the newest settings.
pub(super) fn behind(nodes: &[ClusterNode]) -> String {
    let behind = nodes.iter().filter_map(|node| {
        let settings = node.settings.as_ref()?;
        let reason = settings.reason.as_ref()?;
        let NodeSettings { revision, newest, .. } = settings;
        Some(format!(
            "{} has the settings of revision {revision}, not {newest}: {reason}",
            node.name
        ))
    });
    behind.map(|line| output::paragraph(&line, 0)).collect()
}
