use std::process::ExitCode;

use super::Outcome;
use crate::cli::ready::{self, Unready, Wait};
use crate::cli::{CommandError, Session, launch, replace, span, ui};
use crate::distribution::{Distribution, select, stage};
use crate::node::account;

/// Start the node
///
/// Checks the machine, puts the components below the node's root, starts the
/// node daemon (skiffd) in the background and waits until Kubernetes calls the
/// node ready. Where systemd runs, the default node becomes the unit skiffd and
/// comes back at every boot.
///
/// Starting again is safe: a node that runs the same build is left alone. With
/// another build of skiff, the node is handed over to it while pods go on, and
/// back to the former build when the new one does not become ready in time.
///
/// Ctrl-C ends the waiting, not the node.
///
///   sudo skiff start
///   sudo skiff start --timeout 60
#[derive(clap::Args, Debug)]
#[command(verbatim_doc_comment)]
pub struct Arguments {
    /// Seconds to wait until the node is ready; 0 waits as long as it takes
    #[arg(long, default_value = "300", value_parser = span::seconds, value_name = "SECONDS")]
    timeout: u64,

    /// Return as soon as skiffd answers
    #[arg(long, conflicts_with = "timeout")]
    no_wait: bool,

    /// Start even when `skiff check` finds an error
    #[arg(long)]
    skip_checks: bool,
}

pub(super) async fn run(arguments: Arguments, session: &Session) -> Outcome {
    if !account::is_root() {
        return Err(CommandError::new("starting a node needs root").hint("sudo skiff start"));
    }
    let wait = Wait { until_crash_loop: true, ..Wait::new(arguments.timeout) };
    match session.running().await? {
        Some(running) => {
            if let Some(new) = replace::other_build(session, &running.build)? {
                replace::replace(session, new, wait).await?;
            } else {
                ui::say("the node runs already");
            }
        }
        None => {
            if !arguments.skip_checks {
                super::check::refuse_errors(session)?;
            }
            stage_and_select(session)?;
            launch::launch(session).await?;
        }
    }
    if arguments.no_wait {
        ui::say("the node is starting");
        return Ok(ExitCode::SUCCESS);
    }
    match ready::wait(session, wait).await {
        Ok(status) => {
            ui::say(&format!("node {} is ready (Kubernetes {})", status.node, status.kubernetes));
            Ok(ExitCode::SUCCESS)
        }
        Err(Unready::Interrupted) => {
            Err(CommandError::new("interrupted; the node goes on starting by itself")
                .hint("skiff status --wait-ready"))
        }
        Err(Unready::Failed(error)) => Err(error),
    }
}

fn stage_and_select(session: &Session) -> Result<(), CommandError> {
    let builds = session.paths.builds();
    let distribution = Distribution::find()?;
    ui::say("putting the components in place");
    let (id, _) = stage(&distribution, &builds)?;
    select(&builds, &id)?;
    Ok(())
}
