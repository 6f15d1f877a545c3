use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use skiff_api::{ClusterNode, NodeState, SetOutcome, SetRequest};

use super::Outcome;
use crate::cli::output::{self, Cell, Choice, Format};
use crate::cli::ui::Paint;
use crate::cli::{CommandError, Session, span, ui};
use crate::config;

/// Change settings of the cluster, on all its nodes
///
/// A value is checked, and tried on this node; if a daemon does not run with it,
/// nothing changes. Then it is kept in the cluster's record, and every other node
/// takes it up while it runs: only the daemons that read it start anew, pods go on,
/// and control-plane nodes go one after the other. A node that is off catches up
/// when it is back; one that cannot take it up goes back to what it had and says so
/// in `skiff nodes`. Until somebody sets it, a setting is what each node's own
/// files say.
///
/// On a node that was never in a cluster it holds for that node. Flags are a list,
/// which replaces the former one. `skiff get --cluster` shows what can be set.
///
///   sudo skiff set api.extra-sans=kube.example.org
///   sudo skiff set kube.kubelet-args='["--max-pods=50", "--v=2"]'
///   sudo skiff set --unset kube.kubelet-args
#[derive(clap::Args, Debug)]
#[command(verbatim_doc_comment)]
pub struct Arguments {
    /// Setting and its value
    #[arg(value_name = "KEY=VALUE", value_parser = assignment, required_unless_present = "unset")]
    set: Vec<(String, serde_json::Value)>,

    /// Take a value back: each node's own files count again (can be repeated)
    #[arg(long, value_name = "KEY")]
    unset: Vec<String>,

    /// Say what would change, and change nothing
    #[arg(long)]
    dry_run: bool,

    /// Only if nobody has changed settings since that revision
    #[arg(long, value_name = "NUMBER")]
    revision: Option<u64>,

    /// Seconds to wait until the nodes have taken it up; 0 waits as long as it takes
    #[arg(long, default_value = "300", value_parser = span::seconds, value_name = "SECONDS")]
    timeout: u64,

    /// Return as soon as the cluster has it
    #[arg(long, conflicts_with = "timeout")]
    no_wait: bool,

    #[command(flatten)]
    output: Choice,
}

/// Between two looks at the nodes.
const PAUSE: Duration = Duration::from_millis(500);

pub(super) async fn run(arguments: Arguments, session: &Session) -> Outcome {
    let mut request = SetRequest {
        set: BTreeMap::new(),
        unset: arguments.unset,
        revision: arguments.revision,
        dry_run: arguments.dry_run,
    };
    for (key, value) in arguments.set {
        if request.unset.contains(&key) || request.set.insert(key.clone(), value).is_some() {
            return Err(CommandError::usage(format!("{key} is named twice")));
        }
    }
    let outcome: SetOutcome = session.client().post("/v1/settings", &request).await?;
    output::print(arguments.output, &outcome, text)?;
    if outcome.dry_run || arguments.no_wait {
        return Ok(ExitCode::SUCCESS);
    }
    let bound = (arguments.timeout > 0).then(|| Duration::from_secs(arguments.timeout));
    let is_quiet = arguments.output.format != Format::Text;
    wait(session, outcome.revision, bound, is_quiet).await
}

/// Until every node that is ready has taken them up.
async fn wait(
    session: &Session,
    revision: u64,
    bound: Option<Duration>,
    is_quiet: bool,
) -> Outcome {
    let begun = Instant::now();
    let mut told = Vec::new();
    loop {
        // This node's API server may be the one that starts anew.
        let nodes: Vec<ClusterNode> =
            session.client().get("/v1/cluster/nodes").await.unwrap_or_default();
        let done = nodes.iter().filter(|node| has_taken_up(node, revision));
        for node in done {
            if !told.contains(&node.name) {
                told.push(node.name.clone());
                if !is_quiet {
                    ui::say(&format!("{} has taken it up", node.name));
                }
            }
        }
        let failed = nodes.iter().find_map(|node| {
            let settings = node.settings.as_ref()?;
            let is_ours = settings.newest == revision && settings.failed;
            let reason = settings.reason.as_ref().filter(|_| is_ours)?;
            Some((&node.name, reason))
        });
        if let Some((name, reason)) = failed {
            return Err(CommandError::new(format!("{name} could not take it up"))
                .cause(reason.clone())
                .hint("sudo skiff set another value, or sudo skiff set --unset KEY"));
        }
        let missing = missing(&nodes, revision);
        if !nodes.is_empty() && missing.is_empty() {
            return Ok(ExitCode::SUCCESS);
        }
        if bound.is_some_and(|bound| begun.elapsed() > bound) {
            let who = if nodes.is_empty() { "nobody answers".into() } else { missing.join(", ") };
            return Err(CommandError::new("not every node has taken it up in time")
                .cause(who)
                .hint("skiff nodes"));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// One that has gone on to something newer has, too.
fn has_taken_up(node: &ClusterNode, revision: u64) -> bool {
    node.settings.as_ref().is_none_or(|settings| settings.revision >= revision)
}

/// Who is there and has not yet; others catch up when they are back.
fn missing(nodes: &[ClusterNode], revision: u64) -> Vec<String> {
    let is_there = |node: &&ClusterNode| {
        matches!(node.state, NodeState::Ready | NodeState::Member | NodeState::Joining)
    };
    let is_missing = |node: &&ClusterNode| !has_taken_up(node, revision);
    nodes.iter().filter(is_there).filter(is_missing).map(|node| node.name.clone()).collect()
}

fn text(outcome: &SetOutcome, paint: Paint) -> String {
    let would = if outcome.dry_run { "would be" } else { "is" };
    if outcome.changes.is_empty() {
        return format!("nothing changes: {would} revision {}\n", outcome.revision);
    }
    let mut rows = vec![["KEY", "BEFORE", "AFTER"].map(Cell::from).to_vec()];
    for change in &outcome.changes {
        let before = output::cut(&change.before, 32);
        rows.push(vec![(&change.key).into(), before.into(), (&change.after).into()]);
    }
    format!("{}{would} revision {}\n", output::table(&rows, 0, paint), outcome.revision)
}

fn assignment(text: &str) -> Result<(String, serde_json::Value), String> {
    let Some((key, value)) = text.split_once('=') else {
        return Err("a setting is written as KEY=VALUE".into());
    };
    let value = config::read_value(key, value).unwrap_or_else(|| value.into());
    Ok((key.to_owned(), value))
}

#[cfg(test)]
mod tests {
    use skiff_api::NodeSettings;

    use super::*;

    #[test]
    fn words_behind_a_setting_are_read_as_it_takes_them() {
        for (text, value) in [
            ("network.mtu=1400", serde_json::json!(1400)),
            ("api.extra-sans=kube.example.org", serde_json::json!(["kube.example.org"])),
            ("api.extra-sans=[]", serde_json::json!([])),
            ("kube.kubelet-args=--v=2", serde_json::json!(["--v=2"])),
            ("kube.proxy-args=[\"--v=2\", \"--a=b,c\"]", serde_json::json!(["--v=2", "--a=b,c"])),
            ("backup.schedule=6h", serde_json::json!("6h")),
            ("backup.unencrypted=true", serde_json::json!(true)),
            // skiffd says what is wrong with it.
            ("network.mtu=large", serde_json::json!("large")),
            ("no.such=1", serde_json::json!("1")),
        ] {
            assert_eq!(assignment(text).unwrap().1, value, "{text}");
        }
        assert!(assignment("network.mtu").is_err());
    }

    #[test]
    fn who_is_away_is_not_waited_for() {
        let node = |name: &str, state, revision| ClusterNode {
            name: name.into(),
            role: "worker".into(),
            state,
            datastore: None,
            addresses: vec![],
            version: String::new(),
            kubernetes: String::new(),
            certificate_expires: None,
            last_contact: None,
            settings: Some(NodeSettings { revision, newest: 3, failed: false, reason: None }),
        };
        let nodes = [
            node("alpha", NodeState::Ready, 3),
            node("beta", NodeState::Ready, 2),
            node("gamma", NodeState::NotReady, 1),
        ];
        assert_eq!(missing(&nodes, 3), ["beta"]);
        assert!(missing(&nodes, 2).is_empty());
    }
}
