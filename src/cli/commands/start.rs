use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;
use std::fs;

use skiff_api::ClientError;

use super::status::{Wait, wait_ready};
use crate::cli::{CommandError, Session};
use crate::distribution::{Distribution, select, stage};
use crate::node::account;

/// Start the node
///
/// Stages the components below the node's root, starts the node daemon in the background and
/// waits until Kubernetes calls the node ready. A node that runs already is left alone. Ctrl-C
/// ends the waiting, not the node.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// Seconds to wait until the node is ready; 0 does not wait
    #[arg(long, default_value_t = 300, value_name = "SECONDS")]
    timeout: u64,
}

/// skiffd's socket appears within a second; a busy machine is given more.
const SOCKET_TIMEOUT: Duration = Duration::from_secs(60);
const SOCKET_PAUSE: Duration = Duration::from_millis(20);

pub(super) async fn run(
    arguments: Arguments,
    session: &Session,
) -> Result<ExitCode, CommandError> {
    if !account::is_root() {
        return Err(CommandError::new("starting a node needs root").hint("sudo skiff start"));
    }
    if running(session).await? {
        eprintln!("the node runs already");
    } else {
        launch(session)?;
        wait_for_socket(session).await?;
    }
    if arguments.timeout == 0 {
        return Ok(ExitCode::SUCCESS);
    }
    let wait = Wait { timeout: Duration::from_secs(arguments.timeout) };
    let status = wait_ready(&session.client(), &wait).await?;
    eprintln!("node {} is ready (Kubernetes {})", status.node, status.kubernetes);
    Ok(ExitCode::SUCCESS)
}

async fn running(session: &Session) -> Result<bool, CommandError> {
    match session.client().get::<skiff_api::Version>("/v1/version").await {
        Ok(_) => Ok(true),
        Err(ClientError::NotRunning(_)) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Starts skiffd from a staged build: by systemd where it rules, else in a session of its own.
fn launch(session: &Session) -> Result<(), CommandError> {
    let distribution = Distribution::find()
        .map_err(|e| CommandError::from(e).hint("make up, from a clone of Skiff"))?;
    let builds = session.paths.builds();
    eprintln!("staging the components");
    let (id, build) = stage(&distribution, &builds)?;
    select(&builds, &id)?;
    if session.paths.is_default() && Path::new("/run/systemd/system").is_dir() {
        return start_unit(session);
    }
    fs::create_dir_all(session.paths.log())?;
    let log = fs::OpenOptions::new().create(true).append(true).open(log_path(session))?;
    let mut command = Command::new(build.join("bin/skiff"));
    command.arg("daemon").arg("--root").arg(session.paths.root());
    if let Some(config) = &session.config {
        command.arg("--config").arg(std::path::absolute(config)?);
    }
    command.env_clear().env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).current_dir("/");
    // A group of its own: Ctrl-C in this terminal is not meant for the node.
    command.process_group(0);
    command.spawn()?;
    Ok(())
}

fn log_path(session: &Session) -> std::path::PathBuf {
    session.paths.daemon_log("skiffd")
}

/// Makes the unit what this version wants it to be, and starts it now and at every boot.
fn start_unit(session: &Session) -> Result<(), CommandError> {
    const UNIT: &str = "/etc/systemd/system/skiffd.service";
    let program = session.paths.builds().join("current/bin/skiff");
    let text = format!(
        "[Unit]\n\
         Description=Skiff node daemon\n\
         Wants=network-online.target\n\
         After=network-online.target\n\n\
         [Service]\n\
         ExecStart={program} daemon\n\
         ExecStop={program} stop\n\
         # The daemons outlive skiffd, so that a new one adopts them; `skiff stop` ends them.\n\
         KillMode=process\n\
         Delegate=yes\n\
         Restart=on-failure\n\
         RestartSec=1\n\
         TimeoutStopSec=150\n\
         TasksMax=infinity\n\
         LimitNOFILE=1048576\n\n\
         [Install]\n\
         WantedBy=multi-user.target\n",
        program = program.display()
    );
    if fs::read_to_string(UNIT).is_ok_and(|old| old == text) {
        return systemctl(&["enable", "--now", "skiffd.service"]);
    }
    fs::write(UNIT, text)?;
    systemctl(&["daemon-reload"])?;
    systemctl(&["enable", "--now", "skiffd.service"])
}

fn systemctl(args: &[&str]) -> Result<(), CommandError> {
    let output = Command::new("systemctl").args(args).output()?;
    if output.status.success() {
        return Ok(());
    }
    let mut error = CommandError::new(format!("systemctl {} failed", args.join(" ")));
    error.causes.push(String::from_utf8_lossy(&output.stderr).trim().to_owned());
    Err(error.hint("journalctl --unit skiffd"))
}

/// Waits until skiffd answers. One that ended says why in its log.
async fn wait_for_socket(session: &Session) -> Result<(), CommandError> {
    let wait = async {
        loop {
            match session.client().get::<skiff_api::Version>("/v1/version").await {
                Ok(_) => return Ok(()),
                Err(ClientError::NotRunning(_)) if ended(session) => return Err(reason(session)),
                Err(ClientError::NotRunning(_)) => tokio::time::sleep(SOCKET_PAUSE).await,
                Err(error) => return Err(error.into()),
            }
        }
    };
    let late = |_| {
        let message = format!("skiffd does not answer within {} s", SOCKET_TIMEOUT.as_secs());
        CommandError::new(message).hint("skiff logs skiffd")
    };
    tokio::time::timeout(SOCKET_TIMEOUT, wait).await.map_err(late)?
}

/// A skiffd that could not begin leaves this file with its reason.
fn ended(session: &Session) -> bool {
    session.paths.start_failure().is_file()
}

fn reason(session: &Session) -> CommandError {
    let text = fs::read_to_string(session.paths.start_failure()).unwrap_or_default();
    match serde_json::from_str::<skiff_api::ErrorBody>(&text) {
        Ok(body) => CommandError::from_body(body),
        Err(_) => CommandError::new("skiffd ended at once").hint("skiff logs skiffd"),
    }
}

