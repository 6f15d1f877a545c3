use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use super::Outcome;
use crate::cli::{CommandError, Session};
use crate::distribution::{boot, cut_short, end_trial, select};
use crate::node;

/// Run the node daemon in the foreground
#[derive(clap::Args, Debug)]
#[command(verbatim_doc_comment)]
pub struct Arguments {
    /// Leave the terminal and the files of whoever started it
    #[arg(long)]
    background: bool,
}

pub(super) async fn run(_: Arguments, session: &Session) -> Outcome {
    super::write_log();
    undo_trial(session)?;
    let options = node::Options { paths: session.paths.clone(), config: session.config.clone() };
    node::run(options).await?;
    Ok(ExitCode::SUCCESS)
}

/// Becomes the skiffd of the former build when the machine went down while this one was on trial.
fn undo_trial(session: &Session) -> Result<(), CommandError> {
    let builds = session.paths.builds();
    let Some(former) = cut_short(&builds, &boot()?) else { return Ok(()) };
    tracing::warn!(%former, "the machine went down before the selected build had proven itself; going back");
    select(&builds, &former)?;
    end_trial(&builds)?;
    let program = builds.join(former.to_string()).join("bin/skiff");
    let error = Command::new(&program).args(std::env::args_os().skip(1)).exec();
    Err(CommandError::because(format!("cannot run {}", program.display()), &error))
}

impl Arguments {
    /// Before anything is open: a session of its own, and no file that was open in the shell or
    /// script behind `skiff start` (a lock held there would be held for as long as the node runs).
    pub(super) fn before_runtime(&self) -> Result<(), CommandError> {
        if !self.background {
            return Ok(());
        }
        // Refused to whoever leads a group already: it has a session or a group of its own then.
        let _ = nix::unistd::setsid();
        let open: Vec<i32> = std::fs::read_dir("/proc/self/fd")
            .map_err(|e| CommandError::because("cannot read /proc/self/fd", &e))?
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .collect();
        for descriptor in open.into_iter().filter(|descriptor| *descriptor > 2) {
            // The one of the listing itself is closed already.
            let _ = nix::unistd::close(descriptor);
        }
        Ok(())
    }
}
