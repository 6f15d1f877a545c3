use std::process::ExitCode;

use skiff_api::{ClientError, ClusterNode, Setting};

use super::Outcome;
use super::nodes::behind;
use crate::cli::output::{self, Cell, Choice, Format};
use crate::cli::ui::Paint;
use crate::cli::{CommandError, Session, ui};
use crate::config::{self, Config, Shared, Sources};
use crate::node::settings::shared;

/// Show settings and where each value comes from
///
/// One setting prints its value alone, a group or nothing prints a table. An
/// origin is a line of a file, the snap, the cluster, or what was set for all
/// nodes, with its revision. A line of this node's own files that does not count
/// stands below, and with --cluster which nodes run with what was set last. A
/// stopped node says with what it would start.
///
///   skiff get
///   skiff get network
///   skiff get --cluster
///   skiff get api.port
#[derive(clap::Args, Debug)]
#[command(verbatim_doc_comment)]
pub struct Arguments {
    /// Setting or group of settings
    key: Option<String>,

    /// Only settings that all nodes share, those that `skiff set` changes
    #[arg(long, conflicts_with = "node")]
    cluster: bool,

    /// Only settings that each node has for itself
    #[arg(long)]
    node: bool,

    #[command(flatten)]
    output: Choice,
}

pub(super) async fn run(arguments: Arguments, session: &Session) -> Outcome {
    let mut all: Vec<Setting> = match session.client().get("/v1/settings").await {
        Ok(settings) => settings,
        Err(ClientError::NotRunning(_)) => {
            let shared = shared(&session.paths).unwrap_or_else(|error| {
                ui::say(&format!("what was set is not shown: {error} (sudo skiff get)"));
                Shared::default()
            });
            Config::load_with(&Sources::of(session.config_file()), &shared)?.settings()
        }
        Err(error) => return Err(error.into()),
    };
    let is_own = |setting: &Setting| setting.scope == "node";
    all.retain(|setting| match (arguments.cluster, arguments.node) {
        (true, _) => !is_own(setting),
        (_, true) => is_own(setting),
        _ => true,
    });
    let Some(key) = arguments.key else {
        let nodes = match arguments.cluster && arguments.output.format == Format::Text {
            true => session.client().get("/v1/cluster/nodes").await.unwrap_or_default(),
            false => vec![],
        };
        output::print(arguments.output, &all, |all, paint| text(all, paint) + &runs(&nodes))?;
        return Ok(ExitCode::SUCCESS);
    };
    if let Some(setting) = all.iter().find(|setting| setting.key == key) {
        match arguments.output.format {
            Format::Text => output::write(&format!("{}\n", setting.value))?,
            _ => output::print(arguments.output, setting, |_, _| String::new())?,
        }
        return Ok(ExitCode::SUCCESS);
    }
    let group = format!("{key}.");
    let found: Vec<Setting> = all.into_iter().filter(|s| s.key.starts_with(&group)).collect();
    if found.is_empty() {
        let error = CommandError::new(format!("there is no setting {key}"));
        return Err(match config::like(&key) {
            Some(like) => error.hint(format!("skiff get {like}")),
            None => error.hint("skiff get"),
        });
    }
    output::print(arguments.output, &found, |found, paint| text(found, paint))?;
    Ok(ExitCode::SUCCESS)
}

/// Which nodes run with what was set last, and which not yet.
fn runs(nodes: &[ClusterNode]) -> String {
    let of = |node: &ClusterNode| node.settings.as_ref().map(|s| (s.revision, s.newest));
    let newest = nodes.iter().filter_map(of).map(|(_, newest)| newest).max().unwrap_or_default();
    let names: Vec<&str> = nodes
        .iter()
        .filter(|node| of(node).is_some_and(|(revision, _)| revision == newest))
        .map(|node| node.name.as_str())
        .collect();
    if newest == 0 || names.is_empty() {
        return behind(nodes);
    }
    let line = format!("revision {newest} runs on {}", names.join(", "));
    output::paragraph(&line, 0) + &behind(nodes)
}

fn text(settings: &[Setting], paint: Paint) -> String {
    let mut rows = vec![["KEY", "VALUE", "ORIGIN"].map(Cell::from).to_vec()];
    for setting in settings {
        let value = output::cut(&setting.value, 32);
        rows.push(vec![(&setting.key).into(), value.into(), (&setting.origin).into()]);
    }
    let own = settings.iter().filter_map(|setting| {
        let own = setting.own.as_ref().filter(|own| !own.added)?;
        Some(format!("{}: {} = {} does not count", own.origin, setting.key, own.value))
    });
    let own: String = own.map(|line| output::paragraph(&line, 0)).collect();
    output::table(&rows, 0, paint) + &own
}
