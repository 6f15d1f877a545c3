use std::process::ExitCode;

use skiff_supervisor::output::LogReader;

use crate::cli::{CommandError, Session, output};

/// Show a daemon's log
///
/// Works on a stopped node too. Needs root or the group skiff.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// skiffd, datastore, containerd, kube-control or kube-node
    #[arg(default_value = "skiffd", value_name = "SERVICE")]
    service: String,

    /// Go on printing what is written
    #[arg(long, short)]
    follow: bool,

    /// How many of the last lines to print
    #[arg(long, short = 'n', default_value_t = 100, value_name = "LINES")]
    lines: usize,
}

pub(super) async fn run(
    arguments: Arguments,
    session: &Session,
) -> Result<ExitCode, CommandError> {
    let path = session.paths.daemon_log(&arguments.service);
    if arguments.service.contains('/') || !path.is_file() {
        return Err(CommandError::new(format!("there is no log of {:?}", arguments.service))
            .hint("skiff services"));
    }
    let mut reader = LogReader::open(&path, Some(arguments.lines))?;
    while let Some(line) = reader.read_line()? {
        output::write(&(line + "\n"))?;
    }
    while arguments.follow {
        output::write(&(reader.next_line().await? + "\n"))?;
    }
    Ok(ExitCode::SUCCESS)
}
